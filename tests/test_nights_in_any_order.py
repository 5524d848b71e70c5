"""Living segments end to end: nights in any order, again and for the past give one ledger and one table of segments."""

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable
from typer.testing import CliRunner, Result

from pipeline import tables
from pipeline.cli import app
from pipeline.plays import held_out
from pipeline.tables import memberships, nights, read
from shops import shop_config, write_orders

NIGHTS = [dt.date(2024, 10, day) for day in (1, 4, 6, 15)]
SENT = "select customer as user_id, sent_at as event_ts, 'campaign_received' as event_type from s"
PLAY = {"channel": "mail", "offer": "win_back", "cap": {"contacts": 2, "per": "14d"}, "holdout": 0.2}
LIVING: dict[str, Any] = {
    "features": {"families": ["stage", "habits", "loyalty"], "windows": ["14d", "56d", "168d"]},
    "loyalty_tiers": [{"name": "gold", "when": "purchase_count_168d >= 8"}, {"name": "silver", "when": "purchase_count_168d >= 3"}],
    "plays": {"salt": "tea", "holdout": 0.1, "channels": [{"name": "mail", "consent": "known_days >= 240"}]},
    "segments": [
        {
            "name": "leaving",
            "purpose": "keep them",
            "enter": "churn_28d_score >= 0.2 and loyalty_tier in ('gold', 'silver')",
            "leave": "churn_28d_score < 0.1",
            "play": PLAY,
        },
        {"name": "tea_next", "purpose": "offer tea", "enter": "tea_28d_percentile >= 80", "min_stay": "6d", "play": PLAY},
        {"name": "resting", "purpose": "win back", "enter": "purchase_recency_days > 20", "leave": "purchase_recency_days < 3"},
        {"name": "just_bought", "purpose": "say thanks", "enter": "purchase_recency_days < 2"},
    ],
}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def config_of(folder: Path, output: str, **changes: object) -> Path:
    """Write the config of the living shop with another output; `changes` replace its top-level keys."""
    told = yaml.safe_load(shop_config(folder, **LIVING).read_text())
    told["sources"].append({"name": "sent", "tables": {"s": str(folder / "sent.csv")}, "sql": SENT})
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump({**told, "output": str(folder / output), **changes}, sort_keys=False))
    return path


def scored(config: Path, *days: dt.date) -> None:
    for day in days:
        done = run("score", "--config", config, "--as-of", day)
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop that was trained, in `trained`, and four nights of it in order, in `in_order`."""
    folder = tmp_path_factory.mktemp("shop")
    orders = write_orders(folder / "orders.csv", users=150)
    sent = [(user, f"2024-{month}-27 09:00:00") for user in sorted(set(orders.customer))[::2] for month in ("08", "09")]
    sent += [(user, "2024-09-29 09:00:00") for user in sorted(set(orders.customer))[::4]]
    pd.DataFrame(sent, columns=["customer", "sent_at"]).to_csv(folder / "sent.csv", index=False)
    done = run("train", "--config", config_of(folder, "trained"), "--as-of", NIGHTS[0])
    assert done.exit_code == 0, done.output
    shutil.copytree(folder / "trained", folder / "in_order")
    scored(config_of(folder, "in_order"), *NIGHTS)
    return folder


def fresh(folder: Path, output: str, *, of: str = "in_order", **changes: object) -> Path:
    """Copy an output with its nights and models; gives the path of its config."""
    shutil.copytree(folder / of, folder / output)
    return config_of(folder, output, **changes)


def ledger(root: Path) -> list[dict[str, Any]]:
    return sorted(memberships(root).to_pylist(), key=lambda row: (row["user_id"], row["segment"], row["entered_on"]))


def segments(root: Path, day: dt.date) -> list[dict[str, Any]]:
    return read(root, "segments", day).sort_by("user_id").to_pylist()


def everything(root: Path) -> dict[str, list[dict[str, Any]]]:
    return {"memberships": ledger(root)} | {str(day): segments(root, day) for day in NIGHTS}


def turned(root: Path) -> pd.DataFrame:
    return memberships(root).to_pandas()


def test_the_shop_has_what_the_order_of_nights_could_get_wrong(folder: Path) -> None:
    """Without stays that last by hysteresis or by their shortest length, and users who come back, the tests here say little."""
    root = folder / "in_order"
    stays = turned(root)
    assert set(stays.segment) == {"leaving", "tea_next", "resting", "just_bought"}
    assert set(stays.entered_on) == set(NIGHTS) and set(stays.left_on.dropna()) == set(NIGHTS[1:])
    rows = pd.concat([read(root, "segments", day).to_pandas() for day in NIGHTS])
    names = rows.segments.map(list)
    held = names.map(lambda found: "leaving" in found) & ~(rows.churn_28d_score >= 0.2)
    bound = names.map(lambda found: "tea_next" in found) & ~(rows.tea_28d_percentile >= 80)
    assert held.any() and bound.any()
    assert stays.duplicated(["user_id", "segment"]).any()
    assert stays.enter_reason.notna().all() and stays.leave_reason[stays.left_on.notna()].notna().all()


def test_no_order_of_nights_changes_a_row(folder: Path) -> None:
    """Two nights of the past, one of them first and again later, and the last night in the middle."""
    config = fresh(folder, "shuffled", of="trained")
    scored(config, *(NIGHTS[number - 1] for number in (2, 4, 1, 3, 2)))
    assert json.loads(nights(folder / "shuffled")[-1]["checks"])["formed_anew"] == [str(NIGHTS[2]), str(NIGHTS[3])]
    found, expected = everything(folder / "shuffled"), everything(folder / "in_order")
    for table, rows in expected.items():
        assert found[table] == rows, table


def test_a_rerun_changes_no_row(folder: Path) -> None:
    scored(fresh(folder, "rerun"), NIGHTS[3])
    assert everything(folder / "rerun") == everything(folder / "in_order")


def test_the_ledger_is_the_fold_of_the_nights(folder: Path) -> None:
    """Read naively, a night at a time: who was not in a segment and is, came; who was and is not, left."""
    root, stays, were = folder / "in_order", [], dict[tuple[str, str], dt.date]()
    for day in NIGHTS:
        rows = segments(root, day)
        now = {(row["user_id"], name) for row in rows for name in row["segments"]}
        stays += [(*key, were.pop(key), day) for key in sorted(were.keys() - now)]
        were |= {key: day for key in now - were.keys()}
        told = {(row["user_id"], *pair) for row in rows for pair in zip(row["segments"], row["segments_since"], strict=True)}
        assert told == {(*key, since) for key, since in were.items()}
    stays += [(*key, since, None) for key, since in were.items()]
    columns = ("user_id", "segment", "entered_on", "left_on")
    assert sorted(stays, key=str) == sorted((tuple(row[name] for name in columns) for row in ledger(root)), key=str)


@pytest.mark.parametrize("table", ["segments", "nights"])
def test_a_crash_while_writing_leaves_the_last_night_and_the_ledger(
    folder: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"crash_{table}"
    config, root, real = fresh(folder, name), folder / name, tables.write_deltalake
    before, recorded = everything(root), nights(root)

    def full(place: Any, rows: pa.Table, **options: Any) -> None:
        if Path(str(getattr(place, "table_uri", place)).removeprefix("file://")).name == table:
            raise OSError(28, "No space left on device")
        real(place, rows, **options)

    monkeypatch.setattr(tables, "write_deltalake", full)
    # A night before two others writes them anew as well.
    failed = run("score", "--config", config, "--as-of", NIGHTS[2] - dt.timedelta(days=1))
    assert failed.exit_code == 1
    assert "was not written" in failed.stderr and "No space left on device" in failed.stderr
    monkeypatch.undo()
    assert everything(root) == before
    assert nights(root) == recorded
    # Who reads the files themselves, and the next night, which writes on top of them, find no half of it.
    held = {name: len(DeltaTable(root / name).to_pyarrow_table()) for name in ("memberships", "segments")}
    assert held == {"memberships": len(before["memberships"]), "segments": sum(len(before[str(day)]) for day in NIGHTS)}


def test_another_salt_is_refused_and_nothing_is_written(folder: Path) -> None:
    config = fresh(folder, "salted", plays={**LIVING["plays"], "salt": "coffee"})
    before, recorded = everything(folder / "salted"), nights(folder / "salted")
    for day in (NIGHTS[3], NIGHTS[3] + dt.timedelta(days=1)):
        refused = run("score", "--config", config, "--as-of", day)
        assert refused.exit_code == 2
        assert "plays.salt: 4 recorded nights were drawn with another one" in refused.stderr
        assert "put the old salt back, or start another output" in refused.stderr
        assert "coffee" not in refused.output
    assert everything(folder / "salted") == before
    assert nights(folder / "salted") == recorded


def test_a_segment_taken_out_or_renamed_closes_its_stays(folder: Path) -> None:
    leaving, tea, _resting, bought = LIVING["segments"]
    config = fresh(folder, "renamed", segments=[leaving, {**tea, "name": "tea_soon"}, bought])
    root, day = folder / "renamed", NIGHTS[3] + dt.timedelta(days=1)
    before = turned(root)
    scored(config, day)
    after = turned(root)
    assert len(after[after.left_on.isna() & after.segment.isin(["tea_next", "resting"])]) == 0
    open_ = before[before.left_on.isna() & before.segment.isin(["tea_next", "resting"])]
    closed = after[(after.left_on == day) & after.segment.isin(["tea_next", "resting"])]
    assert set(open_.segment) == {"tea_next", "resting"}
    columns = ["user_id", "segment", "entered_on", "enter_reason"]
    assert closed[columns].sort_values(columns).values.tolist() == open_[columns].sort_values(columns).values.tolist()
    assert set(closed.leave_reason) == {"the segment is no longer in the config"}
    # The new name starts with those who meet its rule; nobody's stay under the old one counts for it.
    soon = after[after.segment == "tea_soon"]
    percentile = read(root, "segments", day).to_pandas().set_index("user_id").tea_28d_percentile
    assert set(soon.entered_on) == {day} and set(soon.user_id) == set(percentile.index[percentile >= 80])


def test_who_gave_no_consent_is_held_out_or_had_enough_is_never_actionable(folder: Path) -> None:
    root, seen = folder / "in_order", pd.DataFrame()
    for day in NIGHTS:
        rows = read(root, "segments", day).to_pandas().set_index("user_id")
        features = read(root, "features", day).to_pandas().set_index("user_id")
        rows = rows.join(features[["known_days", "contacted_count_14d"]])
        seen = pd.concat([seen, rows[rows.play.notna()]])
    for group in ("", "leaving", "tea_next"):
        asked = seen if not group else seen[seen.primary_segment == group]
        held = held_out(list(asked.index), group, salt="tea", share=0.2 if group else 0.1)
        assert held.any() and not held.all()
        assert asked.holdout[held].all() and not asked.actionable[held].any(), group
    no_consent, capped = seen.known_days < 240, seen.contacted_count_14d >= 2
    assert no_consent.any() and capped.any()
    assert (seen.no_consent == no_consent).all() and (seen.capped == capped).all()
    assert not seen.actionable[no_consent | capped].any()
    assert (seen.actionable == ~(no_consent | capped | seen.holdout.astype(bool))).all() and seen.actionable.any()
