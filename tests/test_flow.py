"""Flow and retention: counts by hand, and the estimate and its interval against SciPy's and a slow one in plain Python."""

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import CensoredData, ecdf

from pipeline.columns import MEMBERSHIPS
from pipeline.flow import Flow, Retention, as_of_night, flow, retention
from pipeline.flow_figures import retention_figure, sankey

START = dt.date(2024, 3, 1)


def primary(**users: str | None) -> pa.Table:
    return pa.table({"user_id": pa.array(users, pa.string()), "primary_segment": pa.array(users.values(), pa.string())})


def stays(*told: tuple[str, int, int | None]) -> pa.Table:
    """Give a ledger: segment, day of entering and of leaving, counted from START."""
    rows = [
        {"user_id": f"u{at}", "segment": segment, "entered_on": day(entered), "left_on": None if left is None else day(left)}
        | {"enter_reason": "came", "leave_reason": None if left is None else "went"}
        for at, (segment, entered, left) in enumerate(told)
    ]
    return pa.Table.from_pylist(rows, MEMBERSHIPS)


def day(number: int) -> dt.date:
    return START + dt.timedelta(days=number)


def test_everybody_is_in_one_cell() -> None:
    before = primary(ann="risk", bob="risk", cid=None, dan="best", eve="best")
    after = primary(ann="risk", bob="best", cid="risk", dan=None, fay="new", gus=None)
    found = flow(before, after, order=["risk", "unused", "best"])
    assert (found.before, found.after) == (
        ("risk", "best", "new", "in none", "not known yet"),
        ("risk", "best", "new", "in none", "no longer known"),
    )
    assert found.counts.tolist() == [
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0],
    ]
    assert list(found.moves())[:2] == [("risk", "best", 1), ("best", "in none", 1)]
    assert sum(users for *_, users in found.moves()) == 6


def test_a_segment_may_be_called_gone() -> None:
    found = flow(primary(ann="gone", bob="gone"), primary(ann="gone"), order=["gone"])
    assert list(found.moves()) == [("gone", "no longer known", 1)]


def test_nobody_flows_nowhere() -> None:
    found = flow(primary(), primary())
    assert found.counts.sum() == 0 and found.before == ("in none", "not known yet")


def test_columns_of_nulls_alone_are_in_none() -> None:
    night = pa.table({"user_id": ["a"], "primary_segment": pa.nulls(1)})
    assert flow(night, night).counts.tolist() == [[1, 0], [0, 0]]


def test_a_ledger_of_the_past_knows_no_future() -> None:
    told = as_of_night(stays(("s", 0, 3), ("s", 0, 5), ("s", 1, None), ("s", 6, None)), day(4))
    assert told.schema == MEMBERSHIPS
    assert [(row["entered_on"], row["left_on"], row["leave_reason"]) for row in told.to_pylist()] == [
        (day(0), day(3), "went"),
        (day(0), None, None),
        (day(1), None, None),
    ]


def test_retention_by_hand() -> None:
    # Watched for 2 (left), 3 (open), 4 (left), 4 (open), 6 (open): 4/5 stay 2 days, of 3 at risk on day 4 one leaves.
    ledger = stays(("s", 0, 2), ("s", 7, None), ("s", 0, 4), ("s", 6, None), ("s", 4, None))
    (found,) = retention(ledger, day(10), days=(0, 1, 2, 3, 4, 6, 7))
    assert (found.segment, found.stays, found.ended) == ("s", 5, 2)
    assert found.at_risk.tolist() == [5, 5, 5, 4, 3, 1, 0]
    np.testing.assert_allclose(found.share, [1, 1, 0.8, 0.8, 0.8 * 2 / 3, 0.8 * 2 / 3, math.nan])
    width = 1.959963984540054 * math.sqrt(1 / (5 * 4) + 1 / (3 * 2)) / abs(math.log(8 / 15))
    np.testing.assert_allclose(found.low[4], (8 / 15) ** math.exp(width))
    np.testing.assert_allclose(found.high[4], (8 / 15) ** math.exp(-width))
    # Nobody left before day 2: Wilson's interval of 5 out of 5.
    np.testing.assert_allclose([found.low[1], found.high[1]], [1 / (1 + 1.959963984540054**2 / 5), 1])


def test_everybody_left() -> None:
    (found,) = retention(stays(("s", 0, 2), ("s", 0, 2)), day(9), days=(1, 2, 30))
    assert found.share.tolist() == [1, 0, 0]
    assert found.at_risk.tolist() == [2, 2, 0]
    assert found.low.tolist()[1:] == [0, 0] and 0.6 < found.high[1] == found.high[2] < 0.7


def test_a_stay_that_ends_after_the_last_night_is_open_then_and_one_that_begins_after_it_is_not_there() -> None:
    (found,) = retention(stays(("s", 0, 8), ("s", 6, None)), day(5), days=None)
    assert (found.stays, found.ended, found.days.tolist(), found.share.tolist()) == (1, 0, [0, 1, 2, 3, 4, 5], [1.0] * 6)


def test_stays_whose_start_is_not_known_are_left_out() -> None:
    ledger = stays(("s", 0, 1), ("s", 1, None), ("t", 4, None), ("t", 4, 5))
    found = retention(ledger, day(9), days=(7, 14), without_first=True)
    assert [(kept.segment, kept.stays, kept.ended, kept.left_out) for kept in found] == [("s", 1, 0, 1), ("t", 0, 0, 2)]
    np.testing.assert_array_equal([kept.share for kept in found], [[1, math.nan], [math.nan, math.nan]])
    assert retention(ledger.slice(0, 0), day(9)) == ()


def slow(watched: list[tuple[int, bool]], at: int) -> float:
    """Follow the days one by one."""
    share = 1.0
    for number in range(at + 1):
        facing = [end for end in watched if end[0] >= number]
        leaving = [end for end in facing if end[0] == number and end[1]]
        share *= 1 - len(leaving) / len(facing) if facing else 1
    return share


@pytest.mark.filterwarnings("ignore:The confidence interval is undefined")
@pytest.mark.parametrize("seed", range(5))
def test_retention_is_what_others_compute(seed: int) -> None:
    random = np.random.default_rng(seed)
    told = []
    for _ in range(80):
        entered, lasts = int(random.integers(0, 60)), 1 + int(random.exponential(20))
        told.append(("ab"[random.integers(2)], entered, entered + lasts if entered + lasts <= 60 else None))
    for found in retention(stays(*told), day(60), days=None):
        own = [
            (60 - came if went is None else went - came, went is not None)
            for segment, came, went in told
            if segment == found.segment
        ]
        known = found.at_risk > 0
        np.testing.assert_allclose(found.share[known], [slow(own, int(at)) for at in found.days[known]])
        curve = ecdf(CensoredData(uncensored=[end for end, left in own if left], right=[end for end, left in own if not left])).sf
        interval = curve.confidence_interval(method="log-log")
        inner = known & (found.share < 1) & (found.share > 0)
        assert inner.sum() > 10
        np.testing.assert_allclose(found.share[inner], curve.evaluate(found.days[inner]))
        np.testing.assert_allclose(found.low[inner], interval.low.evaluate(found.days[inner]))
        np.testing.assert_allclose(found.high[inner], interval.high.evaluate(found.days[inner]))


def test_the_interval_covers_as_often_as_it_says() -> None:
    random, covered, truth = np.random.default_rng(3), 0, 0.9**14
    for _ in range(300):
        ends = random.geometric(0.1, 100)
        entered = random.integers(0, 40, 100)
        told = [("s", int(came), int(came + end) if came + end <= 40 else None) for came, end in zip(entered, ends, strict=True)]
        (found,) = retention(stays(*told), day(40), days=(14,))
        covered += bool(found.low[0] <= truth <= found.high[0])
    assert 0.92 <= covered / 300 <= 0.98


def test_figures_are_drawn_with_every_count(tmp_path: Path) -> None:
    counts = np.array([[5, 1200, 0, 1], [0, 3, 7, 0], [40, 0, 0, 0], [2, 0, 0, 0]])
    names = ("risk", "best")
    figure = sankey(Flow((*names, "in none", "not known yet"), (*names, "in none", "no longer known"), counts), day(0), day(7))
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"risk  1,206", "best  1,203", "no longer known  1", "not known yet  2", "in none  7", "1,200"} <= texts
    (kept,) = retention(stays(("s", 0, 2), ("s", 1, None)), day(9), days=None)
    curves = retention_figure([kept], day(9))
    (panel,) = curves.axes
    assert panel.get_title() == "s: 2 stays, 1 ended"
    assert [text.get_text() for text in panel.get_xticklabels()] == ["0\n2", "2\n2", "4\n1", "6\n1", "8\n1"]
    for name, drawn in (("flow", figure), ("stays", curves)):
        drawn.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_whoever_entered_on_the_last_night_has_no_curve_yet() -> None:
    found = retention(stays(("s", 0, 1), ("s", 1, None), ("t", 9, None)), day(9), days=None)
    figure = retention_figure(found, day(9))
    assert [axes.get_title() for axes in figure.axes] == ["s: 2 stays, 1 ended"]
    assert figure.get_supxlabel().endswith("entered on the last night only, so nothing is known yet: t")


def test_figures_of_nothing_say_so() -> None:
    empty: list[Retention] = []
    assert [text.get_text() for text in retention_figure(empty, day(0)).axes[0].texts] == ["no stay is watched yet"]
    nobody = flow(primary(), primary())
    assert [text.get_text() for text in sankey(nobody, day(0), day(1)).axes[0].texts] == ["nobody is known on either night"]
