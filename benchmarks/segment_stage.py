"""Measure a night's segment stage for a million users: `python benchmarks/segment_stage.py`; writes below output/benchmarks.

Answers are those of three nights of a simulated shop (see benchmarks/segments.py): users drawn with replacement, the same on all
nights, each with a noise of its own, so that as many turn from night to night as really do. The first night makes everybody's
memberships, the next goes on from there when minimum stays are over, and the third, a day later, is a night as they all are. Every
round is a process of its own, for its peak memory.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather
from segments import FIRST_NIGHT, OUTPUT, TOLD_OF, narrator, nights, settings_of

from pipeline.batches import CHUNK, Here
from pipeline.columns import AS_OF, QUARANTINE, SCORES, segments_schema, without_date
from pipeline.ledger import reopened, settled, turns_of
from pipeline.recorded import forming_of, recorded_answers, stood
from pipeline.score import run_night
from pipeline.segments import TURNS, Forming, before_schema, places_of, segments_rows
from pipeline.settings import Settings
from pipeline.tables import Night, memberships, write_night
from pipeline.tracking import Tracker

USERS = 1_000_000
DAYS = tuple(FIRST_NIGHT + timedelta(days=at) for at in (14, 30, 31))
TABLES = OUTPUT / "segment_stage"
PARTS = ("how users stood", "forming segments", "keeping the ledger")


def forming(settings: Settings, day: date) -> Forming:
    """Give what segments are formed with on a night."""
    return forming_of(settings, day, has_before=day != DAYS[0])


def kept_answers(day: date) -> Path:
    """Give the file of a million answers of a night, made when it is not there."""
    paths = {day: OUTPUT / f"segment_stage_{day}.arrow" for day in DAYS}
    if not all(path.exists() for path in paths.values()):
        nights(TOLD_OF)
        settings = settings_of(TOLD_OF)
        for each in DAYS:
            run_night(settings, each, Tracker(settings), narrator(), lambda: datetime(2025, 1, 1, tzinfo=UTC))
        small = {each: recorded_answers(settings.output, each, forming(settings, each), None)[0] for each in DAYS}
        # Who joined in between is not drawn.
        users = small[DAYS[0]]["user_id"].combine_chunks()
        drawn = pa.array(np.random.default_rng(1).integers(0, len(users), USERS))
        for each, rows in small.items():
            places = pc.index_in(users.take(drawn), value_set=rows["user_id"].combine_chunks())
            feather.write_feather(million(rows, places), paths[each], compression="uncompressed", chunksize=CHUNK)
    return paths[day]


def million(answers: pa.Table, places: pa.Array) -> pa.Table:
    """Give the answers at these places, as of as many users, whose scores, amounts and days are each a little larger or smaller."""
    noise = np.random.default_rng(2).lognormal(0, 0.02, len(places))
    parts = []
    for start in range(0, len(places), CHUNK):
        rows, own = answers.take(places.slice(start, CHUNK)), noise[start : start + CHUNK]
        for at, name in enumerate(rows.column_names):
            if name == "user_id":
                rows = rows.set_column(at, name, pa.array([f"u{start + number:07}" for number in range(len(rows))]))
            elif pa.types.is_floating(rows[name].type) and ("amount" in name or name.endswith(("_score", "_days"))):
                # A missing score is null, never NaN.
                rows = rows.set_column(at, name, pc.multiply(rows[name], pa.array(own)))
        parts.append(rows)
    return pa.concat_tables(parts)


def night(day: date) -> dict[str, Any]:
    """Run the segment stage of a night, and write what the next one reads."""
    settings = settings_of(TOLD_OF)
    told, schema = forming(settings, day), without_date(segments_schema(settings.specs()))
    answers = feather.read_table(kept_answers(day), memory_map=False)
    places, before, at, worked = places_of(answers, told.targets), None, [time.monotonic()], time.process_time()
    if told.has_before:
        before = stood(TABLES, DAYS[DAYS.index(day) - 1], told)
    at.append(time.monotonic())
    answers = answers if before is None else _beside(answers, before, told)
    before = None
    found = {"answers_gb": answers.nbytes / 1e9, "before_gb": _gigabytes()}
    at.append(time.monotonic())
    made = partial(segments_rows, forming=told, places=places, schema=schema)
    segments = Here(answers).map(made, pa.schema([*schema, TURNS])).kept()
    at.append(time.monotonic())
    turned = turns_of(segments.here(["user_id", TURNS.name]))
    stays = settled(reopened(memberships(TABLES), day), turned, segments.here(["user_id"])["user_id"], day)
    at.append(time.monotonic())
    spent = (at[1] - at[0], at[3] - at[2], at[4] - at[3])
    found |= dict(zip(PARTS, spent, strict=True)) | {"seconds": sum(spent), "gb": _gigabytes()}
    # Beside other work on the same cores, this is what stays the same; putting rows side by side is a part of it.
    found["cpu_seconds"] = time.process_time() - worked
    if day != DAYS[-1]:
        _write(settings, day, answers, segments, stays.rows)
    came = int(pc.sum(turned["is_in"]).as_py() or 0)
    stayed = int(pc.sum(pc.list_value_length(segments.rows["segments"])).as_py())
    return found | {"came": came, "left": len(turned) - came, "memberships": stayed, "stays": len(stays.rows)}


def _beside(answers: pa.Table, before: pa.Table, told: Forming) -> pa.Table:
    """Put how users stood beside their answers, as batches of the size of a night's."""
    assert answers["user_id"].equals(before["user_id"])
    parts = []
    for start in range(0, len(answers), CHUNK):
        rows, stood_ = answers.slice(start, CHUNK), before.slice(start, CHUNK).combine_chunks()
        for name in before_schema(told).names:
            rows = rows.append_column(name, stood_[name])
        parts.append(rows)
    return pa.concat_tables(parts)


def _write(settings: Settings, day: date, answers: pa.Table, segments: Here, stays: pa.Table) -> None:
    read = [name for name in answers.column_names if not name.endswith(("_reasons", "_score")) and not name.startswith("persona")]
    dated = answers.select(read).append_column(AS_OF, pa.array([day] * len(answers), AS_OF.type))
    tables = {"features": dated, "memberships": stays, "quarantine": QUARANTINE.empty_table(), "scores": SCORES.empty_table()}
    tables |= {"shadow": SCORES.empty_table(), "segments": segments.staged(segments_schema(settings.specs()), day, TABLES)}
    now = datetime(2025, 1, 1, tzinfo=UTC)
    write_night(TABLES, Night(day, "made up", now, now, {}, {}), tables)


def _gigabytes() -> float:
    """Give the most memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measured(day: date) -> dict[str, Any]:
    """Run a night in a process of its own."""
    ran = subprocess.run([sys.executable, __file__, "--night", str(day)], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    print(ran.stdout.strip(), file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure the nights, the last several times, and print a table for the documentation."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--night", type=date.fromisoformat)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    if given.night:
        print(json.dumps(night(given.night)))
        return
    kept_answers(DAYS[0])
    print("| what | measured | we aim at |\n|---|---|---|")
    shutil.rmtree(TABLES, ignore_errors=True)
    told = ("of the first night", "of a night two weeks later", "of a night the day after it")
    for day, what in zip(DAYS, told, strict=True):
        # Once written, a night's memberships are no longer those that it began with.
        rounds = [measured(day) for _round in range(given.rounds if day == DAYS[-1] else 1)]
        typical = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        parts = ", ".join(f"{name} {typical[name]:.1f} s" for name in PARTS if typical[name] > 0.05)
        parts += f"; {typical['cpu_seconds']:.1f} s of work"
        memory = f"{typical['gb']:.1f} GB, of which {typical['answers_gb']:.1f} GB are the answers"
        many = f"{typical['came']:,} came, {typical['left']:,} left, {typical['memberships']:,} memberships"
        aim = "≤ 20 s and ≤ 4 GB" if day == DAYS[-1] else "–"
        print(
            f"| segments of {USERS:,} users {what} ({many}) | {typical['seconds']:.1f} s ({parts}); {memory} | {aim} |", flush=True
        )


if __name__ == "__main__":
    main()
