"""Contacts for caps: counted in the windows of the plays alone, and never read by a model."""

import pytest
from ibis.backends.sql import SQLBackend

from builders import DAY, HOUR, TICK, WINDOWS, at, events, load_events
from features.build import build_features
from features.contract import COLUMNS
from features.declare import FeatureSet, Wanted, declared
from features.event_types import KNOWN
from features.families.contacts import RECENCY, counted

CUTOFF = at("2024-03-01")
CAMPAIGN = "campaign_received"
PER = (36 * HOUR, 14 * DAY, 60 * DAY)
NAMES = ["contacted_count_36h", "contacted_count_14d", "contacted_count_60d", "contacted_recency_days"]


def asked(contacts: tuple | None = PER, types: frozenset[str] = frozenset(KNOWN)) -> FeatureSet:
    return declared(Wanted(WINDOWS, families=("loyalty",), contacts=contacts), COLUMNS, types)


def test_contacts_are_counted_from_the_start_of_a_window_up_to_the_cutoff(duckdb_engine: SQLBackend) -> None:
    log = events(
        ("edges", CUTOFF - 60 * DAY - TICK, None, CAMPAIGN),
        ("edges", CUTOFF - 60 * DAY, None, CAMPAIGN),
        ("edges", CUTOFF - 14 * DAY, None, CAMPAIGN),
        ("edges", CUTOFF - 36 * HOUR, None, CAMPAIGN),
        ("edges", CUTOFF, None, CAMPAIGN),
        ("just outside", CUTOFF - 36 * HOUR - TICK, None, CAMPAIGN),
        ("just outside", CUTOFF - 36 * HOUR - TICK, None, CAMPAIGN),
        ("answered", CUTOFF - 2 * DAY, None, "campaign_opened"),
        ("bought", CUTOFF - DAY, 5.0),
    )
    table = build_features(duckdb_engine, load_events(duckdb_engine, log), asked(), [CUTOFF])
    found = duckdb_engine.execute(table).set_index("user_id").sort_index()[NAMES].astype(object)
    assert {user: tuple(row) for user, row in found.where(found.notna(), None).iterrows()} == {
        # What the user did in answer is no contact.
        "answered": (0.0, 0.0, 0.0, None),
        "bought": (0.0, 0.0, 0.0, None),
        "edges": (1.0, 2.0, 3.0, 1.5),
        "just outside": (0.0, 2.0, 2.0, pytest.approx(1.5, abs=1e-9)),
    }


def test_models_read_no_contacts_of_plays() -> None:
    names = [feature.name for feature in asked().features]
    assert names[-4:] == NAMES
    assert [feature.name for feature in asked().numbers] == names[:-4]


@pytest.mark.parametrize(
    ("contacts", "types", "expected"),
    [
        (None, frozenset(KNOWN), []),
        # Plays without caps still rest.
        ((), frozenset(KNOWN), [RECENCY]),
        (PER, frozenset(KNOWN) - {CAMPAIGN}, []),
        ((14 * DAY,), frozenset(KNOWN), [counted(14 * DAY), RECENCY]),
    ],
    ids=["no plays", "no caps", "no contacts in the events", "a cap"],
)
def test_contacts_are_built_for_plays_where_events_tell_of_them(
    contacts: tuple | None, types: frozenset[str], expected: list[str]
) -> None:
    assert [feature.name for feature in asked(contacts, types).features if feature.is_aside] == expected
