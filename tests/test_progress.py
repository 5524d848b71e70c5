"""What a log file hears of a night, where there is no terminal to draw bars on."""

from io import StringIO

import pytest
from rich.console import Console

from pipeline.progress import Narrator


def test_a_log_file_hears_how_far_a_long_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for minute in (60.0, 0.0):
        monkeypatch.setattr("pipeline.progress._EVERY", minute)
        file = StringIO()
        with Narrator(Console(file=file)).step("testing", total=3) as step:
            step.advance()
            step.note("done")
        told.append([line.split()[:4] for line in file.getvalue().splitlines()])
    (quick,), (under_way, last) = told
    assert under_way == ["testing", "1", "of", "3"] and quick[:2] == last[:2] == ["testing", "done"]
