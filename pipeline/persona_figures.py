"""Figures of personas: how their number was chosen, where they lie, and what each is like."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from models.persona_choice import Tried
from models.persona_traits import Trait, scale
from models.personas import Personas

# Colours that stay apart for those who see fewer of them (Okabe & Ito, 2008), and their darker kin beyond eight.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b5a800", "#5b5b5b")
_QUIET = "#9a9a9a"
_DOTS = 2_000
_MOST = 2.0


def persona_figures(personas: Personas, frame: pd.DataFrame, *, seed: int) -> dict[str, Figure]:
    """Draw the curve of the number of personas, a map of users drawn by `seed`, and the profile; `frame` has one row per user."""
    scaled = scale(frame, personas.traits)
    places, _ = personas.place(frame)
    found = {"persona_map": _map(personas, scaled, places, seed), "persona_profile": _profile(personas, scaled, places)}
    return {"persona_count": _curve(personas.tried, len(personas.ids), personas.why), **found}


def _curve(tried: Sequence[Tried], chosen: int, why: str) -> Figure:
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    figure.suptitle(f"{chosen} personas\n{_wrapped(why)}", fontsize=11)
    upper, lower = figure.subplots(2, 1, sharex=True)
    ks, found = [one.k for one in tried], [one.silhouette for one in tried]
    upper.plot(ks, found, color=_COLOURS[0], marker="o")
    # From zero, so that a curve that says the same everywhere looks like one.
    upper.set(ylabel="silhouette", ylim=(min(0.0, *found), max(0.01, *found) * 1.15))
    for name, said, colour in (
        ("kept", "users who keep their persona on resampled users", _COLOURS[2]),
        ("stability", "adjusted Rand index of fits from scratch", _COLOURS[5]),
        ("smallest", "users of the smallest persona", _QUIET),
    ):
        values = [np.nan if (value := getattr(one, name)) is None else value for one in tried]
        lower.plot(ks, values, color=colour, marker="o", label=said)
    lower.set(xlabel="number of personas", ylabel="share, or index", xticks=ks, ylim=(0, 1.05))
    figure.legend(*lower.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=1)
    for axes in (upper, lower):
        axes.axvline(chosen, color=_QUIET, linestyle=":")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _map(personas: Personas, scaled: np.ndarray, places: np.ndarray, seed: int) -> Figure:
    drawn = np.sort(np.random.default_rng(seed).permutation(len(scaled))[:_DOTS])
    parts = min(2, *scaled.shape)
    pca = PCA(parts, svd_solver="full").fit(scaled[drawn])
    flat = np.zeros((len(drawn), 2))
    flat[:, :parts] = pca.transform(scaled[drawn])
    centres = np.zeros((len(personas.ids), 2))
    centres[:, :parts] = pca.transform(np.asarray(personas.centroids))
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(personas.names):
        own = flat[places[drawn] == place]
        colour = _COLOURS[place % len(_COLOURS)]
        label = f"{personas.ids[place]}: {name} ({personas.shares[place]:.0%})"
        axes.scatter(own[:, 0], own[:, 1], s=9, alpha=0.45, color=colour, linewidths=0, label=label)
    for place, (x, y) in enumerate(centres):
        box = {"boxstyle": "circle", "facecolor": _COLOURS[place % len(_COLOURS)], "edgecolor": "white"}
        number = str(personas.ids[place])
        axes.text(x, y, number, bbox=box, color="white", fontsize=9, fontweight="bold", ha="center", va="center")
    shares = [*pca.explained_variance_ratio_, 0.0][:2]
    axes.set_title(
        f"Persona map: {len(drawn):,} of {len(scaled):,} users, on the two axes along which they differ most", fontsize=11
    )
    axes.set(xlabel=f"first axis ({shares[0]:.0%} of the differences)", ylabel=f"second axis ({shares[1]:.0%})")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=2, markerscale=2)
    return figure


def _profile(personas: Personas, scaled: np.ndarray, places: np.ndarray) -> Figure:
    weights = np.array([trait.weight for trait in personas.traits])
    values = scaled / weights
    medians = np.stack([np.median(values[places == place], axis=0) for place in range(len(personas.ids))])
    apart = medians - np.median(values, axis=0)
    rows = [_said(trait) for trait in personas.traits]
    figure = Figure(figsize=(2.6 + 1.1 * len(personas.ids) + 1.6, 1.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(apart.T, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -_MOST, _MOST), aspect="auto")
    for (column, row), value in np.ndenumerate(apart):
        axes.text(
            column,
            row,
            f"{round(value, 1) + 0.0:+.1f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if abs(value) > 1.3 else "black",
        )
    names = [f"{number}: {name.replace(' ', chr(10))}" for number, name in zip(personas.ids, personas.names, strict=True)]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(f"Persona profile, {len(scaled):,} users", fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.6, label="median beside everybody's,\nin standard deviations")
    return figure


def _said(trait: Trait) -> str:
    return trait.feature.replace("_", " ")


def _wrapped(text: str, width: int = 68) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
