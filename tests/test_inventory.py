"""What a log holds that features are named after: which types, measures and values count, and that models remember them."""

import ibis.expr.types as ir
import pytest
from ibis.backends.sql import SQLBackend

from builders import DAY, WINDOWS, at, events, load_events
from features.build import build_features
from features.catalogue import phrase
from features.contract import COLUMNS
from features.declare import Wanted, declared
from features.inventory import NOTHING, Inventory, beside, take_inventory, united

CUTOFF = at("2024-03-01")


def told(engine: SQLBackend, *rows: dict[str, object]) -> ir.Table:
    when = {"user_id": "ann", "event_ts": CUTOFF - DAY}
    return load_events(engine, events(*({**when, **row} for row in rows)))


def test_measures_are_those_that_tell_events_of_an_unknown_type_apart(engine: SQLBackend) -> None:
    rows = [
        {"event_type": "quiz", "quantity": 3.0, "amount": 1.0},
        {"event_type": "quiz", "quantity": 4.0, "amount": 1.0},
        {"event_type": "wave"},
        {"event_type": "purchase", "quantity": 1.0, "amount": 5.0},
        {"event_type": "purchase", "quantity": 2.0, "amount": 6.0},
    ]
    log = told(engine, *rows)
    assert take_inventory(log, COLUMNS, None).measures == {"quiz": ("quantity",), "wave": ()}
    assert take_inventory(log, ["amount"], None).measures == {"quiz": (), "wave": ()}


def test_the_most_frequent_types_count_and_of_equals_those_first_in_the_alphabet(engine: SQLBackend) -> None:
    log = told(engine, *({"event_type": f"type {number:02}"} for number in range(22)), {"event_type": "type 21"})
    found = take_inventory(log, COLUMNS, None)
    assert found.types == (*(f"type {number:02}" for number in range(19)), "type 21")


def test_values_are_those_of_most_users_and_several(engine: SQLBackend) -> None:
    def by(users: int, **told: object) -> list[dict[str, object]]:
        return [{"user_id": f"u{number}", "event_type": "quiz", "channel": "web", **told} for number in range(users)]

    found = take_inventory(
        told(
            engine,
            *(row for number in range(10) for row in by(40 - number, category=f"c{number}")),
            *by(20, source="ads"),
            *by(21, source="mail"),
            # Many events of few users might say who they are.
            *by(19, source="rare") * 10,
        ),
        COLUMNS,
        None,
    )
    # Eight of ten, and none of the one channel that tells nobody apart.
    assert found.categories == {"quiz": tuple(f"c{number}" for number in range(8))}
    assert found.values == {"source": ("ads", "mail")}


@pytest.mark.parametrize(
    ("quantities", "users", "columns", "found"),
    [
        ((1.0, 1.0), 20, COLUMNS, {}),
        ((1.0, 2.0), 20, COLUMNS, {"purchase": ("cups", "tea")}),
        ((1.0, 2.0), 20, {*COLUMNS} - {"quantity"}, {}),
        # What few users buy says nothing of it: all purchases are left.
        ((1.0, 2.0), 19, COLUMNS, {"purchase": ()}),
    ],
)
def test_purchases_are_told_by_category_where_their_quantities_differ(
    engine: SQLBackend, quantities: tuple[float, float], users: int, columns: set[str], found: dict[str, tuple[str, ...]]
) -> None:
    kinds = list(zip(quantities, ("tea", "cups"), strict=True))
    rows = [{"user_id": f"u{number}", "quantity": many, "category": kind} for number in range(users) for many, kind in kinds]
    assert take_inventory(told(engine, *rows), columns, None).categories == found


def test_what_looks_alike_in_names_is_named_once_and_what_models_know_stays(engine: SQLBackend) -> None:
    sources = {"Google": 22, "google": 21, "mail": 20}
    rows = [{"user_id": f"u{number}", "source": source} for source, users in sources.items() for number in range(users)]
    found = take_inventory(told(engine, *rows), COLUMNS, None)
    assert found.values == {"source": ("Google", "mail")}
    remembered = Inventory(categories={"quiz": ("hard",)}, values={"source": ("google", "mail")})
    assert beside(found, remembered).values == {"source": ("mail",)}
    # So neither a model of before nor one of now reads a column that means something else.
    names = declared(
        Wanted(WINDOWS, families=("sources",)), COLUMNS, inventory=united([beside(found, remembered), remembered])
    ).names
    assert "first_source_is_google" in names


def test_an_empty_log_holds_nothing(engine: SQLBackend) -> None:
    assert take_inventory(told(engine, {"event_type": "purchase"}), COLUMNS, None) == NOTHING


def test_inventories_unite_in_one_order() -> None:
    one, other = (
        Inventory({"quiz": ("quantity",)}, values={"plan": ("b",)}),
        Inventory({"quiz": ("amount",)}, values={"plan": ("a",)}),
    )
    both = Inventory({"quiz": ("amount", "quantity")}, {}, {"plan": ("a", "b")})
    assert united([one, other]) == united([other, one, NOTHING]) == both


def test_names_are_told_apart_and_what_is_not_known_stays_so(engine: SQLBackend) -> None:
    held = Inventory(values={"source": ("ads", "mail")})
    log = events(
        {"user_id": "ann", "event_ts": CUTOFF - DAY, "source": "ads"},
        {"user_id": "bob", "event_ts": CUTOFF - DAY, "source": "new tonight"},
        {"user_id": "cem", "event_ts": CUTOFF - DAY},
    )
    asked = declared(Wanted(WINDOWS, families=("sources",)), COLUMNS, inventory=held)
    found = engine.execute(build_features(engine, load_events(engine, log), asked, [CUTOFF])).set_index("user_id")
    assert found.first_source_is_ads[["ann", "bob"]].tolist() == [1.0, 0.0] and found.first_source_is_ads.isna()["cem"]
    assert found.first_source_is_mail["bob"] == 0.0
    (feature,) = (feature for feature in asked.features if feature.name == "first_source_is_ads")
    by_name = {feature.name: feature}
    said = [phrase(feature, {feature.name: value}, by_name, typical=0.0) for value in (1.0, 0.0, None)]
    assert said == ["first source is ads", "first source is not ads", "no source known"]


@pytest.mark.parametrize(("aside", "read"), [((), True), (("plan",), False)])
def test_models_leave_attributes_alone_that_are_aside(aside: tuple[str, ...], read: bool) -> None:  # noqa: FBT001 - a parameter
    wanted = Wanted(WINDOWS, families=(), attributes={"plan": False, "age": True}, aside=frozenset(aside))
    numbers = {feature.name for feature in declared(wanted, COLUMNS, inventory=Inventory(values={"plan": ("gold",)})).numbers}
    assert ("plan_is_gold" in numbers) == read and "age" in numbers


def test_values_of_one_name_and_names_that_are_taken_keep_apart() -> None:
    wanted = Wanted(WINDOWS, families=(), attributes={"plan": False, "plan_is_gold": True})
    names = declared(wanted, COLUMNS, inventory=Inventory(values={"plan": ("Gold", "gold", "!")})).names
    own = [name for name in names if name.startswith("plan_is_")]
    assert len(own) == len(set(own)) == 4


def test_names_of_families_that_are_left_out_are_not_built() -> None:
    held = Inventory(values={"source": ("ads",)})
    assert not [name for name in declared(Wanted(WINDOWS, families=("region",)), COLUMNS, inventory=held).names if "source" in name]
