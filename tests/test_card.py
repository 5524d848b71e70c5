"""The model card: every section in whole, what is missing told as such, and nothing that Markdown would misread."""

from dataclasses import replace
from datetime import date, timedelta
from math import nan
from types import SimpleNamespace

import pytest

from features.labels import Eligible, Target
from features.windows import LONGEST
from models.bands import ScoreBand
from models.gates import Verdict
from models.intervals import Interval
from models.slices import Slice
from pipeline.card import Card, model_card
from pipeline.train import why_rung
from pipeline.wording import definition_in_words

DAYS = timedelta(days=1)
CHURN = Target(
    name="churn_28d",
    kind="absence",
    horizon=28 * DAYS,
    events="event_type = 'purchase'",
    eligible=Eligible(56 * DAYS),
    meaning="buys nothing for 28 days",
)
CARD = Card(
    target=CHURN,
    currency="€",
    as_of=date(2024, 10, 25),
    events=12_345,
    users=801,
    sampled=None,
    beyond_history=("168d",),
    rows=4_000,
    positives=400,
    cutoffs=(date(2024, 3, 1), date(2024, 3, 15), date(2024, 9, 27)),
    test_origins=(date(2024, 8, 30), date(2024, 9, 13)),
    method="lightgbm+platt",
    why="it has the best average precision of 6 rungs, ahead of logistic by 0.02",
    features={"spend": ["spend_28d", "spend_84d"], "purchase_recency": ["purchase_recency_days"]},
    groups=(("spend", 0.25), ("purchase_recency", 0.5)),
    confidence=0.95,
    measures={
        "this model": {
            "auc": Interval(0.8584, 0.85, 0.867),
            "lift_10pct": Interval(3.14, 3, 3.3),
            "base_rate": Interval(0.1, 0.09, 0.11),
        },
        "base rate": {"auc": Interval(0.5, 0.5, 0.5), "base_rate": Interval(0.1, 0.09, 0.11)},
        "RFM logistic": {"auc": Interval(0.84, 0.83, 0.85), "lift_10pct": Interval(nan, nan, nan)},
    },
    over_origins={"auc": (0.851, 0.866), "base_rate": (0.09, 0.11)},
    bands=(
        ScoreBand(0.0, 0.1, 900, 0.05, 0.04, 0.03, 0.055, 0.036, 0.064),
        ScoreBand(0.1, 0.5, 0, nan, nan, nan, nan, nan, nan),
        ScoreBand(0.5, 1.0, 100, 0.6, 0.75, 0.65, 0.83, 0.5, 0.7),
    ),
    slices=(
        Slice("tenure", "new", 50, 20, 0.3, Interval(0.4, 0.27, 0.54), {"auc": Interval(0.7, 0.6, 0.8)}),
        Slice("tenure", "old|<b>", 900, 90, 0.2, Interval(0.1, 0.08, 0.12), {"auc": Interval(0.86, 0.85, 0.87)}),
        Slice("journey_stage", "lapsed", 0, 0, nan, Interval(nan, nan, nan), {}),
    ),
    warnings=("the AUC of 0.99 looks too good: look at exit_share_7d",),
    verdicts=(Verdict("not worse", True, "there was no champion"), Verdict("calibration", False, "the error is 0.2")),
    versions={"beforehand": "0.1.0", "lightgbm": "4.6.0", "python": "3.11.9"},
    seed=7,
    digests={"events": "abc", "config": "def"},
)
WHOLE = """\
# Model card: churn_28d

## In short

- A high score means: buys nothing for 28 days.
- Users in the highest tenth of tested scores (about 60.0%): of them it came true for 75.0% (65.0% to 83.0%).
- Users in the lowest tenth of tested scores (about 5.0%): of them it came true for 4.0% (3.0% to 5.5%).
- The tenth with the highest scores holds 3.1 times as many users it comes true for as a random tenth.
- Stays a challenger: calibration: the error is 0.2.
- **Warning:** the AUC of 0.99 looks too good: look at exit_share_7d

## What it predicts

The chance that no event matching `event_type = 'purchase'` happens in the 28 days from the night on.

Asked about users with an event matching `event_type = 'purchase'` in the 56 days before the night; others get no score.

## What it is for, and what not

- For: choosing whom to contact, with what and how often, and for planning; scores are made anew every night.
- Not for: decisions with legal or similar weight for a person (credit, work, insurance, a price of their own).
- A score says what will happen, not what a contact would change. Who is likely to leave need not be who can be kept: \
leave a random part of each segment alone, and compare.
- Reasons say what moved a score, not what causes what a user does.
- It holds for users and habits like those up to 2024-10-25; a new season, price or shop can make it wrong. \
Train again every few weeks, and after such a change.

## How good it is

On 2 test origins (2024-08-30, 2024-09-13), each predicted by a model that had not seen it.
Each number is a mean over them. In brackets: 95% intervals, by a bootstrap over users. How the next weeks may differ shows in the \
lowest and the highest value at one of them (by origin). The other columns are rules it has to beat.

| measure | this model | by origin | base rate | RFM logistic |
|---|---|---|---|---|
| AUC: chance that a 1 scores above a 0 | 0.858 (0.850 to 0.867) | 0.851 to 0.866 | 0.500 (0.500 to 0.500) | \
0.840 (0.830 to 0.850) |
| lift in the top 10 % | 3.140 (3.000 to 3.300) | – | – | – |
| base rate: share of label 1 | 10.0% (9.0% to 11.0%) | 9.0% to 11.0% | 10.0% (9.0% to 11.0%) | – |

## Do scores mean what they say?

In 1 of 2 bands, what happened lies inside what the scores stated.

| scores | rows | mean score | stated interval | realised rate | inside |
|---|---|---|---|---|---|
| 0.0% to 10.0% | 900 | 5.0% | 3.6% to 6.4% | 4.0% (3.0% to 5.5%) | yes |
| 50.0% to 100.0% | 100 | 60.0% | 50.0% to 70.0% | 75.0% (65.0% to 83.0%) | **no** |

## Where it is wrong

In 1 of 2 groups the mean score lies outside the interval of what happened; by chance alone, about 0.1 would. \
Rows of all origins are taken together. Worst first, at most 15:

| group | rows | mean score | realised rate | off | auc |
|---|---|---|---|---|---|
| tenure = old\\|&lt;b> | 900 | 20.0% | 10.0% (8.0% to 12.0%) | **10.0 points too high** | 0.860 (0.850 to 0.870) |
| tenure = new | 50 | 30.0% | 40.0% (27.0% to 54.0%) | 10.0 points too low | 0.700 (0.600 to 0.800) |

## What moves scores

3 features, in groups that tell one story each; a share is that of the mean absolute contributions.

| group | share |
|---|---|
| purchase recency | 50.0% |
| spend | 25.0% |

## Data and period

- Known until 2024-10-25 (midnight UTC): 12,345 events of 801 users.
- Learned from 4,000 rows (user × cutoff), 400 of them (10.0%) with label 1.
- 3 cutoffs, 2024-03-01 to 2024-09-27; one user may be in many of them.
- Purged: a test origin is predicted only from cutoffs whose 28 days had elapsed before it, and calibrated on \
earlier origins alone. The model in use has learned from all of these cutoffs.
- Windows that reach further back than the events, and so say less: 168d.

## Method

`lightgbm+platt`: it has the best average precision of 6 rungs, ahead of logistic by 0.02

## Gates

- passed, not worse: there was no champion
- **refused**, calibration: the error is 0.2

## Made with

| what | value |
|---|---|
| beforehand | 0.1.0 |
| lightgbm | 4.6.0 |
| python | 3.11.9 |
| seed | 7 |
| digest of events | abc |
| digest of config | def |

## Features

What the model reads, by group; `features.md` of the training that this is part of says what each means.

| group | features |
|---|---|
| purchase recency | `purchase_recency_days` |
| spend | `spend_28d`, `spend_84d` |
"""


def section(text: str, heading: str) -> str:
    return text.partition(f"## {heading}\n\n")[2].partition("\n\n## ")[0]


def test_the_whole_card() -> None:
    assert model_card(CARD) == WHOLE


def test_amounts_are_told_in_the_shops_money() -> None:
    target = replace(CHURN, name="value_28d", kind="value", meaning="")
    card = replace(
        CARD,
        target=target,
        positives=None,
        measures={"this model": {"mean_absolute_error": Interval(1234.5, 1200, 1300), "gini": Interval(0.5, 0.4, 0.6)}},
        bands=(ScoreBand(0, 10, 900, 5, 4, 3, 5.5, 3.6, 6.4), ScoreBand(10, 99, 100, 60, 55, 50, 65, 50, 70)),
        slices=(Slice("tenure", "new", 50, 20, 30.0, Interval(45.0, 40.0, 50.0), {"mean_absolute_error": Interval(9, 8, 10)}),),
        verdicts=(Verdict("not worse", True, "there was no champion"),),
        warnings=(),
    )
    told = model_card(card)
    assert section(told, "In short").splitlines() == [
        "- Users in the highest tenth of tested scores (about €60.00): spent €55.00 (€50.00 to €65.00).",
        "- Users in the lowest tenth of tested scores (about €5.00): spent €4.00 (€3.00 to €5.50).",
        "- Passed every gate: not worse: there was no champion.",
    ]
    assert "| mean absolute error (lower is better) | €1,234.50 (€1,200.00 to €1,300.00) |" in told
    assert "| tenure = new | 50 | €30.00 | €45.00 (€40.00 to €50.00) | **-€15.00** | €9.00 (€8.00 to €10.00) |" in told
    assert "- Learned from 4,000 rows (user × cutoff).\n" in told
    bands = section(told, "Do scores mean what they say?").splitlines()
    assert bands[-1] == "| €10.00 to €99.00 | 100 | €60.00 | €50.00 to €70.00 | €55.00 (€50.00 to €65.00) | yes |"


def test_nothing_tested_and_nothing_asked_is_told_as_such() -> None:
    told = model_card(
        replace(CARD, measures={"this model": {}}, bands=(), slices=(), verdicts=(), rows=30, positives=28, cutoffs=())
    )
    assert section(told, "Do scores mean what they say?") == "Too few rows were tested to tell."
    assert section(told, "Where it is wrong") == "No group is large enough to tell."
    assert section(told, "Gates") == "No gate was asked."
    assert "- **Warning:** it learned from 2 rows of the rarer label; with fewer than 100, take scores as rough." in told


def test_a_sample_is_told_as_one() -> None:
    said = "- Learned from and tested on all events of a sample of 200 of these users, drawn by a hash.\n"
    assert said in model_card(replace(CARD, sampled=200)) and "sample" not in model_card(CARD)


def test_only_the_worst_groups_are_named() -> None:
    groups = [Slice("tenure", f"t{n:02}", 50, 20, 0.3, Interval(0.3 + n / 100, 0.0, 1.0), {}) for n in range(20)]
    rows = section(model_card(replace(CARD, slices=groups)), "Where it is wrong").splitlines()[4:]
    assert [row.split(" | ")[0] for row in rows] == [f"| tenure = t{n:02}" for n in range(19, 4, -1)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "occurrence"}, "The chance that an event matching `a = 1` happens in the 28 days from the night on."),
        (
            {"kind": "occurrence", "min_count": 3},
            "The chance that at least 3 events matching `a = 1` happen in the 28 days from the night on.",
        ),
        (
            {"kind": "growth"},
            "The chance that the amount of events matching `a = 1` in the 28 days from the night on is at least 1.25 times the "
            "user's own average of 28 days over the 84 days before.",
        ),
        (
            {"kind": "first"},
            "The chance that an event matching `a = 1` happens in the 28 days from the night on, for users with none in the "
            "84 days before.",
        ),
        (
            {"kind": "value", "measure": "quantity"},
            "The quantity that events matching `a = 1` add up to in the 28 days from the night on.",
        ),
    ],
)
def test_every_kind_of_target_in_words(changes: dict[str, object], said: str) -> None:
    assert definition_in_words(replace(CHURN, events="a\n= 1", **changes)) == said


def test_a_card_says_what_ends_being_asked() -> None:
    until = replace(CHURN, eligible=Eligible(LONGEST, "event_type = 'paid'", "event_type = 'cancelled'"))
    assert (
        "Asked about users with an event matching `event_type = 'paid'` at any time before the night, "
        "and none matching `event_type = 'cancelled'` since the last of them; others get no score."
    ) in model_card(replace(CARD, target=until))


@pytest.mark.parametrize(
    ("measure", "rung", "told"),
    [
        ("average_precision", "blend", "blend has the highest mean average precision over the test origins, 0.500 (rfm 0.300"),
        ("average_precision", "lightgbm", "(rfm 0.300, blend 0.500); blends that rank better are more wrong by log loss"),
        ("poisson_deviance", "rfm", "rfm has the lowest mean poisson deviance over the test origins, 0.300 (lightgbm 0.400"),
    ],
)
def test_a_card_says_why_a_rung_is_used(measure: str, rung: str, told: str) -> None:
    values = {"rfm": 0.3, "lightgbm": 0.4, "blend": 0.5}
    ladder = {name: Interval(value, value, value) for name, value in values.items()}
    made = SimpleNamespace(report=SimpleNamespace(measure=measure, ladder=ladder), backtest=SimpleNamespace(rung=rung))
    assert told in why_rung(made)
