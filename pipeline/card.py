"""A model card (Mitchell et al., 2019): what a model predicts, from what, how well, where it is wrong and what it is not for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isfinite

from features.labels import Target
from features.windows import before, words
from models.bands import ScoreBand, odds_range
from models.gates import Verdict, because, decide
from models.intervals import Interval
from models.ladder import BLENDS, Recipe
from models.season import NO_SEASON, Season, in_words
from models.slices import Slice
from pipeline.wording import code, definition_in_words, from_to, number, table, text, title, unit, with_interval

_MOST_SLICES, _MOST_GROUPS = 15, 15
# Fewer than so many rows of either label teach little, whatever the method.
_FEW = 100


@dataclass(frozen=True)
class Card:
    """What a model card tells of one target's model; no user is in it.

    `why` says why this rung of the ladder. `measures` maps who scored to its measures over the test origins, the model's own
    first, then the baselines, simplest first; `over_origins` has the lowest and highest of its own at one origin. `bands`, `slices`
    and `measures` are of rows of test origins only. `positives` is null for amounts. `features` are those it reads, by group, and
    `groups` the share of groups in what moves scores. `cutoffs` are those that the model learned from.
    """

    target: Target
    currency: str
    as_of: date
    events: int
    users: int
    sampled: int | None
    beyond_history: Sequence[str]
    rows: int
    positives: int | None
    cutoffs: Sequence[date]
    test_origins: Sequence[date]
    method: str
    why: str
    features: Mapping[str, Sequence[str]]
    groups: Sequence[tuple[str, float]]
    confidence: float
    measures: Mapping[str, Mapping[str, Interval]]
    over_origins: Mapping[str, tuple[float, float]]
    bands: Sequence[ScoreBand]
    slices: Sequence[Slice]
    warnings: Sequence[str]
    verdicts: Sequence[Verdict]
    versions: Mapping[str, str]
    seed: int
    digests: Mapping[str, str]
    season: Season = NO_SEASON
    recipe: Recipe | None = None


def model_card(told: Card) -> str:
    """Write the card in Markdown: first what a marketer asks, then what a data scientist does."""
    heading = f"# Model card: {told.target.name}"
    parts: tuple[tuple[str, Callable[[Card], Iterator[str]]], ...] = (
        ("In short", _in_short),
        ("What it predicts", _predicts),
        ("What it is for, and what not", _use),
        ("How good it is", _measured),
        ("Do scores mean what they say?", _calibration),
        ("Where it is wrong", _wrong),
        ("What moves scores", _groups),
        ("Data and period", _data),
        ("Method", _method),
        ("Gates", _gates),
        ("Made with", _made_with),
        ("Features", _features),
    )
    return "\n\n".join([heading, *("\n".join([f"## {asked}\n", *lines(told)]) for asked, lines in parts)]) + "\n"


def _in_short(told: Card) -> Iterator[str]:
    if told.target.meaning:
        yield f"- A high score means: {text(told.target.meaning)}."
    known = [band for band in told.bands if band.users]
    if len(known) > 1:
        low, high = min(known, key=lambda band: band.mean_score), max(known, key=lambda band: band.mean_score)
        happened = "spent" if told.target.is_amount else "of them it came true for"
        for name, band in (("highest", high), ("lowest", low)):
            rate = with_interval(Interval(band.rate, band.rate_low, band.rate_high), _of_scores(told))
            about = number(band.mean_score, _of_scores(told))
            yield f"- Users in the {name} tenth of tested scores (about {about}): {happened} {rate}."
    own = next(iter(told.measures.values()), {})
    if "lift_10pct" in own:
        times = f"{own['lift_10pct'].value:.1f} times"
        yield f"- The tenth with the highest scores holds {times} as many users it comes true for as a random tenth."
    yield f"- {'Passed every gate' if decide(told.verdicts) else 'Stays a challenger'}: {text(because(told.verdicts))}."
    yield from (f"- **Warning:** {text(warning)}" for warning in told.warnings)
    if told.positives is not None and (few := min(told.positives, told.rows - told.positives)) < _FEW:
        yield f"- **Warning:** it learned from {few} rows of the rarer label; with fewer than {_FEW}, take scores as rough."


def _predicts(told: Card) -> Iterator[str]:
    target = told.target
    yield definition_in_words(target)
    yield ""
    eligible = target.eligible
    asked = f"users with an event matching {code(eligible.events)} {before(eligible.active_within)} the night"
    ended = f", and none matching {code(eligible.until)} since the last of them" if eligible.until else ""
    yield f"Asked about {asked}{ended}; others get no score."


def _use(told: Card) -> Iterator[str]:
    yield "- For: choosing whom to contact, with what and how often, and for planning; scores are made anew every night."
    yield "- Not for: decisions with legal or similar weight for a person (credit, work, insurance, a price of their own)."
    yield (
        "- A score says what will happen, not what a contact would change. Who is likely to leave need not be who can be kept: "
        "leave a random part of each segment alone, and compare."
    )
    yield "- Reasons say what moved a score, not what causes what a user does."
    yield (
        f"- It holds for users and habits like those up to {told.as_of}; a new season, price or shop can make it wrong. "
        "Train again every few weeks, and after such a change."
    )


def _measured(told: Card) -> Iterator[str]:
    origins = ", ".join(f"{origin}" for origin in told.test_origins)
    yield f"On {len(told.test_origins)} test origins ({origins}), each predicted by a model that had not seen it."
    sure = f"{told.confidence:.0%} intervals, by a bootstrap over users"
    yield (
        f"Each number is a mean over them. In brackets: {sure}. How the next weeks may differ shows in the lowest and the highest "
        "value at one of them (by origin). The other columns are rules it has to beat."
    )
    yield ""
    names = list(dict.fromkeys(name for found in told.measures.values() for name in found))
    scorers = list(told.measures)
    yield from table(
        ["measure", *scorers[:1], "by origin", *scorers[1:]],
        (_beside(told, name) for name in names if name not in ("users", "positives")),
    )
    if "expected_calibration_error" in names:
        yield ""
        yield "Chance alone makes a calibration error, which its interval leaves out: it may end at the number itself."


def _beside(told: Card, name: str) -> list[str]:
    """Give the cells of a measure: the model's own, how its origins differ, and the rules'."""
    scale = unit(name, told.currency)
    own, *rules = (with_interval(found.get(name), scale) for found in told.measures.values())
    bounds = told.over_origins.get(name)
    return [title(name), own, from_to(*bounds, scale) if bounds else "–", *rules]


def _calibration(told: Card) -> Iterator[str]:
    known = [band for band in told.bands if band.users]
    if not known:
        yield "Too few rows were tested to tell."
        return
    scale, inside = _of_scores(told), [band.stated_low <= band.rate <= band.stated_high for band in known]
    yield f"In {sum(inside)} of {len(known)} bands, what happened lies inside what the scores stated."
    yield from moved(known)
    yield ""
    realised = "mean amount" if told.target.is_amount else "realised rate"
    yield from table(
        ["scores", "rows", "mean score", "stated interval", realised, "inside"],
        (
            [
                from_to(band.low, band.high, scale),
                f"{band.users:,}",
                number(band.mean_score, scale),
                from_to(band.stated_low, band.stated_high, scale),
                with_interval(Interval(band.rate, band.rate_low, band.rate_high), scale),
                "yes" if is_inside else "**no**",
            ]
            for band, is_inside in zip(known, inside, strict=True)
        ),
    )


def moved(bands: Sequence[ScoreBand]) -> Iterator[str]:
    """Say how far the level moves between dates, where that is known."""
    low, high = odds_range(bands)
    if high > 1:
        yield f"Stated is chance, and that from one date to another the odds moved by factors of {low:.2f} to {high:.2f} (95 %)."


def _wrong(told: Card) -> Iterator[str]:
    known = sorted((one for one in told.slices if isfinite(one.rate.value)), key=_wrongness, reverse=True)
    if not known:
        yield "No group is large enough to tell."
        return
    off, scale = sum(_is_off(one) for one in known), _of_scores(told)
    yield (
        f"In {off} of {len(known)} groups the mean score lies outside the interval of what happened; by chance alone, about "
        f"{(1 - told.confidence) * len(known):.1f} would. Rows of all origins are taken together. Worst first, at most "
        f"{_MOST_SLICES}:"
    )
    yield ""
    shown = known[:_MOST_SLICES]
    wanted = [name for name in ("auc", "average_precision", "mean_absolute_error") if any(name in one.measures for one in shown)]
    realised = "mean amount" if told.target.is_amount else "realised rate"
    yield from table(
        ["group", "rows", "mean score", realised, "off", *(name.replace("_", " ") for name in wanted)],
        (
            [
                f"{one.column} = {one.value}",
                f"{one.users:,}",
                number(one.mean_score, scale),
                with_interval(one.rate, scale),
                f"**{_off(one, scale)}**" if _is_off(one) else _off(one, scale),
                *(with_interval(one.measures.get(name), unit(name, told.currency)) for name in wanted),
            ]
            for one in shown
        ),
    )


def _groups(told: Card) -> Iterator[str]:
    count = sum(map(len, told.features.values()))
    yield f"{count} features, in groups that tell one story each; a share is that of the mean absolute contributions."
    yield ""
    ordered = sorted(told.groups, key=lambda group: -group[1])
    yield from table(["group", "share"], ([name.replace("_", " "), f"{share:.1%}"] for name, share in ordered[:_MOST_GROUPS]))


def _data(told: Card) -> Iterator[str]:
    yield f"- Known until {told.as_of} (midnight UTC): {told.events:,} events of {told.users:,} users."
    if told.sampled is not None:
        yield f"- Learned from and tested on all events of a sample of {told.sampled:,} of these users, drawn by a hash."
    positives = (
        "" if told.positives is None else f", {told.positives:,} of them ({_part(told.positives, told.rows):.1%}) with label 1"
    )
    yield f"- Learned from {told.rows:,} rows (user × cutoff){positives}."
    if told.cutoffs:
        yield f"- {len(told.cutoffs)} cutoffs, {min(told.cutoffs)} to {max(told.cutoffs)}; one user may be in many of them."
    yield (
        f"- Purged: a test origin is predicted only from cutoffs whose {words(told.target.horizon)} had elapsed before it, and "
        "calibrated on earlier origins alone. The model in use has learned from all of these cutoffs."
    )
    if told.beyond_history:
        yield f"- Windows that reach further back than the events, and so say less: {', '.join(told.beyond_history)}."


def _method(told: Card) -> Iterator[str]:
    yield f"{code(told.method)}: {text(told.why)}"
    if told.recipe is not None and told.recipe.rung in ("lightgbm", *BLENDS):
        trees, within = told.recipe.settings, ", within dates" if told.recipe.within_dates else ""
        yield ""
        yield (
            f"LightGBM: {told.recipe.rounds} rounds of up to {trees['num_leaves']} leaves, learning at {trees['learning_rate']}"
            f"{within}."
        )
    if told.season.levels:
        yield ""
        yield f"Scores go by the season of their date, since {in_words(told.season)}."


def _gates(told: Card) -> Iterator[str]:
    yield from (f"- {'passed' if found.passed else '**refused**'}, {found.gate}: {text(found.said)}" for found in told.verdicts)
    if not told.verdicts:
        yield "No gate was asked."


def _made_with(told: Card) -> Iterator[str]:
    yield from table(
        ["what", "value"],
        [
            *([name, version] for name, version in told.versions.items()),
            ["seed", str(told.seed)],
            *([f"digest of {name}", digest] for name, digest in told.digests.items()),
        ],
    )


def _features(told: Card) -> Iterator[str]:
    yield "What the model reads, by group; `features.md` of the training that this is part of says what each means."
    yield ""
    yield from table(
        ["group", "features"],
        ([group.replace("_", " "), ", ".join(map(code, names))] for group, names in sorted(told.features.items())),
    )


def _of_scores(told: Card) -> str:
    return told.currency if told.target.is_amount else "%"


def _is_off(one: Slice) -> bool:
    return not one.rate.low <= one.mean_score <= one.rate.high


def _wrongness(one: Slice) -> tuple[bool, float]:
    # What is wrong for sure comes before what is only far off in a handful of rows.
    return _is_off(one), abs(one.mean_score - one.rate.value)


def _off(one: Slice, scale: str) -> str:
    gap = one.mean_score - one.rate.value
    return f"{abs(gap) * 100:.1f} points too {'high' if gap > 0 else 'low'}" if scale == "%" else number(gap, scale)


def _part(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
