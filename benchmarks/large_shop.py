"""Train on a large simulated shop and score a night of all its users, as whole processes: time and peak memory.

    python benchmarks/large_shop.py                     100 million events of 2.2 million users, memory: 4GB

Memory is that of the process alone, without the pages of files that the system lends it while nobody else needs the room.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml
from feature_engine import OUTPUT, ROOT, shop_of
from rich.console import Console

from pipeline.progress import Narrator

AS_OF = "2024-11-25"
EVERY = 0.3


def config_of(shop: Path, memory: str, rows: int) -> Path:
    """Write the shipped config for this shop."""
    text = (ROOT / "configs" / "clickstream.yaml").read_text().replace("data/clickstream", str(shop))
    told = yaml.safe_load(text)
    told |= {"output": str(shop.with_name(f"{shop.name}_out")), "engine": {"memory": memory}, "training": {"most_rows": rows}}
    path = shop.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def measured(command: str, config: Path) -> tuple[float, float]:
    """Run a command as a process; give its seconds and its peak memory in GB. What it says of its steps is shown."""
    words = [sys.executable, "-m", "pipeline", command, "--config", str(config), "--as-of", AS_OF, "--json"]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(EVERY)
    if process.returncode:
        sys.exit(f"{command} failed with status {process.returncode}")
    return time.monotonic() - started, peak / 1e6


def anonymous(pid: int) -> int:
    """Give the kB that a process holds of its own."""
    try:
        told = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(told[1]) if told else 0


def main() -> None:
    """Measure both, and print a table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--events", type=int, default=100, help="millions")
    asked.add_argument("--memory", default="4GB")
    asked.add_argument("--rows", type=int, default=500_000, help="training.most_rows")
    told = asked.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    config = config_of(shop_of(told.events, Narrator(Console(stderr=True))), told.memory, told.rows)
    print("| what | time | peak memory |\n|---|---|---|")
    for command in ("train", "score"):
        seconds, gigabytes = measured(command, config)
        print(
            f"| `{command}`, {told.events} M events, `memory: {told.memory}` | {seconds:.0f} s | {gigabytes:.1f} GB |", flush=True
        )


if __name__ == "__main__":
    main()
