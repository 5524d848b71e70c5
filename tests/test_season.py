"""Seasons: found where levels return with the year, left alone where they do not, and told without looking ahead."""

from datetime import date, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.special import expit, logit

from models.bundle import TargetBundle, load
from models.calibration import Calibrator
from models.ladder import Constant, Recipe
from models.season import NO_SEASON, Season, levels_of, season_of
from pipeline.past import gather
from pipeline.progress import Narrator
from pipeline.settings import read_settings
from shops import shop_config

STEP, HORIZON, START = timedelta(days=14), timedelta(days=28), datetime(2020, 1, 1)


def dates(count: int) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([START + STEP * at for at in range(count)])


def yearly(count: int, *, height: float = 0.6, growth: float = 0.1, noise: float = 0.05) -> pd.Series:
    """Levels that swing with the year, rise from one year to the next, and are measured with some noise."""
    at = np.arange(count)
    random = np.random.default_rng(3)
    return pd.Series(
        -1 + height * np.sin(2 * np.pi * at / 26) + growth * at / 26 + random.normal(0, noise, count), index=dates(count)
    )


def test_a_level_that_returns_is_foreseen() -> None:
    levels = yearly(84)
    before = levels.index[70].to_pydatetime()
    found = season_of(levels[:72], HORIZON, before=before)
    assert found.left < 0.4 * found.before
    # Later dates, which it has not seen.
    for at in range(74, 84):
        assert found.levels[f"{levels.index[at].date()}"] == pytest.approx(levels.iloc[at], abs=0.25)


def test_what_is_told_of_a_date_was_known_on_it() -> None:
    levels = yearly(84)
    changed, at = levels.copy(), 60
    changed.iloc[at - 1 :] = 3.0
    before = levels.index[55].to_pydatetime()
    one, other = (season_of(told, HORIZON, before=before).levels for told in (levels, changed))
    # The horizon of the date just before has not elapsed on the date itself, nor has that of the one before it.
    days = [f"{day.date()}" for day in levels.index[: at + 1]]
    assert [one.get(day) for day in days] == [other.get(day) for day in days]
    assert one[f"{levels.index[at + 1].date()}"] != other[f"{levels.index[at + 1].date()}"]


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param(yearly(34), id="too short to have seen a year twice"),
        pytest.param(yearly(84, height=0.0), id="nothing returns"),
        pytest.param(yearly(84)[:1], id="one date"),
        pytest.param(yearly(84) * np.nan, id="nobody was asked"),
    ],
)
def test_no_season_is_made_up(levels: pd.Series) -> None:
    assert season_of(levels, HORIZON, before=levels.index[-1].to_pydatetime()) == NO_SEASON


def test_what_takes_more_than_a_year_has_no_season() -> None:
    assert season_of(yearly(200), timedelta(days=378), before=datetime(2030, 1, 1)) == NO_SEASON
    assert season_of(yearly(200), timedelta(days=364), before=datetime(2030, 1, 1)) != NO_SEASON


def test_scores_are_moved_from_where_the_model_has_them_to_what_is_foreseen() -> None:
    season = Season({"2024-01-01": logit(0.4), "2024-01-15": logit(0.2)})
    said = np.array([0.05, 0.3, 0.6, 0.9])
    own = season.around(said, date(2024, 1, 15), is_amount=False)
    moved = own.moved(said, date(2024, 1, 15), is_amount=False)
    assert moved.mean() == pytest.approx(0.2)
    assert np.ptp(logit(moved) - logit(said)) == pytest.approx(0.0, abs=1e-9)
    # A model that knows the season itself stays as it is.
    assert season.around(moved, date(2024, 1, 15), is_amount=False).moved(
        moved, date(2024, 1, 15), is_amount=False
    ) == pytest.approx(moved)
    # Between two dates in proportion, beyond them as at the ends; a datetime is of its date.
    one = season.around(np.array([0.2]), date(2024, 1, 15), is_amount=False)
    half = expit((logit(0.4) + logit(0.2)) / 2)
    assert one.moved(np.array([0.2]), datetime(2024, 1, 8, 13), is_amount=False) == pytest.approx([half])
    assert one.moved(np.array([0.2]), date(2023, 1, 1), is_amount=False) == pytest.approx([0.4])
    amounts = Season({"2024-01-01": np.log(20.0)}).around(np.array([5.0, 15.0]), date(2024, 1, 1), is_amount=True)
    assert amounts.moved(np.array([10.0, 1.0]), date(2024, 1, 1), is_amount=True) == pytest.approx([20.0, 2.0])
    # Nothing can be moved from nobody, nor from amounts that are all nothing.
    for nothing in (np.zeros(0), np.zeros(3)):
        assert Season({"2024-01-01": 1.0}).around(nothing, date(2024, 1, 1), is_amount=True) == NO_SEASON


def test_an_odd_week_of_one_year_is_held_against_the_years_before(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = yearly(130)
    day, odd = f"{levels.index[116].date()}", levels.copy()
    odd.iloc[116 - 26] += 1.5
    errors = {}
    for years in (1, 3):
        monkeypatch.setattr("models.season.YEARS", years)
        found = season_of(odd[:112], HORIZON, before=levels.index[110].to_pydatetime())
        errors[years] = abs(found.levels[day] - levels.iloc[116])
    assert errors[3] < 0.5 * errors[1]


def test_levels_are_of_shares_and_of_mean_amounts() -> None:
    rows, total = pd.Series([100, 10, 10]), pd.Series([50.0, 0.0, -2.0])
    assert levels_of(rows, total, is_amount=False)[0] == pytest.approx(0.0)
    assert np.isfinite(levels_of(rows, total, is_amount=False)[1])
    assert levels_of(rows, total, is_amount=True).isna().tolist() == [False, True, True]


def test_a_bundle_keeps_its_season_and_asks_for_the_date(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    season = Season({"2024-01-01": 0.0, "2024-01-15": 1.0}, usual=0.0)
    made = TargetBundle("churn", {}, Recipe("base_rate", ()), "2024-01-01", Calibrator(), Constant(0.5), season=season)
    made.save(folder)
    read, rows = load(folder), pd.DataFrame(index=range(2))
    assert read == made
    assert read.predict(rows).score.tolist() == [0.5, 0.5]
    assert read.predict(rows, {"as_of": "2024-01-15"}).score.tolist() == pytest.approx([expit(1.0)] * 2)


def test_only_what_is_to_come_is_kept() -> None:
    season = Season({"2024-01-01": 0.1, "2024-01-15": 0.2, "2024-01-29": 0.3})
    assert season.since(date(2024, 1, 20)).levels == {"2024-01-15": 0.2, "2024-01-29": 0.3}
    assert season.since(date(2023, 1, 1)).levels == season.levels


def test_a_shop_with_a_yearly_swing_is_scored_by_it(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    days = pd.Timestamp("2021-01-01") + pd.to_timedelta(np.arange(1000), unit="D")
    # In December three times as many of the 200 customers come as in June.
    pace = 0.03 * (1 + 0.5 * np.cos(2 * np.pi * days.day_of_year.to_numpy() / 365))
    rows = [
        (f"u{user}", f"{day:%Y-%m-%d} 10:00:00")
        for day, often in zip(days, pace, strict=True)
        for user in np.flatnonzero(random.random(200) < often)
    ]
    orders = pd.DataFrame(rows, columns=["customer", "ordered_at"]).assign(order_no=range(len(rows)), total=10.0, department="tea")
    orders.to_csv(tmp_path / "orders.csv", index=False)
    said = StringIO()
    targets = [{"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": {"active_within": "56d"}}]
    config = shop_config(tmp_path, targets=targets, segments=[], training={"max_cutoffs": 30})
    past = gather(read_settings(config), date(2023, 9, 27), Narrator(Console(file=said, width=200)))
    assert "churn_28d: the season is tried, since the same weeks of years before" in said.getvalue()
    season = past.seasons["churn_28d"]
    assert season.left < 0.8 * season.before
    # In winter it is less likely that nobody comes, as far ahead as a year before is known.
    winter, summer = (season.moved(np.array([0.5]), day, is_amount=False)[0] for day in (date(2023, 12, 20), date(2024, 6, 20)))
    assert winter < summer - 0.1
    # After a year and a half every date is a training cutoff, and no year was seen twice.
    config = shop_config(tmp_path, targets=targets, segments=[], training={"max_cutoffs": 52})
    past = gather(read_settings(config), date(2022, 7, 27), Narrator(Console(file=said)))
    assert past.seasons == {"churn_28d": NO_SEASON}
