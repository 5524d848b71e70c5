"""Personas on planted groups: found, named, kept over retrainings, and told."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from ibis import _
from sklearn.metrics import silhouette_score
from typer.testing import CliRunner

from features.catalogue import Base, Feature
from features.errors import ConfigError, GateError
from models.bundle import PersonaBundle, load
from models.persona_choice import Tried, choose
from models.persona_matching import Change, Matching, agreement, match
from models.persona_names import is_true, name_personas, set_apart
from models.persona_traits import Trait, fit_traits, scale
from models.personas import Personas, fit_personas
from pipeline.cli import app
from pipeline.persona_figures import persona_figures
from pipeline.persona_page import change_params, persona_metrics, persona_page, told_changes
from shops import shop_config, write_orders


def feature(
    name: str, high: str | None, low: str | None = None, *, base: Base = "row", unit: str = "times", group: str | None = None
) -> Feature:
    said = {"meaning": name, "phrase": f"{{value}} {name}"}
    return Feature(name=name, base=base, expr=_.x, unit=unit, group=group or name, high=high, low=low, **said)


TRAITS = (
    feature("often", "frequent", "occasional", group="frequency"),
    feature("late", "evening", group="timing"),
    feature("silent", None),
)


def people(*groups: tuple[int, float, float], seed: int = 0) -> pd.DataFrame:
    """Make users in groups of a size, around a number of purchases and a share of evenings."""
    random = np.random.default_rng(seed)
    rows = [
        (random.poisson(often), np.clip(late + random.normal(0, 0.05), 0, 1), 1.0)
        for count, often, late in groups
        for _user in range(count)
    ]
    return pd.DataFrame(rows, columns=["often", "late", "silent"])


THREE = ((60, 50, 0.2), (40, 3, 0.9), (30, 3, 0.1))


def fit(
    frame: pd.DataFrame,
    features: Sequence[Feature] = TRAITS,
    *,
    most: int = 5,
    fewest: int = 2,
    smallest_share: float = 0.05,
    names: dict[int, str] | None = None,
    former: Personas | None = None,
) -> tuple[Personas, Matching | None]:
    return fit_personas(
        frame, features, fewest=fewest, most=most, smallest_share=smallest_share, stability=0.9, names=names, former=former, seed=1
    )


@pytest.fixture(scope="module")
def three() -> Personas:
    return fit(people(*THREE))[0]


def test_planted_personas_are_found_named_and_ordered_by_size(three: Personas) -> None:
    assert (three.features, three.ids, three.next_id) == (("often", "late"), (0, 1, 2), 3)
    assert three.names == ("frequent buyers", "occasional evening buyers", "occasional buyers")
    assert three.descriptions[1] == "0.9 times late (typically 0.2 times); 3.0 times often (typically 6.0 times)"
    assert three.shares == pytest.approx((60 / 130, 40 / 130, 30 / 130))
    np.testing.assert_array_equal(three.assign(people(*THREE)), [0] * 60 + [1] * 40 + [2] * 30)
    chosen = three.tried[1]
    assert (chosen.k, chosen.stability, chosen.kept, chosen.smallest) == (3, 1.0, 1.0, pytest.approx(30 / 130))
    reference = silhouette_score(scale(people(*THREE), three.traits), three.assign(people(*THREE)))
    assert chosen.silhouette == pytest.approx(reference)


def test_the_order_of_users_does_not_matter(three: Personas) -> None:
    mixed = people(*THREE).sample(frac=1, random_state=5)
    again, _matching = fit(mixed)
    assert (again.names, again.shares, again.why) == (three.names, three.shares, three.why)
    np.testing.assert_allclose(again.centroids, three.centroids)
    np.testing.assert_array_equal(again.assign(people(*THREE)), three.assign(people(*THREE)))


def test_a_rare_persona_is_not_one_of_its_own() -> None:
    found, _matching = fit(people(*THREE, (1, 10_000, 0.2)), most=6, smallest_share=0.1)
    assert min(found.shares) >= 0.1


def test_too_few_users_for_personas() -> None:
    with pytest.raises(
        GateError, match=r"^personas.fewest: 15 users who bought, .* too few for 4 personas: at least 40 are needed"
    ):
        fit(people(*THREE).head(15), fewest=4)


def test_users_who_are_all_alike_have_no_personas() -> None:
    with pytest.raises(GateError, match="no feature tells the users apart"):
        fit(people((1, 3, 0.5)).loc[[0] * 40])


def test_there_are_no_more_personas_than_users_who_differ() -> None:
    two = pd.DataFrame({"often": [1.0] * 40 + [9.0] * 30, "late": 0.5, "silent": 1.0})
    found, _matching = fit(two, fewest=4, most=5)
    assert found.shares == pytest.approx((4 / 7, 3 / 7))


# Traits.


def test_ten_traits_that_say_the_same_weigh_as_much_as_one() -> None:
    random = np.random.default_rng(1)
    spend, late = random.normal(size=(2, 2_000))
    frame = pd.DataFrame({**{f"spend_{at}": spend * (at + 1) for at in range(10)}, "late": late})
    traits = fit_traits(frame, [feature(name, "much") for name in frame])
    assert [trait.weight for trait in traits] == pytest.approx([10**-0.5] * 10 + [1.0], rel=0.01)
    spread = scale(frame, traits).var(axis=0)
    assert spread[:10].sum() == pytest.approx(spread[10], rel=0.02)


def test_a_share_counts_by_the_purchases_behind_it() -> None:
    orders = feature("late", "evening", base="orders", unit="share")
    frame = pd.DataFrame({"late": [1.0, 1.0, 0.0, 0.0, None], "purchases": [1.0, 16.0, 1.0, 16.0, 0.0]})
    (trait,) = fit_traits(frame, [orders], purchases="purchases")
    tamed = np.array([(1 + 2) / 5, (16 + 2) / 20, 2 / 5, 2 / 20, 0.5])
    np.testing.assert_allclose(scale(frame, [trait])[:, 0], (tamed - 0.5) / (tamed - 0.5).std())
    assert fit_traits(frame, [orders])[0].evidence is None


def test_a_long_tail_is_tamed_whatever_its_unit() -> None:
    spent = pd.DataFrame({"spent": np.random.default_rng(2).lognormal(3, 1.5, 500)})
    dollars, cents = (fit_traits(frame, [feature("spent", "high-spending")]) for frame in (spent, spent * 100))
    assert dollars[0].is_logged
    np.testing.assert_allclose(scale(spent, dollars), scale(spent * 100, cents))
    assert np.abs(scale(spent, dollars)).max() < 4


@pytest.mark.parametrize(("doing", "is_told"), [(1, False), (9, False), (10, True)])
def test_what_hardly_anybody_does_sets_nobody_apart(doing: int, is_told: bool) -> None:
    frame = people(*THREE).sample(1_000, replace=True, random_state=1).assign(left=[1.0] * doing + [0.0] * (1_000 - doing))
    traits = fit_traits(frame, [*TRAITS[:2], feature("left", "leaving")])
    assert [trait.feature for trait in traits] == ["often", "late", *(["left"] if is_told else [])]


def test_only_behaviour_is_a_trait() -> None:
    frame = pd.DataFrame({"age": [20.0, 30.0, 50.0], "often": [1.0, 2.0, 9.0], "silent": [1.0, 5.0, 2.0]})
    traits = fit_traits(frame, [feature("age", "older", base="attributes"), *TRAITS[::2]])
    assert [trait.feature for trait in traits] == ["often"]


# The choice of the number.


def tried(k: int, silhouette: float, stability: float, kept: float, smallest: float = 0.2) -> Tried:
    return Tried(k, silhouette, stability, kept, smallest)


@pytest.mark.parametrize(
    ("curve", "former", "k", "why"),
    [
        ([tried(4, 0.30, 0.9, 0.95), tried(5, 0.40, 0.7, 0.91)], None, 5, "silhouette .0.40. is the best of those that do so"),
        ([tried(4, 0.30, 0.9, 0.95), tried(5, 0.40, 0.7, 0.89)], None, 4, "95% of the users keep"),
        ([tried(4, 0.395, 0.9, 0.95), tried(5, 0.40, 0.7, 0.95)], None, 4, "agree on it most"),
        ([tried(4, 0.395, 0.9, 0.95), tried(5, 0.40, 0.7, 0.95)], 5, 5, "as many before"),
        ([tried(4, 0.395, 0.9, 0.95), tried(5, 0.40, 0.7, 0.81)], 5, 5, "as many before"),
        ([tried(4, 0.395, 0.9, 0.95), tried(5, 0.40, 0.7, 0.79)], 5, 4, "the best of those that do so"),
        ([tried(4, 0.30, 0.9, 0.80), tried(5, 0.40, 0.7, 0.85)], None, 5, "no number keeps 90% .* 5 keeps most, 85.0%"),
        (
            [tried(4, 0.30, 0.9, 0.95, 0.03), tried(5, 0.40, 0.7, 0.95, 0.01)],
            None,
            4,
            "has 3.0% of the users, less than .*; no number tried .4 to 5. leaves more",
        ),
        ([tried(4, 0.30, 0.9, 0.91, 0.06), tried(5, 0.40, 0.7, 0.95, 0.04)], None, 4, "91% of the users keep"),
    ],
)
def test_the_number_is_chosen(monkeypatch: pytest.MonkeyPatch, curve: list[Tried], former: int | None, k: int, why: str) -> None:
    by_k = {one.k: one for one in curve}
    monkeypatch.setattr("models.persona_choice._try", lambda _scaled, k, _centroids, _seed: by_k[k])
    users = np.random.default_rng(0).normal(size=(60, 2))
    start = None if former is None else users[:former]
    found = choose(users, [4, 5], smallest_share=0.05, stability=0.9, seed=1, start=start)
    assert (found.k, found.tried, len(found.centroids)) == (k, tuple(curve), k)
    assert pd.Series(found.why).str.contains(why).all()


# Matching.


def test_agreement_does_not_depend_on_the_numbers() -> None:
    assert agreement(np.array([0, 0, 1, 1, 2, 2]), np.array([2, 2, 0, 0, 1, 0]), k=3) == pytest.approx(5 / 6)


def matched(former: str, found: str, *, ids: Sequence[int] = (0, 1, 2), next_id: int = 3) -> Matching:
    """Match users who were in the personas of `former` (a letter each) and are in those of `found`."""
    before, now = [np.array([ord(letter) - ord("a") for letter in word]) for word in (former, found)]
    scaled = np.stack([before, now], axis=1).astype("float64")
    return match(before, now, scaled, former_ids=ids, count=int(now.max()) + 1, next_id=next_id)


def test_new_numbers_are_the_old_people() -> None:
    assert matched("aaabbbcc", "bbbaaacc", ids=(7, 2, 5), next_id=9) == Matching((2, 7, 5), 1.0, ())


def test_a_split_keeps_the_id_with_the_larger_part() -> None:
    found = matched("aaaaaaaabbbb", "aaabbbbbcccc", ids=(4, 6), next_id=8)
    assert found == Matching((8, 4, 6), 9 / 12, (Change("split", 8, 4, 1.0),))


def test_a_merger_keeps_the_id_of_the_larger_part() -> None:
    assert matched("aaabbbbbcccc", "aaaaaaaabbbb") == Matching((1, 2), 9 / 12, (Change("merged", 0, 1, 1.0),))


def test_a_persona_of_people_from_everywhere_is_new_and_one_that_scatters_is_gone() -> None:
    assert matched("aaaabbbbcccc", "aaadbbbdcccd").changes == (Change("new", 3),)
    assert matched("aaaabbbbccdd", "aaaabbbbabab", ids=(0, 1, 2, 3), next_id=4).changes == (Change("gone", 2), Change("gone", 3))


def test_without_any_shared_trait_everybody_is_new() -> None:
    found = match(None, np.array([0, 1]), np.zeros((2, 1)), former_ids=(0,), count=2, next_id=1)
    assert found == Matching((1, 2), 0.0, (Change("new", 1), Change("new", 2), Change("gone", 0)))


# Training again.


def test_ids_and_names_stay_with_the_people(three: Personas) -> None:
    # Now the evening users are the most, so they are the first by size, and are still persona 1.
    frame = people((40, 50, 0.2), (60, 3, 0.9), (30, 3, 0.1), seed=3)
    again, matching = fit(frame, former=three)
    assert (again.ids, again.next_id) == ((1, 0, 2), 3)
    assert again.names == ("occasional evening buyers", "frequent buyers", "occasional buyers")
    assert matching == Matching((1, 0, 2), 1.0, ())
    np.testing.assert_array_equal(again.assign(frame), [0] * 40 + [1] * 60 + [2] * 30)


def test_a_persona_that_splits_off_has_a_name_and_an_id_of_its_own(three: Personas) -> None:
    frame = people((60, 50, 0.2), (40, 3, 0.9), (30, 3, 0.1), (25, 50, 0.6), seed=3)
    again, matching = fit(frame, former=three)
    assert matching is not None
    assert (again.ids, again.next_id) == ((0, 1, 2, 3), 4)
    assert again.names[:3] == three.names and len(set(again.names)) == 4
    (change,) = matching.changes
    assert (change.kind, change.persona, change.other) == ("split", 3, 0)
    assert list(told_changes(again, three, matching)) == [
        f"{matching.kept:.1%} of the users keep their persona",
        f"persona 3 ({again.names[3]}) split off from 0 (frequent buyers): {change.share:.0%} of its users were there",
    ]
    assert change_params(matching) == {
        "personas_new": "none", "personas_split": "3", "personas_merged": "none", "personas_gone": "none",
        "personas_renamed": "none",
    }  # fmt: skip
    assert persona_metrics(again, matching)["users_who_keep_theirs"] == matching.kept


def test_an_id_is_never_used_again(three: Personas) -> None:
    fewer, _matching = fit(people((60, 50, 0.2), (40, 3, 0.9), seed=3), former=three)
    assert (fewer.ids, fewer.next_id) == ((0, 1), 3)
    more, matching = fit(people(*THREE, seed=4), former=fewer)
    assert (more.ids, more.next_id) == ((0, 1, 3), 4)
    assert matching is not None and [change.persona for change in matching.changes] == [3]


def test_former_personas_of_other_traits_are_known_by_those_that_are_left(three: Personas) -> None:
    frame = people(*THREE, seed=2).drop(columns="late").assign(late_too=lambda found: np.where(found.index < 100, 0.2, 0.9))
    again, matching = fit(frame, [TRAITS[0], feature("late_too", "late")], former=three)
    assert again.ids[0] == 0 and again.names[0] == "frequent buyers"
    assert matching is not None and 0.4 < matching.kept < 1


def test_names_of_the_config_win(three: Personas) -> None:
    again, _matching = fit(people(*THREE), names={1: "night owls"})
    assert again.names == ("frequent buyers", "night owls", "occasional buyers")
    # A name that the config gives to another persona is free to go: whoever had it gets a new one.
    swapped, _matching = fit(people(*THREE), names={1: "frequent buyers"}, former=three)
    assert swapped.names[1] == "frequent buyers"
    assert len(set(swapped.names)) == 3


def test_a_name_goes_when_it_is_no_longer_true_unless_the_config_gives_it(three: Personas) -> None:
    before = replace(three, names=("evening buyers", *three.names[1:]))
    again, matching = fit(people(*THREE), former=before)
    assert (again.names, matching) == (three.names, Matching((0, 1, 2), 1.0, (Change("renamed", 0),)))
    kept, matching = fit(people(*THREE), former=before, names={0: "evening buyers"})
    assert (kept.names, matching) == (before.names, Matching((0, 1, 2), 1.0, ()))


def test_a_name_of_no_persona_is_refused(three: Personas) -> None:
    with pytest.raises(ConfigError, match=r"^personas\.names\.3: there is no persona 3; there are 0, 1, 2\npersonas\.names\.9: "):
        fit(people(*THREE), names={9: "nine", 3: "three"})
    # One that is gone may keep its name in the config.
    fit(people((60, 50, 0.2), (40, 3, 0.9)), names={2: "gone"}, former=three)


# Names.


def trait(name: str, high: str | None, low: str | None, group: str) -> Trait:
    return Trait(name, high, low, is_logged=False, fill=0.0, centre=0.0, spread=1.0, group=group)


WORDS = (
    trait("weekend", "weekend", "weekday", "timing"),
    trait("evening", "evening", None, "timing"),
    trait("discount", "bargain", "full-price", "promotion"),
    trait("price", "premium", "budget", "price"),
    trait("count", "frequent", "occasional", "frequency"),
)


@pytest.mark.parametrize(
    ("apart", "name"),
    [
        ((1.0, 0.0, 0.9, 0.0, 0.3), "weekend bargain buyers"),
        ((0.0, 0.0, 0.0, 0.0, -2.0), "occasional buyers"),
        # Neither two times, nor a premium bargain.
        ((0.8, 1.0, 0.6, 0.0, 0.0), "evening bargain buyers"),
        ((0.0, 0.0, 0.8, 0.9, 0.7), "frequent premium buyers"),
        ((0.0, -1.0, 0.1, 0.0, 0.0), "typical buyers"),
        ((0.25, 0.0, 0.0, 0.0, 0.0), "typical buyers"),
    ],
)
def test_a_name_says_what_is_strongest_and_nothing_twice(apart: tuple[float, ...], name: str) -> None:
    assert name_personas(np.array([apart]), WORDS, given={}, taken=set(), noun="buyers") == (name,)


def test_names_are_unique() -> None:
    apart = np.array([(1.0, 0.0, 0.9, 0.0, 0.3), (1.0, 0.0, 0.9, 0.0, 0.0), (1.0, 0.0, 0.9, 0.0, -0.3), (0,) * 5, (0,) * 5])
    assert name_personas(apart, WORDS, given={1: "frequent weekend bargain buyers"}, taken={"typical buyers"}, noun="buyers") == (
        "weekend bargain buyers",
        "frequent weekend bargain buyers",
        "occasional weekend bargain buyers",
        "typical buyers (2)",
        "typical buyers (3)",
    )


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("weekend bargain buyers", True),
        ("evening bargain buyers", False),
        ("full-price buyers", False),
        ("frequent bargain buyers", True),
        ("typical buyers", True),
        ("weekend families of ours", True),
    ],
)
def test_a_name_is_true_while_each_of_its_words_is(name: str, *, true: bool) -> None:
    assert is_true(name, np.array([0.5, 0.05, 0.15, 0.0, 0.3]), WORDS) is true


def test_what_is_said_of_a_persona_holds_for_its_mean_and_its_median() -> None:
    frame = pd.DataFrame({"few": [0.0] * 3 + [9.0] + [0.0] * 4, "much": [1.0] * 4 + [5.0] * 4, "near": [100.0] * 4 + [105.0] * 4})
    traits = [trait(name, "high", "low", name) for name in frame]
    apart = set_apart(frame, frame.to_numpy(), np.array([0] * 4 + [1] * 4), traits)
    np.testing.assert_allclose(apart, [(0.0, -2.0, 0.0), (0.0, 2.0, 0.0)])


# Bundles.


def test_typicality_is_the_share_of_the_persona_that_lies_no_nearer(three: Personas) -> None:
    frame = people(*THREE)
    told = PersonaBundle(three).predict(frame)
    assert list(told.columns) == ["persona", "persona_name", "persona_typicality"]
    scaled, centres = scale(frame, three.traits), np.asarray(three.centroids)
    for place in range(3):
        own = told[told.persona == place]
        apart = np.sqrt(((scaled[own.index] - centres[place]) ** 2).sum(axis=1))
        plain = np.array([(apart >= each - 1e-9).mean() for each in apart])
        np.testing.assert_allclose(own.persona_typicality, plain, atol=0.035)
        assert own.persona_typicality.max() == 1.0
        falls = own.persona_typicality.to_numpy()[np.argsort(apart, kind="stable")]
        assert (np.diff(falls) <= 1e-12).all()
    far = PersonaBundle(three).predict(pd.DataFrame({"often": [1e6], "late": [0.2]}))
    assert (far.persona[0], far.persona_typicality[0]) == (0, 0.0)


def test_users_at_one_place_are_all_most_typical() -> None:
    two = pd.DataFrame({"often": [1.0] * 40 + [9.0] * 30, "late": 0.5, "silent": 1.0})
    assert (PersonaBundle(fit(two)[0]).predict(two).persona_typicality == 1.0).all()


def test_a_night_without_buyers_has_nobody_to_place(three: Personas) -> None:
    assert PersonaBundle(three).predict(people(*THREE).head(0)).empty


def test_personas_survive_their_folder(tmp_path: Path, three: Personas) -> None:
    PersonaBundle(three).save(tmp_path / "bundle")
    loaded = load(tmp_path / "bundle")
    assert loaded == PersonaBundle(three)
    assert isinstance(loaded, PersonaBundle) and loaded.digest == PersonaBundle(three).digest


def test_personas_of_an_earlier_release_still_speak(tmp_path: Path) -> None:
    old = {"feature": "often", "high": "frequent", "low": "rare", "is_logged": True, "fill": 2.0, "centre": 3.0, "spread": 0.5}
    told = {"traits": [old], "centroids": [[1.0], [-1.0]], "names": ["frequent", "rare"], "shares": [0.6, 0.4]}
    head = {"format": 2, "kind": "personas", "personas": {**told, "silhouettes": {"2": 0.5}}}
    (tmp_path / "bundle.json").write_text(json.dumps(head))
    loaded = load(tmp_path)
    assert isinstance(loaded, PersonaBundle)
    assert (loaded.personas.ids, loaded.personas.next_id, loaded.personas.tried) == ((0, 1), 2, (Tried(2, 0.5),))
    # log(1 + 60) is 4.1, which is 2.2 spreads above; a null is 2, and log(1 + 2) is 1.1.
    expected = pd.DataFrame(
        {"persona": [0, 1, 1], "persona_name": ["frequent", "rare", "rare"], "persona_typicality": [np.nan] * 3}
    )
    found = loaded.predict(pd.DataFrame({"often": [60.0, 0.0, np.nan]}))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    # And are found again by a training of this release.
    again, matching = fit(people(*THREE), former=loaded.personas)
    assert set(again.ids) == {0, 1, 2} and matching is not None and matching.kept > 0.5


# What is told.


def test_the_page_tells_who_they_are_and_how_they_were_chosen(three: Personas) -> None:
    page = persona_page(three, None, None, users=130)
    assert "3 groups of users who behave alike, found among the 130 users" in page
    assert f"| 1 | occasional evening buyers | 30.8% | {three.descriptions[1]} |" in page
    assert f"\n3: {three.why}.\n" in page and "\n| 3 | 0." in page and "| 1.00 | 100.0% | 23.1% |\n" in page
    assert "is low" not in page and page.endswith("There were no personas before.\n")
    assert persona_metrics(three, None).keys() == {
        f"{name}_k{k}" for k in range(2, 6) for name in ("silhouette", "stability", "kept", "smallest")
    }
    flat = replace(three, tried=(Tried(3, 0.24),))
    assert "A silhouette of 0.24 is low" in persona_page(flat, None, None, users=130)
    assert "| 3 | 0.240 | – | – | – |" in persona_page(flat, None, None, users=130)


def test_every_change_is_told_in_words(three: Personas) -> None:
    changes = (Change("new", 3), Change("split", 4, 0, 0.8), Change("merged", 1, 2, 0.7), Change("gone", 5), Change("renamed", 2))
    now = replace(three, ids=(0, 2, 3, 4), names=("frequent buyers", "occasional buyers", "weekend buyers", "app buyers"))
    before = replace(three, ids=(0, 1, 2, 5), names=("frequent buyers", "evening buyers", "rare buyers", "store buyers"))
    assert list(told_changes(now, before, Matching((0, 2, 3, 4), 0.625, changes))) == [
        "62.5% of the users keep their persona",
        "persona 3 (weekend buyers) is new",
        "persona 4 (app buyers) split off from 0 (frequent buyers): 80% of its users were there",
        "persona 1 (evening buyers) merged into 2 (occasional buyers), where 70% of its users are now",
        "persona 5 (store buyers) is gone: its users are in no one persona now",
        "persona 2 (occasional buyers) was called rare buyers, which is no longer true of it, or another's name now",
    ]
    assert list(told_changes(now, None, None)) == []


def test_figures_speak_in_words_and_show_no_user(three: Personas) -> None:
    users = people(*THREE).set_index(pd.Index([f"user{at}" for at in range(130)]))
    figures = persona_figures(three, users, TRAITS, seed=1)
    assert set(figures) == {"persona_count", "persona_map", "persona_profile"}
    legend = [text.get_text() for text in figures["persona_map"].legends[0].get_texts()]
    assert legend == ["0: frequent buyers (46%)", "1: occasional evening buyers (31%)", "2: occasional buyers (23%)"]
    assert "130 drawn of 130" in figures["persona_map"].axes[0].get_title()
    # Frequent buyers lie where the axis says frequent; of the others, one persona is of the evening.
    axes = figures["persona_map"].axes[0]
    centres = {text.get_text(): text.get_position()[0] for text in axes.texts}
    towards = axes.get_xlabel().strip("← →").split()
    assert (towards[0], towards[-1]) == (("occasional", "frequent") if centres["0"] > centres["1"] else ("frequent", "occasional"))
    assert "evening" in axes.get_ylabel()
    profile = figures["persona_profile"].axes[0]
    assert [label.get_text() for label in profile.get_yticklabels()] == ["often", "late"]
    heads = ["0: frequent buyers\n(46%)", "1: occasional\nevening buyers\n(31%)", "2: occasional\nbuyers\n(23%)"]
    assert [label.get_text() for label in profile.get_xticklabels()] == heads
    assert [len(line.get_xdata()) for line in figures["persona_count"].axes[1].lines[:3]] == [4, 4, 4]


def test_what_users_write_into_a_name_or_a_meaning_is_no_formula(three: Personas) -> None:
    often = replace(TRAITS[0], meaning="orders between $1_ and $5_ with {")
    figures = persona_figures(replace(three, names=("$a_ $", "b$_$", "c")), people(*THREE), (often, *TRAITS[1:]), seed=1)
    for figure in figures.values():
        figure.savefig(BytesIO(), format="png")


# Training from a config.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with two personas in charge."""
    folder = tmp_path_factory.mktemp("shop")
    write_orders(folder / "orders.csv")
    done = trained(folder, fewest=2, most=2)
    assert done.exit_code == 0, done.output
    return folder


def trained(folder: Path, **personas: object) -> Result:
    """Train with these settings of personas."""
    targets = [{"name": "churn_28d", "kind": "absence", "horizon": "28d", "eligible": {"active_within": "56d"}}]
    training = {"test_origins": 1, "calibration_origins": 1, "max_cutoffs": 4}
    few = {"windows": ["28d", "56d", "84d"]}
    config = shop_config(folder, targets=targets, training=training, features=few, segments=[], personas=personas)
    return CliRunner().invoke(app, ["train", "--config", str(config), "--as-of", "2024-09-01", "--json"])


def test_a_training_says_and_keeps_what_became_of_the_former_personas(folder: Path) -> None:
    done = trained(folder, fewest=4, most=4, names={0: "regulars of ours"})
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert {row["persona"]: row["name"] for row in told["personas"]}[0] == "regulars of ours"
    assert sorted(row["persona"] for row in told["personas"]) == [0, 1, 2, 3]
    assert [(change["kind"], change["persona"]) for change in told["persona_changes"]] == [("split", 2), ("split", 3)]
    said = done.stderr.splitlines()
    (page,) = (path for path in folder.rglob("personas.md") if "split off" in path.read_text())
    changes = page.read_text().partition("## Since the last training\n\n")[2].splitlines()
    assert len(changes) == 3 and "split off from 0 (regulars of ours)" in " ".join(changes)
    assert [line for line in said if line.startswith("  persona ")] == [f"  {line.removeprefix('- ')}" for line in changes[1:]]


def test_a_training_refuses_a_name_of_nobody_and_more_personas_than_users(folder: Path) -> None:
    wrong = trained(folder, fewest=2, most=2, names={9: "nobody"})
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "personas.names.9: there is no persona 9; there are 0, 1" in wrong.stderr
    write_orders(folder / "orders.csv", users=30)
    many = trained(folder, fewest=20, most=20)
    assert (many.exit_code, many.stdout) == (4, "")
    assert re.search(r"personas\.fewest: \d+ users .* are too few for 20 personas: at least 200 are needed", many.stderr)
