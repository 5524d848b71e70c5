"""The `targets` section of a config: what is predicted, who is asked about, and how its score is used."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from features.contract import COLUMNS, PURCHASE, SQL_TYPES
from features.expressions import typed_condition
from features.labels import Eligible, Measure, Target
from pipeline.strict import Duration, Lookback, Name, Strict, as_value_error
from pipeline.training_settings import BANDS_TOLD, BandSettings, ContactSettings

if TYPE_CHECKING:
    from models.bands import Bands

EVENT_TYPES = {name: SQL_TYPES[kind] for name, kind in COLUMNS.items()}
EventCondition = Annotated[str, AfterValidator(as_value_error(lambda sql: typed_condition(sql, EVENT_TYPES)))]
PURCHASES = f"event_type = '{PURCHASE}'"


class EligibleSettings(Strict):
    """Who a target is asked about."""

    active_within: Lookback = Field(description="Users with a matching event this shortly before the cutoff, or `ever`.")
    events: EventCondition = Field(PURCHASES, description="Which events count as activity.")
    until: EventCondition | None = Field(
        None, description="Which events end it, such as a cancellation: who had one since the last activity is not asked about."
    )

    def conditions(self) -> dict[str, str]:
        """Give the conditions over events, by key."""
        return {"events": self.events} | ({"until": self.until} if self.until else {})

    def spec(self) -> Eligible:
        """Give whom `features` asks about."""
        return Eligible(self.active_within, self.events, self.until)


class _Target(Strict):
    # How it is learned and used, not what the label means; see `pipeline.training_settings`.
    _USE: ClassVar = {"contact", "bands", "monotone"}

    name: Name = Field(description="Names the score, its columns and its registered model.")
    horizon: Duration = Field(description="How far ahead the label looks.")
    events: EventCondition = Field(PURCHASES, description="SQL condition over event columns: what is counted.")
    eligible: EligibleSettings = Field(description="Who is asked about.")
    meaning: str = Field("", description="What a high score means, in a few words.")
    contact: ContactSettings | None = Field(None, description="What contacting a user may bring and costs, for measures of use.")
    bands: BandSettings = Field("fifths", description=BANDS_TOLD)
    monotone: dict[Name, Literal["up", "down"]] = Field(
        {}, description="Features with which the score may only rise (up) or only fall (down)."
    )

    @model_validator(mode="after")
    def _capacity_is_there(self) -> Self:
        if self.bands == "capacity" and (self.contact is None or self.contact.capacity is None):
            raise ValueError("bands: capacity needs contact.capacity: how many users can be contacted")
        return self

    def conditions(self) -> dict[str, str]:
        """Give the conditions over events, by key path."""
        return {"events": self.events} | {f"eligible.{key}": told for key, told in self.eligible.conditions().items()}

    def banded(self) -> "Bands":
        """Give what very_low to very_high mean."""
        # Here, since showing a night needs no statistics.
        from models.bands import Bands

        if self.bands == "capacity" and self.contact is not None:
            return Bands(capacity=self.contact.capacity)
        return Bands(cuts=self.bands) if isinstance(self.bands, tuple) else Bands()

    def spec(self) -> Target:
        """Give the target that `features` labels."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in {"eligible", *self._USE}}
        return Target(**own, eligible=self.eligible.spec())


class AbsenceSettings(_Target):
    """Label 1: nothing matching `events` happens in the horizon."""

    kind: Literal["absence"]


class OccurrenceSettings(_Target):
    """Label 1: at least `min_count` matching events happen in the horizon."""

    kind: Literal["occurrence"]
    min_count: int = Field(1, ge=1, description="How many matching events make it so.")


class GrowthSettings(_Target):
    """Label 1: the sum of `measure` in the horizon is at least `ratio` times its own trailing average per horizon."""

    kind: Literal["growth"]
    measure: Measure = Field("amount", description="Event column that is summed.")
    ratio: float = Field(1.25, gt=0, description="How many times the trailing average.")
    trailing: Duration = Field(
        timedelta(days=84),
        description="Window of the trailing average: all of it, also for users known for less, who grow more easily.",
    )


class FirstSettings(_Target):
    """Label 1: a matching event happens in the horizon, after none in `lookback`; only users with none are asked about."""

    kind: Literal["first"]
    lookback: Lookback = Field(timedelta(days=84), description="How long there was no matching event, or `ever`.")


class ValueSettings(_Target):
    """Label: the sum of `measure` in the horizon; the score is an expected amount."""

    kind: Literal["value"]
    measure: Measure = Field("amount", description="Event column that is summed.")


TargetSettings = Annotated[
    AbsenceSettings | OccurrenceSettings | GrowthSettings | FirstSettings | ValueSettings, Field(discriminator="kind")
]
