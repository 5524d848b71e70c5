"""What every section of a config shares: unknown keys are errors, and what a check says is collected with its key path."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints

from features.errors import ConfigError
from features.windows import duration, label, lookback


class Strict(BaseModel):
    """A section of a config: frozen, and refusing keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def as_value_error(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let pydantic collect what a check says: it gathers ValueErrors with their key paths."""

    def checked(value: Any) -> Any:
        try:
            return check(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    return checked


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Lookback = Annotated[timedelta, BeforeValidator(as_value_error(lookback)), PlainSerializer(label)]
Duration = Annotated[timedelta, BeforeValidator(as_value_error(duration)), PlainSerializer(label)]
