"""Figures of personas: how their number was chosen, where they lie, and what each is like."""

from collections.abc import Iterator, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from features.catalogue import Feature
from models.persona_choice import Tried
from models.persona_names import words_towards
from models.persona_traits import Trait, scale
from models.personas import Personas
from models.propensity import Floats

# Colours that stay apart for those who see fewer of them (Okabe & Ito, 2008), and their darker kin beyond eight.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b5a800", "#5b5b5b")
_QUIET = "#9a9a9a"
_DOTS = 2_000
_MOST = 2.0
_WIDTH = 52


def persona_figures(personas: Personas, frame: pd.DataFrame, features: Sequence[Feature], *, seed: int) -> dict[str, Figure]:
    """Draw the curve of the number of personas, a map of users drawn by `seed`, and the profile; `frame` has one row per user."""
    scaled = scale(frame, personas.traits)
    places, _ = personas.place(frame)
    meanings = {feature.name: feature.meaning for feature in features}
    # What users write into a meaning or a name is no formula, also with two $ in it.
    with rc_context({"text.parse_math": False}):
        return {
            "persona_count": _curve(personas, len(frame)),
            "persona_map": _map(personas, scaled, places, seed),
            "persona_profile": _profile(personas, scaled, places, [meanings[trait.feature] for trait in personas.traits]),
        }


def _curve(personas: Personas, users: int) -> Figure:
    chosen, tried = len(personas.ids), personas.tried
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    figure.suptitle(f"Why {chosen} personas of {users:,} users\n{fill(personas.why, 84)}", fontsize=10)
    upper, lower = figure.subplots(2, 1, sharex=True)
    ks, found = [one.k for one in tried], [one.silhouette for one in tried]
    upper.plot(ks, found, color=_COLOURS[0], marker="o")
    # From zero, so that a curve that says the same everywhere looks like one.
    upper.set(ylabel="mean silhouette\n(0 touching, 1 far apart)", ylim=(min(0.0, *found), max(0.01, *found) * 1.15))
    for said, measure, colour in (
        ("users who keep their persona when it is fitted again to resampled users", _measure(tried, "kept"), _COLOURS[2]),
        ("adjusted Rand index of fits from scratch on resampled users", _measure(tried, "stability"), _COLOURS[5]),
        ("users of the smallest persona", _measure(tried, "smallest"), _QUIET),
    ):
        lower.plot(ks, measure, color=colour, marker="o", label=said)
    lower.set(xlabel="number of personas", ylabel="share of users, or index", xticks=ks, ylim=(0, 1.05))
    figure.legend(*lower.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=1)
    for axes in (upper, lower):
        axes.axvline(chosen, color=_QUIET, linestyle=":")
        _plain(axes)
    upper.annotate("chosen", (chosen, 0), xytext=(4, 4), textcoords="offset points", fontsize=8, color="#5b5b5b")
    return figure


def _measure(tried: Sequence[Tried], name: str) -> list[float]:
    return [np.nan if (value := getattr(one, name)) is None else value for one in tried]


def _map(personas: Personas, scaled: Floats, places: np.ndarray, seed: int) -> Figure:
    middle, plane, told = _plane(personas)
    # In the order of the draw, so that no persona lies on top of the others.
    drawn = np.random.default_rng(seed).permutation(len(scaled))[:_DOTS]
    flat, centres = (scaled[drawn] - middle) @ plane.T, (np.asarray(personas.centroids) - middle) @ plane.T
    colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(personas.ids))]
    figure = Figure(figsize=(8.4, 6.2), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(flat[:, 0], flat[:, 1], s=10, alpha=0.55, color=[colours[place] for place in places[drawn]], linewidths=0)
    for number, colour, (x, y) in zip(personas.ids, colours, centres, strict=True):
        box = {"boxstyle": "circle", "facecolor": colour, "edgecolor": "white"}
        axes.text(x, y, str(number), bbox=box, color="white", fontsize=10, fontweight="bold", ha="center", va="center")
    axes.set_title(
        f"Persona map: a dot is a user ({len(drawn):,} drawn of {len(scaled):,}), a number the middle of a persona,\n"
        f"on the two axes along which the personas differ most ({told:.0%} of the variance between them)",
        fontsize=10,
    )
    axes.set(xlabel=_towards(plane[0], personas.traits), ylabel=_towards(plane[1], personas.traits))
    # The numbers along the axes have no unit that anybody knows.
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    _plain(axes)
    named = zip(personas.ids, personas.names, personas.shares, strict=True)
    labels = [f"{number}: {name} ({share:.0%})" for number, name, share in named]
    handles = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in colours]
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    return figure


def _plane(personas: Personas) -> tuple[Floats, Floats, float]:
    """Give the middle of the centroids, the two axes along which they differ most, and what part of their variance these hold."""
    centroids, shares = np.asarray(personas.centroids), np.asarray(personas.shares)
    middle = shares @ centroids
    _, sizes, axes = np.linalg.svd(np.sqrt(shares)[:, None] * (centroids - middle), full_matrices=False)
    plane = np.zeros((2, centroids.shape[1]))
    plane[: len(axes[:2])] = axes[:2]
    return middle, plane, float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), np.finfo(float).tiny))


def _towards(axis: Floats, traits: Sequence[Trait]) -> str:
    """Say what users at either end of an axis are like."""
    low, high = (", ".join(words_towards(side * axis, traits)) for side in (-1.0, 1.0))
    return f"←  {low}        {high}  →"


def _profile(personas: Personas, scaled: Floats, places: np.ndarray, meanings: Sequence[str]) -> Figure:
    weights = np.array([trait.weight for trait in personas.traits])
    values = scaled / weights
    medians = np.stack([np.median(values[places == place], axis=0) for place in range(len(personas.ids))])
    apart = medians - np.median(values, axis=0)
    figure = Figure(figsize=(4.4 + 1.15 * len(personas.ids) + 1.4, 1.8 + 0.4 * len(meanings)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(apart.T, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -_MOST, _MOST), aspect="auto")
    for (column, row), value in np.ndenumerate(apart):
        said = f"{value:+.1f}" if abs(value) >= 0.05 else "0"
        colour = "white" if abs(value) > 1.3 else "black"
        axes.text(column, row, said, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(personas.ids)), list(_headings(personas)), fontsize=8)
    axes.set_yticks(range(len(meanings)), [fill(meaning, _WIDTH) for meaning in meanings], fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(f"What sets each persona apart, {len(scaled):,} users", fontsize=11)
    # Of few traits the figure is low.
    said = "median user of the persona\nbeside everybody's, in\nstandard deviations\n(0: alike)"
    figure.colorbar(image, ax=axes, shrink=0.6, extend="both").set_label(said, fontsize=8)
    return figure


def _headings(personas: Personas) -> Iterator[str]:
    for number, name, share in zip(personas.ids, personas.names, personas.shares, strict=True):
        yield f"{number}: {fill(name, 16, break_long_words=False, break_on_hyphens=False)}\n({share:.0%})"


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
