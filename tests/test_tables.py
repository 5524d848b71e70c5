"""Tables: a night is in all of them or in none, and nothing of anybody else's is touched."""

import datetime as dt
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from features.errors import DataError, StoreError
from pipeline import tables
from pipeline.columns import AS_OF, MEMBERSHIPS, QUARANTINE, SCORES, USER, segments_schema, without_date
from pipeline.tables import STAGED, Files, Night, exclusive, nights, read, recover, write_night

MONDAY, TUESDAY = dt.date(2024, 3, 4), dt.date(2024, 3, 5)
FEATURES = pa.schema([AS_OF, USER, pa.field("x", pa.float64())])
NOON = dt.datetime(2024, 3, 6, 12, tzinfo=dt.UTC)


def night(day: dt.date, run_id: str = "r", *, minute: int = 0) -> Night:
    return Night(day, run_id, NOON, NOON + dt.timedelta(minutes=minute), {"users": 1}, {})


def rows(day: dt.date, value: float, users: str = "a") -> dict[str, pa.Table]:
    return {
        "quarantine": pa.Table.from_pylist([], QUARANTINE),
        "features": pa.Table.from_pylist([{"as_of": day, "user_id": user, "x": value} for user in users], FEATURES),
        "scores": pa.Table.from_pylist([{"as_of": day, "user_id": user, "target": "t", "score": value} for user in users], SCORES),
        "shadow": pa.Table.from_pylist([], SCORES),
        "memberships": pa.Table.from_pylist([{"user_id": user, "segment": "s", "entered_on": day} for user in users], MEMBERSHIPS),
        "segments": pa.Table.from_pylist(
            [{"as_of": day, "user_id": user, "segments": ["s"]} for user in users], segments_schema([])
        ),
    }


def values(root: Path, day: dt.date) -> list[float]:
    return read(root, "features", day)["x"].to_pylist()


def test_rerunning_a_date_replaces_that_date_only(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1, "ab"))
    write_night(tmp_path, night(TUESDAY, minute=1), rows(TUESDAY, 0.2))
    write_night(tmp_path, night(MONDAY, minute=2), rows(MONDAY, 0.3))
    assert (values(tmp_path, MONDAY), values(tmp_path, TUESDAY)) == ([0.3], [0.2])
    assert [row["as_of"] for row in nights(tmp_path)] == [MONDAY, TUESDAY, MONDAY]


def test_a_clock_that_is_set_back_loses_no_night(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY, minute=9), rows(MONDAY, 0.1))
    write_night(tmp_path, night(TUESDAY, minute=1), rows(TUESDAY, 0.2))
    assert recover(tmp_path) == []
    assert (values(tmp_path, MONDAY), values(tmp_path, TUESDAY)) == ([0.1], [0.2])


def test_a_column_of_another_type_is_refused_without_its_cells(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    other = rows(TUESDAY, 0.3)
    other["features"] = other["features"].set_column(2, "x", pa.array(["7"]))
    with pytest.raises(StoreError, match="holds x as .*last complete night stands") as refused:
        write_night(tmp_path, night(TUESDAY, minute=1), other)
    assert "'7'" not in str(refused.value)
    assert values(tmp_path, MONDAY) == [0.1]


def test_tables_are_partitioned_by_night(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    for name in tables.ORDER:
        by = ["left_on"] if name == "memberships" else ["as_of"]
        assert DeltaTable(tmp_path / name).metadata().partition_columns == by


def test_readers_see_the_last_complete_night_while_one_is_written(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    tables._replace(tmp_path / "features", rows(MONDAY, 0.9)["features"], night(MONDAY, "half"))
    assert values(tmp_path, MONDAY) == [0.1]


def test_a_crash_is_rolled_back_once(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    tables._replace(tmp_path / "features", rows(TUESDAY, 0.9)["features"], night(TUESDAY, "half"))
    assert recover(tmp_path) == ["features"]
    assert DeltaTable(tmp_path / "features").to_pyarrow_table()["x"].to_pylist() == [0.1]
    assert recover(tmp_path) == []


def test_a_crash_of_the_first_night_leaves_nothing(tmp_path: Path) -> None:
    tables._replace(tmp_path / "features", rows(MONDAY, 0.9)["features"], night(MONDAY))
    assert recover(tmp_path) == ["features"]
    assert not (tmp_path / "features").exists()


def test_tables_without_their_record_of_nights_are_not_thrown_away(tmp_path: Path) -> None:
    for value, day in ((0.1, MONDAY), (0.2, TUESDAY)):
        tables._replace(tmp_path / "features", rows(day, value)["features"], night(day, run_id=str(value)))
    with pytest.raises(StoreError, match="holds nights, but .* records none"):
        recover(tmp_path)


def test_a_write_that_fails_rolls_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    real = tables._replace

    def full(path: Path, found: pa.Table, told: Night) -> int:
        if path.name == "segments":
            raise OSError(28, "No space left on device")
        return real(path, found, told)

    monkeypatch.setattr(tables, "_replace", full)
    with pytest.raises(StoreError, match="night of 2024-03-05 was not written.*No space left on device"):
        write_night(tmp_path, night(TUESDAY), rows(TUESDAY, 0.2))
    assert DeltaTable(tmp_path / "scores").to_pyarrow_table()["score"].to_pylist() == [0.1]
    assert values(tmp_path, MONDAY) == [0.1]


def test_somebody_elses_write_is_left_alone(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    write_deltalake(tmp_path / "scores", rows(TUESDAY, 0.5)["scores"], mode="append")
    with pytest.raises(StoreError, match=r"somebody else wrote to .*scores.*WRITE at version 1.*restore it to version 0"):
        recover(tmp_path)
    assert DeltaTable(tmp_path / "scores").version() == 1


def test_compaction_by_others_is_harmless(tmp_path: Path) -> None:
    for minute, value in enumerate((0.1, 0.2)):
        write_night(tmp_path, night(MONDAY, minute=minute), rows(MONDAY, value))
    write_night(tmp_path, night(TUESDAY, minute=3), rows(TUESDAY, 0.3))
    DeltaTable(tmp_path / "features").optimize.compact()
    assert recover(tmp_path) == []
    assert values(tmp_path, TUESDAY) == [0.3]


def test_a_folder_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "part-0.parquet").write_bytes(b"half")
    with pytest.raises(StoreError, match="is not a Delta table: it holds part-0.parquet but no log"):
        recover(tmp_path)


@pytest.mark.parametrize("name", ["scores", "memberships"])
def test_a_table_that_is_gone_is_not_begun_anew(tmp_path: Path, name: str) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    shutil.rmtree(tmp_path / name)
    told = {"scores": lambda: read(tmp_path, "scores", MONDAY), "memberships": lambda: tables.memberships(tmp_path)}[name]
    for ask in (lambda: recover(tmp_path), told):
        with pytest.raises(StoreError, match=f"{name} is gone, which recorded nights were written to: restore it"):
            ask()


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"PAR1"), Path.unlink])
def test_rows_that_cannot_be_read_are_told(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    for file in (tmp_path / "scores").rglob("*.parquet"):
        damage(file)
    with pytest.raises(StoreError, match=r"scores cannot be read: .*; restore it, or start another `output`"):
        read(tmp_path, "scores", MONDAY)


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    (tmp_path / "scores" / "_delta_log" / "00000000000000000000.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        recover(tmp_path)


def test_a_second_run_is_refused_at_once_and_the_lock_is_let_go(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        try:
            with exclusive(tmp_path, "night"):
                said.append("entered")
        except StoreError as error:
            said.append(str(error))

    with exclusive(tmp_path, "night"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert said == [f"another night is running on {tmp_path}: wait until it ends, or give this one another `output`"]
    second()
    assert said[-1] == "entered"


def test_a_night_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no night has been written yet; run `beforehand score --as-of 2024-03-04`"):
        read(tmp_path, "scores", MONDAY)
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    with pytest.raises(DataError, match="there are 2024-03-04"):
        read(tmp_path, "scores", TUESDAY)


def files(root: Path, tables_: dict[str, pa.Table]) -> dict[str, pa.Table | Files]:
    """Put all but the quarantine and the ledger into Parquet files that wait for their commit, as Spark does."""
    staged: dict[str, pa.Table | Files] = {name: tables_[name] for name in ("quarantine", "memberships")}
    for name in ("features", "scores", "shadow", "segments"):
        place = root / STAGED / name / "part-0.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables_[name].select(without_date(tables_[name].schema).names), place)
        staged[name] = Files(tables_[name].schema, (place,))
    return staged


def test_files_replace_the_rows_of_their_night_and_nothing_waits_any_more(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), files(tmp_path, rows(MONDAY, 0.1, "ab")))
    write_night(tmp_path, night(TUESDAY, minute=1), rows(TUESDAY, 0.2))
    write_night(tmp_path, night(MONDAY, minute=2), files(tmp_path, rows(MONDAY, 0.3)))
    assert (values(tmp_path, MONDAY), values(tmp_path, TUESDAY)) == ([0.3], [0.2])
    assert sorted(DeltaTable(tmp_path / "features").to_pyarrow_table()["x"].to_pylist()) == [0.2, 0.3]
    assert not (tmp_path / STAGED).exists()


def test_files_that_were_never_committed_are_removed_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_night(tmp_path, night(MONDAY), files(tmp_path, rows(MONDAY, 0.1)))
    real = tables._commit

    def dying(table: DeltaTable, path: Path, staged: Files, told: Night) -> int:
        if path.name == "scores":
            raise KeyboardInterrupt
        return real(table, path, staged, told)

    monkeypatch.setattr(tables, "_commit", dying)
    with pytest.raises(KeyboardInterrupt):
        write_night(tmp_path, night(MONDAY, "half", minute=1), files(tmp_path, rows(MONDAY, 0.9)))
    assert values(tmp_path, MONDAY) == [0.1]
    assert recover(tmp_path) == ["quarantine", "features"]
    assert not (tmp_path / STAGED).exists()
    assert values(tmp_path, MONDAY) == [0.1]


def test_files_of_a_first_night_that_died_leave_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*told: object) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(tables, "_commit", full)
    with pytest.raises(StoreError, match="no space left"):
        write_night(tmp_path, night(MONDAY), files(tmp_path, rows(MONDAY, 0.1)))
    assert not (tmp_path / "features").exists()
    assert nights(tmp_path) == []


def test_files_add_columns_and_keep_the_types_of_those_there(tmp_path: Path) -> None:
    write_night(tmp_path, night(MONDAY), rows(MONDAY, 0.1))
    wider = rows(TUESDAY, 0.2)
    wider["features"] = wider["features"].append_column("y", pa.array(["new"]))
    write_night(tmp_path, night(TUESDAY, minute=1), files(tmp_path, wider))
    assert read(tmp_path, "features", TUESDAY)["y"].to_pylist() == ["new"]
    assert read(tmp_path, "features", MONDAY)["y"].to_pylist() == [None]
    other = rows(TUESDAY, 0.3)
    other["features"] = other["features"].set_column(2, "x", pa.array(["text"]))
    with pytest.raises(StoreError, match="holds x as .*last complete night stands"):
        write_night(tmp_path, night(TUESDAY, minute=2), files(tmp_path, other))
    assert values(tmp_path, TUESDAY) == [0.2]
