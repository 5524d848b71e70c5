"""Figures: what they draw and say, read back from their axes."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from models.intervals import Interval
from pipeline.figures import beeswarm, dependence, group_importance, importance_stability, ladder_figure, target_figures

MAY, JUNE, JULY = (datetime(2024, month, 1) for month in (5, 6, 7))


def title(figure: Figure) -> str:
    own = figure.axes[0].get_title()
    return own or figure.get_suptitle()


def drawn(figure: Figure) -> None:
    """Lay the figure out: what cannot be drawn fails here."""
    figure.canvas.draw()


def test_dependence_shows_the_features_that_move_most_and_no_more_than_two_thousand_users() -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame(random.normal(size=(4_500, 8)), columns=list("abcdefgh"))
    values = random.normal(size=x.shape) * [1, 8, 3, 0, 5, 2, 4, 0.5]
    figure = dependence(values, x, title="churn")
    drawn(figure)
    assert [axes.get_xlabel() for axes in figure.axes if axes.axison] == ["b", "e", "g", "c", "f", "a"]
    dots = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_array_equal(dots, np.column_stack([x.b, values[:, 1]])[::3])
    assert title(figure) == "churn\nwhat a feature's value adds to the score, 1,500 of 4,500 users"


def test_the_same_values_give_the_same_beeswarm_and_leave_the_global_generator_alone() -> None:
    random = np.random.default_rng(0)
    x = pd.DataFrame(random.normal(size=(300, 20)), columns=[f"feature_{number}" for number in range(20)])
    before = np.random.get_state()[1].tolist()
    figures = [beeswarm(x.to_numpy() * np.arange(20), x, title="churn") for _ in range(2)]
    assert np.random.get_state()[1].tolist() == before
    dots = [np.vstack([swarm.get_offsets() for swarm in figure.axes[0].collections]) for figure in figures]
    np.testing.assert_array_equal(*dots)
    assert title(figures[0]) == "churn\nwhat moves the score, 300 users"


def test_dependence_of_skewed_and_unknown_values() -> None:
    x = pd.DataFrame(
        {"spend": [0.0, 1.0, 2.0, 3.0, 1000.0], "gap": [np.nan, 1.0, np.nan, 2.0, 3.0], "unknown": np.nan, "still": 1.0}
    )
    values = np.array([[5, 0.4, 0.1, 0], [1, 0.2, 0.1, 0], [2, -0.1, 0.1, 0], [0, 0.1, 0.1, 0], [0, 0.0, 0.1, 0]])
    figure = dependence(values, x, title="churn")
    drawn(figure)
    spend, gap, unknown = (axes for axes in figure.axes if axes.axison)
    assert [axes.get_xlabel() for axes in (spend, gap, unknown)] == ["spend", "gap", "unknown"]
    assert [axes.get_xscale() for axes in (spend, gap, unknown)] == ["symlog", "linear", "linear"]
    line = gap.get_lines()[-1]
    assert line.get_label() == "not known (40%)"
    np.testing.assert_allclose(line.get_ydata(), 0.15)


def test_nothing_moves_a_constant_model() -> None:
    figure = dependence(np.zeros((3, 2)), pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": 0.0}), title="churn")
    drawn(figure)
    assert not [axes for axes in figure.axes if axes.axison]


def test_group_importance_is_of_summed_contributions() -> None:
    values = np.array([[3.0, -1.0, 0.5], [-3.0, 1.0, 0.5]])
    figure = group_importance(values, ["spend", "spend", "gap"], title="churn")
    drawn(figure)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gap", "spend"]
    assert "2 users" in title(figure)


def test_the_interval_of_a_group_is_of_its_mean_over_users() -> None:
    values = np.array([[1.0], [2.0], [-3.0], [6.0]])
    figure = group_importance(values, ["spend"], title="churn")
    (segment,) = figure.axes[0].collections[0].get_segments()
    half = 1.96 * np.std([1, 2, 3, 6], ddof=1) / 2
    np.testing.assert_allclose(segment[:, 0], [3 - half, 3 + half])


def test_stability_draws_shares_by_origin_and_tells_the_mean_rank_correlation() -> None:
    by_origin = {
        JULY: {"spend": 1.0, "gap": 2.0, "hour": 3.0},
        MAY: {"spend": 6.0, "gap": 3.0, "hour": 1.0},
        JUNE: {"spend": 60.0, "gap": 30.0, "hour": 10.0},
    }
    figure = importance_stability(by_origin, title="churn")
    drawn(figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2024-05-01", "2024-06-01", "2024-07-01"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["spend", "gap", "hour"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.6, 0.6, 1 / 6], [0.3, 0.3, 1 / 3], [0.1, 0.1, 0.5]])
    # May and June agree (1), June and July are opposite (-1).
    assert title(figure).endswith("3 origins, as shares\nranks from one origin to the next: mean Spearman correlation 0.00")


@pytest.mark.parametrize("by_origin", [{MAY: {"spend": 1.0}, JUNE: {"spend": 2.0}}, {MAY: {"spend": 1.0, "gap": 0.2}}])
def test_ranks_that_cannot_be_compared(by_origin: dict[datetime, dict[str, float]]) -> None:
    figure = importance_stability(by_origin, title="churn")
    drawn(figure)
    assert title(figure).endswith("ranks: not comparable")


def test_a_group_that_an_origin_does_not_know_moved_nothing_there() -> None:
    figure = importance_stability({MAY: {"spend": 1.0, "gap": 1.0}, JUNE: {"spend": 1.0}}, title="churn")
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.5, 1.0], [0.5, 0.0]])


def test_the_ladder_marks_the_rung_in_use() -> None:
    found = {"base_rate": Interval(0.1, 0.05, 0.15), "rfm": Interval(0.3, 0.25, 0.4)}
    figure = ladder_figure(found, chosen="rfm", title="churn", origins=5)
    drawn(figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base_rate", "rfm (in use)"]
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[0.05, 0.15], [0.1], [0.25, 0.4], [0.3], [0.3, 0.3]]
    assert axes.get_xlabel() == "average precision" and "mean over 5 test origins" in title(figure)


def test_target_figures_name_who_scored_and_what_it_is_set_against() -> None:
    random = np.random.default_rng(0)
    score = random.random(200)
    tested = pd.DataFrame(
        {"label": (random.random(200) < score) * 1.0, "score": score, "baseline": random.random(200), "cutoff": MAY}
    )
    found = target_figures(
        tested, {"auc": 0.8, "average_precision": 0.7}, {"auc": 0.5}, title="churn", is_amount=False, method="blend", against="rfm"
    )
    assert list(found) == ["roc", "precision_recall", "reliability", "gain"]
    told = {name: [text.get_text() for text in figure.axes[0].get_legend().get_texts()] for name, figure in found.items()}
    assert told["roc"] == ["blend: mean AUC 0.800", "rfm: mean AUC 0.500"]
    assert [text.split(":")[0] for text in told["gain"]] == ["blend", "rfm"]
    assert f"1 test origins, 200 rows, {tested.label.sum():.0f} positive" in title(found["roc"])
