"""The tables: Delta Lake, one commit a night, so that a night is seen in all tables or in none.

Each table is committed on its own; the row then added to `nights` names the version of every table and is the moment at which the
night exists. Readers start from that row (`read`), so while a night is written, or after a crash, they see the last complete one.
Versions past it are a crashed run's and are rolled back by the next.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from filelock import FileLock, Timeout
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from features.errors import DataError, StoreError, first_line, listed
from pipeline.columns import MEMBERSHIPS, NIGHTS

# `segments` comes last: it is the table that others read directly.
ORDER = ("quarantine", "features", "scores", "shadow", "memberships", "segments")
# Below the output: files of a night that wait for their commit.
STAGED = ".staged"
_MARK = "beforehand"
_ROLLED_BACK = "rolled back"
_HARMLESS = {"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES"}


@dataclass(frozen=True)
class Night:
    """One finished run, as the `nights` table keeps it."""

    as_of: date
    run_id: str
    started_at: datetime
    finished_at: datetime
    counts: Mapping[str, Any]
    checks: Mapping[str, Any]
    # The config that shaped it (see `pipeline.recorded`).
    settings: str | None = None


@dataclass(frozen=True)
class Files:
    """Parquet files on the tables' file system that wait for their commit; `as_of` is in `schema` and not in them."""

    schema: pa.Schema
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        """Count the rows."""
        return sum(pq.read_metadata(path).num_rows for path in self.paths)


@contextmanager
def exclusive(output: Path, what: str) -> Iterator[None]:
    """Hold the lock of `what` (`night` or `training`) below `output`; the system lets go of it when the process ends.

    Raises StoreError at once when another process holds it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / f".{what}.lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise StoreError(f"another {what} is running on {output}: wait until it ends, or give this one another `output`") from None
    except OSError as error:
        raise StoreError(f"cannot write to {output}: {error.strerror}; check `output` in the config") from None
    try:
        yield
    finally:
        lock.release()


def recover(root: Path) -> list[str]:
    """Make sure every table below `root` stands at the last complete night; undo what a crashed run left.

    Gives the names of the tables that were rolled back. Raises StoreError when a table is not one, or somebody else wrote to it.
    """
    shutil.rmtree(root / STAGED, ignore_errors=True)
    good = _versions(nights(root))
    return [name for name in ORDER if _roll_back(root / name, good.get(name))]


def write_night(
    root: Path, night: Night, tables: Mapping[str, pa.Table | Files], *, later: Mapping[date, pa.Table | Files] | None = None
) -> None:
    """Replace the night's date in every table, then record the night. Files are moved into their table and belong to it then.

    `memberships` are the stays that were open when the night began, or began since, as all nights since leave them. `later` are the
    rows of `segments` of later nights, which this one changed. Rerunning a date replaces that date only. When any write fails, what
    was written is rolled back and StoreError raised.
    """
    versions: dict[str, int] = {}
    day = night.as_of.isoformat()
    try:
        for name in ORDER:
            if name == "memberships":
                still = f"left_on is null or left_on >= '{day}'"
                versions[name] = _overwrite(root / name, tables[name], night, by="left_on", where=still)
                continue
            versions[name] = _replace(root / name, tables[name], night)
            for date_, rows in (later or {}).items() if name == "segments" else ():
                versions[name] = _replace(root / name, rows, replace(night, as_of=date_))
        row = {"as_of": night.as_of, "run_id": night.run_id, "started_at": night.started_at, "finished_at": night.finished_at}
        row |= {"status": "complete", "counts": json.dumps(night.counts), "checks": json.dumps(night.checks)}
        row |= {"versions": json.dumps(versions), "settings": night.settings}
        write_deltalake(
            root / "nights",
            pa.Table.from_pylist([row], NIGHTS),
            mode="append",
            partition_by=["as_of"],
            schema_mode="merge",
            commit_properties=_marked(night),
        )
        shutil.rmtree(root / STAGED, ignore_errors=True)
    except (DeltaError, OSError) as error:
        recover(root)
        raise StoreError(
            f"the night of {night.as_of} was not written: {first_line(error)}; the last complete night stands"
        ) from None


def nights(root: Path) -> list[dict[str, Any]]:
    """Give every recorded run, oldest first; an empty list before the first.

    Versions of a table only grow, while a clock may be set back.
    """
    table = _open(root / "nights")
    if table is None:
        return []
    rows = _rows(table, root / "nights").to_pylist()
    return sorted(rows, key=lambda row: int(json.loads(row["versions"])[ORDER[-1]]))


def read(
    root: Path, name: str, as_of: date, *, columns: Collection[str] | None = None, users: Collection[str] | None = None
) -> pa.Table:
    """Read one date of a table as the last complete night left it, whatever has been committed since.

    `columns` are those that are wanted; what the table does not have is left out. With `users`, only rows of these users are
    read. Raises DataError when there is no such night.
    """
    recorded = nights(root)
    dates = sorted({row["as_of"] for row in recorded})
    if as_of not in dates:
        said = f"there are {listed(reversed(dates))}" if dates else "no night has been written yet"
        raise DataError(f"there is no night of {as_of} below {root}: {said}; run `beforehand score --as-of {as_of}`")
    table = _recorded(root / name, _versions(recorded)[name])
    wanted = None if columns is None else [field.name for field in table.schema().fields if field.name in columns]
    filters: list[tuple[str, str, Any]] = [
        ("as_of", "=", as_of),
        *([] if users is None else [("user_id", "in", pa.array(users, pa.string()))]),
    ]
    return _rows(table, root / name, filters=filters, columns=wanted)


def memberships(root: Path, *, since: date | None = None) -> pa.Table:
    """Read the ledger as the last complete night left it: columns MEMBERSHIPS, in no order; no rows before the first night.

    With `since`, only the stays that are open or ended on that date or later: those that a night may change.
    """
    version, path = _versions(nights(root)).get("memberships"), root / "memberships"
    if version is None:
        return MEMBERSHIPS.empty_table()
    table = _recorded(path, version)
    left_on = pc.field("left_on")
    still = None if since is None else left_on.is_null() | (left_on >= pa.scalar(since, pa.date32()))
    return _rows(table, path, filters=still).select(MEMBERSHIPS.names).cast(MEMBERSHIPS)


def _replace(path: Path, rows: pa.Table | Files, night: Night) -> int:
    table = _open(path)
    if table is not None:
        # Before any file is moved or row cast.
        _merged(table.schema(), Schema.from_arrow(rows.schema), path)
    if isinstance(rows, Files):
        return _commit(table or _created(path, rows.schema, night), path, rows, night)
    return _overwrite(path, rows, night, by="as_of", where=f"as_of = '{night.as_of.isoformat()}'")


def _overwrite(path: Path, rows: pa.Table, night: Night, *, by: str, where: str) -> int:
    """Put rows in the place of those `where` says, in a table partitioned `by` a column."""
    table = _open(path)
    if table is None:
        write_deltalake(path, rows, partition_by=[by], commit_properties=_marked(night))
    else:
        write_deltalake(table, rows, mode="overwrite", predicate=where, schema_mode="merge", commit_properties=_marked(night))
    return DeltaTable(path).version()


def _created(path: Path, schema: pa.Schema, night: Night) -> DeltaTable:
    return DeltaTable.create(path, Schema.from_arrow(schema), partition_by=["as_of"], commit_properties=_marked(night))


def _commit(table: DeltaTable, path: Path, files: Files, night: Night) -> int:
    """Put files into the place of the night's former ones in one transaction; after a crash before it no version names them."""
    day = night.as_of.isoformat()
    place = path / f"as_of={day}"
    place.mkdir(exist_ok=True)
    added: list[AddAction | RemoveAction] = []
    for number, file in enumerate(files.paths):
        statistics = json.dumps({"numRecords": pq.read_metadata(file).num_rows})
        moved = file.rename(place / f"part-{number:05}-{uuid4()}.parquet")
        told = moved.stat()
        name = moved.relative_to(path).as_posix()
        added.append(AddAction(name, told.st_size, {"as_of": day}, int(told.st_mtime * 1000), True, statistics))
    table.create_write_transaction(
        added,
        mode="overwrite",
        schema=_merged(table.schema(), Schema.from_arrow(files.schema), path),
        partition_by=["as_of"],
        partition_filters=[("as_of", "=", day)],
        commit_properties=_marked(night),
    )
    return DeltaTable(path).version()


def _merged(held: Schema, new: Schema, path: Path) -> Schema:
    """Add tonight's new columns to those of a table. A column of another type is refused: casting would lose or show its cells."""
    types = {field.name: field.type for field in held.fields}
    for field in new.fields:
        if types.get(field.name, field.type) != field.type:
            raise DeltaError(f"{path} holds {field.name} as {types[field.name]}, tonight it is {field.type}")
    return Schema([*held.fields, *(field for field in new.fields if field.name not in types)])


def _roll_back(path: Path, good: int | None) -> bool:
    table = _open(path) if good is None else _recorded(path)
    if table is None or table.version() == good:
        return False
    since = [commit for commit in table.history() if good is None or commit["version"] > good]
    foreign = [commit for commit in since if _MARK not in commit and commit.get("operation") not in _HARMLESS]
    if foreign:
        newest = foreign[0]
        raise StoreError(
            f"somebody else wrote to {path} after the last complete night ({newest.get('operation')} at version "
            f"{newest['version']}): restore it to version {good}, or move it away"
        )
    ours = [commit[_MARK] for commit in since if _MARK in commit]
    if not ours or ours[0] == _ROLLED_BACK:
        return False
    if good is None:
        if len(set(ours)) > 1:
            raise StoreError(f"{path} holds nights, but {path.parent / 'nights'} records none: restore it, or move both away")
        # The very first night died: nothing in this table was ever part of a complete one.
        shutil.rmtree(path)
        return True
    table.restore(good, commit_properties=CommitProperties(custom_metadata={_MARK: _ROLLED_BACK}))
    return True


def _versions(recorded: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Give the version of every table at the last of the recorded nights."""
    return dict(json.loads(recorded[-1]["versions"])) if recorded else {}


def _recorded(path: Path, version: int | None = None) -> DeltaTable:
    """Open a table that nights were written to; raises StoreError where it is gone: to begin anew would lose what they knew."""
    table = _open(path, version=version)
    if table is None:
        raise StoreError(f"{path} is gone, which recorded nights were written to: restore it, or start another `output`")
    return table


def _open(path: Path, *, version: int | None = None) -> DeltaTable | None:
    if not path.exists():
        return None
    try:
        return DeltaTable(path, version=version)
    except TableNotFoundError:
        held = sorted(entry.name for entry in path.iterdir())
        if not held:
            return None
        raise StoreError(f"{path} is not a Delta table: it holds {listed(held)} but no log; move it away and run again") from None
    except (DeltaError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} cannot be read: {first_line(error).removesuffix('.')}; restore it, or start another `output`")


def _rows(
    table: DeltaTable,
    path: Path,
    *,
    filters: list[tuple[str, str, Any]] | pc.Expression | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """Read rows of a table by Arrow's own file system.

    Through that of `deltalake`, Arrow's threads ask for Python's lock, and a command that ends while one of them closes a file dies
    with SIGABRT (delta-io/delta-rs#2184); 7 of 60 did.
    """
    files = SubTreeFileSystem(str(path), LocalFileSystem())
    try:
        return table.to_pyarrow_table(filters=filters, columns=columns, filesystem=files)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _marked(night: Night) -> CommitProperties:
    return CommitProperties(custom_metadata={_MARK: night.run_id})
