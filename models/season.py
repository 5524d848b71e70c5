"""Season: where the level of what a target asks about returns with the year, scores go by the date they are of.

    ──┬────────┬────────────────────────┬────────┬──────▶ dates, a step apart
      a year before the latest          latest   date
      └────────┴─ a year before         └─ the last whose horizon has elapsed

What is foreseen of a date is the level of the latest, and by how much the date's own level lay from theirs in years before. Levels
are log-odds of the mean label, or the logarithm of a mean amount. What is told of a date was known on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit

from models.propensity import Floats, log_odds

# Of whole weeks, so that weekdays meet weekdays.
YEAR = timedelta(days=364)
_EDGE = 1e-9
# The present level is that of so many of the latest dates that have elapsed.
_LATEST = 4
# A season has to prove itself on so many dates, over so long, by leaving at most this part of the error.
_FEWEST, _SHORTEST, _MOST_LEFT = 6, timedelta(days=84), 0.8
# So many years before are looked at, and half of how they swung where that is nearer: part of it was chance.
YEARS, _PARTS = 3, (1.0, 0.5)
# No scores lie further from where they belong, in log-odds.
_FURTHEST = 30.0


@dataclass(frozen=True)
class Season:
    """The level that is foreseen for each date (ISO, one every step); empty where there is no season.

    `usual` is the level of the scores that are moved: a model's own, since its features know some of the season. `left` is the mean
    error with which levels of the past were foreseen so, and `before` that of taking the latest ones.
    """

    levels: Mapping[str, float] = field(default_factory=dict)
    usual: float = 0.0
    left: float = 0.0
    before: float = 0.0

    def around(self, score: Floats, day: date, *, is_amount: bool) -> "Season":
        """Give the season as it moves a model whose scores of `day` are these: their mean is then what is foreseen."""
        if not self.levels or len(score) == 0 or not score.mean() > 0:
            return NO_SEASON
        foreseen = self._foreseen(day)
        if is_amount:
            return replace(self, usual=float(np.log(score.mean())))
        odds = logit(np.clip(score, _EDGE, 1 - _EDGE))
        shift = brentq(lambda moved: expit(odds + moved).mean() - expit(foreseen), -_FURTHEST, _FURTHEST)
        return replace(self, usual=foreseen - shift)

    def moved(self, score: Floats, day: date, *, is_amount: bool) -> Floats:
        """Move probabilities or amounts of a date by how far its level lies from the usual one."""
        if not self.levels:
            return score
        shift = self._foreseen(day) - self.usual
        if is_amount:
            return np.asarray(score * np.exp(shift))
        return np.asarray(expit(logit(np.clip(score, _EDGE, 1 - _EDGE)) + shift))

    def _foreseen(self, day: date) -> float:
        """Give the level of a date; between two dates in proportion."""
        told = [date.fromisoformat(known).toordinal() for known in self.levels]
        return float(np.interp(day.toordinal(), told, list(self.levels.values())))

    def since(self, day: date) -> "Season":
        """Leave out what is over, but for the date before `day`."""
        told = list(self.levels)
        first = max(sum(known <= day.isoformat() for known in told) - 1, 0)
        return replace(self, levels={known: self.levels[known] for known in told[first:]})


NO_SEASON = Season()


def levels_of(rows: pd.Series, total: pd.Series, *, is_amount: bool) -> pd.Series:
    """Give the level of so many labels that add up to `total`; null where there are none, or no amount was spent."""
    if is_amount:
        return np.log((total / rows).where(total > 0))
    return pd.Series(log_odds(total, rows), index=rows.index)


def years_before(step: timedelta) -> int:
    """Give how many steps make a year, at least one."""
    return max(round(YEAR / step), 1)


def season_of(levels: pd.Series, horizon: timedelta, *, before: datetime) -> Season:
    """Give the season of dates a step apart from their `levels` (null where nobody was asked), if it returned.

    Whether it did is seen on dates whose horizon had elapsed `before` the first test origin: what was foreseen of them has to be
    nearer to what came than the level of the latest dates that had elapsed by then. Reaches as far ahead as a year before is known.
    """
    dates, level = pd.DatetimeIndex(levels.index), levels.to_numpy(dtype=np.float64)
    if len(dates) < 2:
        return NO_SEASON
    step = (dates[1] - dates[0]).to_pytimedelta()
    year, ago = years_before(step), -(-horizon // step)
    if ago > year:
        # What happens after a date is not over a year later.
        return NO_SEASON
    foreseen = {part: [_foreseen(level, at, year, ago, part) for at in range(len(dates) + year)] for part in (0.0, *_PARTS)}
    elapsed = [at for at, day in enumerate(dates) if day + horizon <= before]
    known = [at for at in elapsed if np.isfinite([level[at], *(told[at] for told in foreseen.values())]).all()]
    if len(known) < _FEWEST or dates[known[-1]] - dates[known[0]] < _SHORTEST:
        return NO_SEASON
    errors = {part: float(np.mean([abs(level[at] - told[at]) for at in known])) for part, told in foreseen.items()}
    part = min(_PARTS, key=errors.__getitem__)
    if errors[part] > _MOST_LEFT * errors[0.0]:
        return NO_SEASON
    told = {f"{(dates[0] + at * step).date()}": value for at, value in enumerate(foreseen[part]) if np.isfinite(value)}
    return Season(told, left=errors[part], before=errors[0.0])


def in_words(season: Season) -> str:
    """Say how well a season foresaw the level.

    >>> in_words(Season({"2024-01-01": 0.3}, left=0.1, before=0.25))
    'the same weeks of years before foresaw its level within a factor of 1.11 on average, the latest weeks alone within 1.28'
    """
    left, before = np.exp([season.left, season.before])
    return (
        f"the same weeks of years before foresaw its level within a factor of {left:.2f} on average, "
        f"the latest weeks alone within {before:.2f}"
    )


def _foreseen(level: Floats, at: int, year: int, ago: int, part: float) -> float:
    """Add to the level of the latest dates a part of how far the date's own lay from theirs in the years before, on average."""
    latest = min(at - ago, len(level) - 1)
    those = np.arange(latest - _LATEST + 1, latest + 1)
    back = [year * years for years in range(1, YEARS + 1) if year * years <= those[0] and at - year * years < len(level)]
    swings = [level[at - earlier] - level[those - earlier].mean() for earlier in back]
    known = [swing for swing in swings if np.isfinite(swing)]
    return float(level[those].mean() + part * np.mean(known)) if known else float("nan")
