"""The simulated shop on disk: raw tables as a company would have them, and the truth kept aside."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from joblib import Parallel, delayed

from features.errors import ConfigError, StoreError
from pipeline.progress import Narrator
from pipeline.shop.chunk import CHUNK, draw_chunk
from pipeline.shop.personas import PERSONAS
from pipeline.shop.world import World, build_world

MODEL = 1
TABLES = ("clicks", "orders", "returns", "messages", "support", "members")
START = date(2024, 1, 1)
MOST_USERS, MOST_DAYS, MOST_JOBS = 10_000_000, 3_660, 64
_MARK = "truth/shop.json"
_LOCK = ".lock"
# Ids of a session or an order hardly repeat: a dictionary of them is larger than they are.
_REPEATED = (
    "user_id", "action", "item_id", "category", "brand", "channel", "device", "source", "region", "utc_offset_minutes",
    "campaign", "coupon", "quantity", "tier", "persona",
)  # fmt: skip


def simulate(
    output: Path, narrator: Narrator, *, users: int, days: int, seed: int, start: date = START, jobs: int = 2
) -> dict[str, Any]:
    """Write the shop to `output` and give its counts: rows per table, `events`, `users`, and where it is.

    The same users, days, seed and start give the same tables, whatever `jobs`. The shop is written beside `output` and moved there
    when it is whole; a shop that was there is replaced, any other folder is left alone.

    Raises ConfigError on arguments that cannot be meant and on a folder that is not a shop, StoreError when writing fails or
    another simulation writes to the same place.
    """
    _check(users=users, days=days, seed=seed, start=start, jobs=jobs)
    output = output.resolve()
    _refuse_strangers(output)
    with _beside(output) as folder:
        with narrator.step("drawing the calendar") as step:
            world = build_world(start, days, seed)
            step.note(f"{days:,} days from {start}, {len(world.sent_at)} campaigns")
        counts: Counter[str] = Counter()
        sizes = [min(CHUNK, users - first) for first in range(0, users, CHUNK)]
        with narrator.step("simulating users", total=len(sizes)) as step:
            work = (delayed(_write_chunk)(folder, world, seed, chunk, size) for chunk, size in enumerate(sizes))
            for written in Parallel(n_jobs=min(jobs, len(sizes)), return_as="generator_unordered")(work):
                counts.update(written)
                step.advance()
            step.note(f"{users:,} users, {_events(counts):,} events")
        _gather_truth(folder, len(sizes))
        rows = {name: counts[name] for name in TABLES}
        asked = {"users": users, "days": days, "seed": seed, "start": start.isoformat()}
        truth = {"model": MODEL, **asked, "rows": rows, "personas": [asdict(persona) for persona in PERSONAS], **world.told()}
        (folder / _MARK).write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return {"output": str(output), **asked, "events": _events(counts), "rows": rows}


def _events(counts: Mapping[str, int]) -> int:
    return sum(counts[name] for name in TABLES if name != "members")


def _check(*, users: int, days: int, seed: int, start: date, jobs: int) -> None:
    limits = {
        "--users": (users, 1, MOST_USERS),
        "--days": (days, 1, MOST_DAYS),
        "--seed": (seed, 0, 2**31 - 1),
        "--jobs": (jobs, 1, MOST_JOBS),
    }
    wrong = [
        f"{name} {value}: must be a whole number from {least:,} to {most:,}"
        for name, (value, least, most) in limits.items()
        if not least <= value <= most
    ]
    if not 1990 <= start.year < 2190:
        wrong.append(f"--start {start}: must lie between 1990 and 2189")
    if wrong:
        raise ConfigError("; ".join(wrong))


def _refuse_strangers(output: Path) -> None:
    if output.is_file():
        raise ConfigError(f"--output {output} is a file: name a folder")
    if output.is_dir() and any(output.iterdir()) and not (output / _MARK).is_file():
        raise ConfigError(
            f"--output {output} holds something else than a simulated shop (no {_MARK}): name a new or an empty folder, "
            "or clear this one yourself"
        )


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """Give a folder to fill, and put it in the place of `output` once it is whole; nothing stays of one that is not."""
    folder, replaced = (output.with_name(f".{output.name}.{what}") for what in ("unfinished", "replaced"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise StoreError(f"another simulation is writing {output}: wait until it ends, or name another --output") from None
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written: {error.strerror}; name a folder that can") from None
    try:
        # What a killed run left.
        _clear(folder, keep=_LOCK)
        shutil.rmtree(replaced, ignore_errors=True)
        for name in (*TABLES, "truth"):
            (folder / name).mkdir()
        yield folder
        if output.exists():
            output.rename(replaced)
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rename(output)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"cannot write to {output}: {error.strerror or error}; make room there, or name another --output"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _clear(folder: Path, *, keep: str) -> None:
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != keep:
            left.unlink()


def _write_chunk(folder: Path, world: World, seed: int, chunk: int, users: int) -> dict[str, int]:
    tables = draw_chunk(world, seed, chunk, users)
    for name, table in tables.items():
        _write(table, folder / ("truth" if name == "users" else name) / f"part-{chunk:05d}.parquet")
    return {name: len(table) for name, table in tables.items()}


def _write(table: pa.Table, path: Path) -> None:
    # Without the Arrow schema readers see plain strings, not how they were made.
    repeated = [name for name in table.column_names if name in _REPEATED]
    pq.write_table(table, path, compression="zstd", compression_level=1, use_dictionary=repeated, store_schema=False)


def _gather_truth(folder: Path, chunks: int) -> None:
    parts = [folder / "truth" / f"part-{chunk:05d}.parquet" for chunk in range(chunks)]
    with pq.ParquetWriter(
        folder / "truth" / "users.parquet", pq.read_schema(parts[0]), compression="zstd", store_schema=False
    ) as whole:
        for part in parts:
            whole.write_table(pq.read_table(part))
            part.unlink()
