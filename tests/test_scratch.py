"""Scratch folders: whose process is gone goes, whose is not stays."""

import subprocess
import sys
from pathlib import Path

from features.scratch import claim, leave

HOLDS = """
import sys
from pathlib import Path
from features.scratch import claim
lock = claim(Path(sys.argv[1]))
(Path(sys.argv[1]) / "events").write_text("much")
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Give a process that holds a folder until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_what_a_killed_process_left_goes_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    killed, living = holder(tmp_path / "[a] spill-1"), holder(tmp_path / "[a] spill-2")
    (tmp_path / "[a] spill-of-mine").mkdir()  # nobody's scratch: it was never held
    killed.kill()
    killed.communicate()
    try:
        assert (tmp_path / "[a] spill-1" / "events").exists()
        lock = claim(tmp_path / "[a] spill-3")
        assert sorted(folder.name for folder in tmp_path.iterdir()) == ["[a] spill-2", "[a] spill-3", "[a] spill-of-mine"]
        assert (tmp_path / "[a] spill-2" / "events").read_text() == "much"
        leave(lock)
        assert sorted(folder.name for folder in tmp_path.iterdir()) == ["[a] spill-2", "[a] spill-of-mine"]
    finally:
        living.kill()
        living.communicate()


def test_a_folder_is_held_once_however_often_it_is_claimed(tmp_path: Path) -> None:
    lock, again = claim(tmp_path / "spill-1"), claim(tmp_path / "spill-1")
    assert (tmp_path / "spill-1").stat().st_mode & 0o777 == 0o700
    other = claim(tmp_path / "spill-2")
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["spill-1", "spill-2"]
    leave(lock)
    leave(again)
    leave(other)
    assert list(tmp_path.iterdir()) == []
