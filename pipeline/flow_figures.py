"""Figures of segments over time: who went where between two nights, and how long members stay."""

from collections.abc import Sequence
from datetime import date

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from pipeline.flow import GONE, IN_NONE, NOT_YET, Floats, Flow, Retention

# The first are Okabe and Ito's (2008), told apart by the colour-blind too; the greys are for who is in no segment, and who stays.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#6A51A3", "#8C564B", "#17757F", "#A50F15", "#B5BD00", "#2F4B7C",
    "#F781BF", "#1B9E3F", "#B38867", "#7A7AFF",
)  # fmt: skip
_QUIET, _STAYING = "#6b6b6b", "#dddddd"
_GAP = 0.018
_BAR = 0.035
# More coloured bands than this would hide each other.
_NAMED_MOVES = 12


def sankey(found: Flow, before: date, after: date) -> Figure:
    """Draw users by primary segment on two nights as bars, and bands between them: grey stay where they were, colours move.

    The largest moves say how many they are, the others are faint; a band of one user has the same thickness everywhere.
    """
    rows = [at for at in range(len(found.before)) if found.counts[at].sum()]
    columns = [at for at in range(len(found.after)) if found.counts[:, at].sum()]
    total = int(found.counts.sum())
    moved = sum(users for *_, users in found.moves())
    figure = Figure(figsize=(11, max(4.5, 1.6 + 0.46 * max(len(rows), len(columns)))), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(-0.34, 1.34), ylim=(-0.06, 1.07))
    if not total:
        axes.text(0.5, 0.5, "nobody is known on either night", ha="center", va="center")
        return figure
    named = {(one, other) for one, other, _ in list(found.moves())[:_NAMED_MOVES]}
    figure.suptitle(
        f"Primary segments, {before} to {after}: {moved:,} of {total:,} users moved ({moved / total:.1%})\n"
        f"grey stayed, colours moved; the {len(named)} largest moves are named, the others faint",
        fontsize=11,
    )
    # As much gap on both sides, so that a user has one height everywhere.
    gaps = _GAP * (max(len(rows), len(columns)) - 1)
    height = (1 - min(gaps, 0.5)) / total
    left = _tops(found.counts.sum(axis=1)[rows], height)
    right = _tops(found.counts.sum(axis=0)[columns], height)
    colours = _colours((*found.before, *found.after))
    drawn_left, drawn_right = dict(zip(rows, left, strict=True)), dict(zip(columns, right, strict=True))
    places: list[tuple[float, float, int, str]] = []
    for row in rows:
        for column in columns:
            users = int(found.counts[row, column])
            if not users:
                continue
            one, other = found.before[row], found.after[column]
            start, stop = drawn_left[row], drawn_right[column]
            thick = users * height
            colour, strength = (_STAYING, 0.7) if one == other else (colours[one], 0.6 if (one, other) in named else 0.12)
            axes.add_patch(_band(start, stop, thick, colour, strength))
            drawn_left[row], drawn_right[column] = start - thick, stop - thick
            if (one, other) in named:
                places.append((start - thick / 2, stop - thick / 2, users, colour))
    for at, own, names, tops, counts in (
        (0.0, rows, found.before, left, found.counts.sum(axis=1)),
        (1.0, columns, found.after, right, found.counts.sum(axis=0)),
    ):
        _bars(axes, at, [names[place] for place in own], [int(counts[place]) for place in own], tops, height, colours)
    _name_moves(axes, places)
    axes.text(-_BAR, 1.03, f"{before}", ha="left", va="bottom", fontsize=10, fontweight="bold")
    axes.text(1 + _BAR, 1.03, f"{after}", ha="right", va="bottom", fontsize=10, fontweight="bold")
    return figure


def retention_figure(found: Sequence[Retention], last_night: date) -> Figure:
    """Draw the share of members who stay, by days since they entered (all days): a panel per segment, with its 95 % interval."""
    watched = [kept for kept in found if kept.days.max(initial=0) > 0]
    unseen = [kept.segment for kept in found if kept.stays and kept not in watched]
    columns = min(4, max(1, len(watched)))
    rows = max(1, -(-len(watched) // columns))
    figure = Figure(figsize=(max(6.5, 3.1 * columns), 2.7 * rows + 1.0), layout="constrained")
    figure.suptitle(
        f"How long members stay, as of {last_night}\nshare still in by days since entering (Kaplan-Meier), 95% interval",
        fontsize=11,
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(watched) :]:
        axes.set_axis_off()
    if not watched:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, "no stay is watched yet", ha="center", va="center", transform=panels[0].transAxes)
        return figure
    longest = max(int(kept.days.max()) for kept in watched)
    for axes, kept in zip(panels, watched, strict=False):
        _curve(axes, kept, longest)
    # The first of a row says what its numbers are.
    for axes in panels[: len(watched) : columns]:
        axes.set_ylabel("share still in", fontsize=8)
    also = f"\nentered on the last night only, so nothing is known yet: {', '.join(unseen)}" if unseen else ""
    figure.supxlabel(f"days since entering; below them, stays watched so long{also}", fontsize=9)
    return figure


def _curve(axes: Axes, kept: Retention, longest: int) -> None:
    """Draw one segment's curve, with the number at risk below the days."""
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # A share holds until the next day.
    days = np.append(kept.days, kept.days[-1] + 1)
    share, low, high = (np.append(values, values[-1]) for values in (kept.share, kept.low, kept.high))
    axes.fill_between(days, low, high, step="post", color=_COLOURS[0], alpha=0.2, linewidth=0)
    axes.step(days, share, where="post", color=_COLOURS[0], linewidth=1.6)
    axes.set_title(f"{kept.segment}: {kept.stays:,} stay{'' if kept.stays == 1 else 's'}, {kept.ended:,} ended", fontsize=9)
    axes.set(xlim=(0, longest + 1), ylim=(0, 1.03))
    ticks = range(0, longest + 1, -(-longest // 4))
    at_risk = dict(zip(kept.days.tolist(), kept.at_risk.tolist(), strict=True))
    axes.set_xticks(ticks, [f"{day}\n{at_risk.get(day, 0):,}" for day in ticks])
    axes.tick_params(labelsize=8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _tops(counts: np.ndarray, height: float) -> list[float]:
    """Give where each bar of a stack begins, from the top; what is left of the height is shared out between them."""
    sizes = counts * height
    gap = (1 - sizes.sum()) / (len(sizes) - 1) if len(sizes) > 1 else 0.0
    return [float(1 - sizes[:at].sum() - gap * at) for at in range(len(sizes))]


def _colours(names: Sequence[str]) -> dict[str, str]:
    segments = [name for name in dict.fromkeys(names) if name not in (IN_NONE, NOT_YET, GONE)]
    quiet = dict.fromkeys((IN_NONE, NOT_YET, GONE), _QUIET)
    return {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(segments)} | quiet


def _band(start: float, stop: float, thick: float, colour: str, strength: float) -> PathPatch:
    """Make a band of one thickness from the left bar, whose upper edge is at `start`, to the right one, at `stop`."""
    upper = [(0, start), (0.5, start), (0.5, stop), (1, stop)]
    lower = [(1, stop - thick), (0.5, stop - thick), (0.5, start - thick), (0, start - thick)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    path = Path([*upper, *lower, (0, start)], codes)
    # An edge of its own keeps a band of few users in sight; strong ones lie above faint ones.
    face, edge = (*to_rgb(colour), strength), (*to_rgb(colour), min(1.0, strength * 1.4))
    return PathPatch(path, facecolor=face, edgecolor=edge, linewidth=0.5, zorder=1 if colour == _STAYING else 1 + strength)


def _bars(
    axes: Axes, at: float, names: list[str], counts: list[int], tops: Sequence[float], height: float, colours: dict[str, str]
) -> None:
    """Draw one stack of bars, with name and users of each outside of it, apart enough to be read."""
    side, align = (-1, "right") if at == 0 else (1, "left")
    middles = np.array([top - users * height / 2 for top, users in zip(tops, counts, strict=True)])
    for name, users, top, middle, label in zip(names, counts, tops, middles, _apart(middles, 0.042), strict=True):
        x = at - _BAR if side < 0 else at
        axes.add_patch(Rectangle((x, top - users * height), _BAR, users * height, color=colours[name], linewidth=0.5, zorder=3))
        edge = at + side * _BAR
        axes.plot([edge, edge + side * 0.02], [middle, label], color=_QUIET, linewidth=0.6)
        axes.text(edge + side * 0.025, label, f"{name}  {users:,}", ha=align, va="center", fontsize=9)


def _name_moves(axes: Axes, places: list[tuple[float, float, int, str]]) -> None:
    """Write the users of the largest moves on their bands, near where they begin, framed in the colours of the bands."""
    # On the curve of the band at a quarter of its way; see _band for its corners.
    way = 0.25
    at = 3 * (1 - way) ** 2 * way * 0.5 + 3 * (1 - way) * way**2 * 0.5 + way**3
    middles = np.array([start + (stop - start) * (3 * way**2 - 2 * way**3) for start, stop, *_ in places])
    order = np.argsort(-middles, kind="stable")
    for place, y in zip(order, _apart(middles[order], 0.034), strict=True):
        *_, users, colour = places[place]
        box = {"facecolor": "white", "edgecolor": colour, "pad": 1.2, "linewidth": 0.9}
        axes.text(at, y, f"{users:,}", ha="center", va="center", fontsize=8, bbox=box, zorder=4)


def _apart(middles: Floats, least: float) -> Floats:
    """Move labels, given from the top down, as little as it takes to lie `least` apart."""
    # Blocks of labels that touch, each centred on the mean of where they belong (pool adjacent violators).
    blocks: list[list[float]] = []
    for at, middle in enumerate(middles):
        blocks.append([float(middle) + at * least])
        while len(blocks) > 1 and np.mean(blocks[-2]) < np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed: Floats = np.array([float(np.mean(block)) for block in blocks for _ in block])
    return placed - least * np.arange(len(placed), dtype=np.float64)
