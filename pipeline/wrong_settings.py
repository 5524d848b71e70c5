"""What is wrong with a config: everything at once, each thing with its key path, what it is and what is allowed."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from features.errors import did_you_mean
from features.labels import Kind
from pipeline.strict import Strict


def wrong_lines(told: Any, error: ValidationError, check: Callable[[Any], object]) -> list[str]:
    """Give a line for everything that is wrong with what a file told, each once, starting with the key path.

    Rules are only looked at where all keys are right, so what is wrong is taken out and `check`, which raised the `error`, asked
    again.
    """
    return list(dict.fromkeys(_all_lines(deepcopy(told), error, check)))


def _all_lines(rest: Any, error: ValidationError, check: Callable[[Any], object]) -> Iterator[str]:
    first = [dict(problem) for problem in error.errors()]
    yield from (line for problem in first for line in _told(problem))
    wrong = [found["loc"] for found in error.errors()]
    while wrong and all([_taken_out(rest, path) for path in wrong]):
        try:
            check(rest)
            return
        except ValidationError as later:
            # What was taken out may be required; that it is missing now is our doing, and its section is taken out as well.
            yield from (line for found in later.errors() if found["type"] != "missing" for line in _told(dict(found)))
            wrong = [found["loc"][:-1] for found in later.errors() if found["type"] == "missing"]


def _taken_out(told: Any, path: tuple[int | str, ...]) -> bool:
    """Delete what a path leads to, a key of a mapping; whether that was possible."""
    *parents, last = path or ("",)
    for part in parents:
        if isinstance(told, list) and isinstance(part, int):
            told = told[part]
        elif isinstance(told, dict):
            # A kind that pydantic puts into the path is not in the file.
            told = told.get(part, told)
    return isinstance(told, dict) and told.pop(last, None) is not None


def _told(problem: dict[str, Any]) -> list[str]:
    # pydantic puts the kind into the path of what has kinds: targets.0.growth.ratio, engine.spark.master.
    is_engine = problem["loc"][:1] == ("engine",)
    kinds, tag, thing = (("duckdb", "spark"), 1, "engine") if is_engine else (get_args(Kind), 2, "target")
    tagged = problem["loc"][:1] in (("targets",), ("engine",)) and problem["loc"][tag:][:1] in [(kind,) for kind in kinds]
    # A wrong key is named by itself, with a mark behind it.
    path = [part for number, part in enumerate(problem["loc"]) if not (tagged and number == tag) and part != "[key]"]
    where = ".".join(str(part) for part in path)
    value = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            return [f"{where}: unknown key; {_nearest_key(str(path[-1]))}"]
        case "missing" | "union_tag_not_found":
            return [f"{where}{'.kind' if problem['type'] == 'union_tag_not_found' else ''}: this key is required and missing"]
        case "union_tag_invalid":
            return [
                f"{where}.kind: {problem['ctx']['tag']!r} is not a kind of {thing}: {did_you_mean(problem['ctx']['tag'], kinds)}"
            ]
        case "value_error":
            said = problem["msg"].removeprefix("Value error, ")
            return [f"{where}: {line}" if where else line for line in said.splitlines()]
        case "string_pattern_mismatch" if where == "engine.memory":
            return [
                f"{where}: {value!r} is not an amount of memory: write a whole number and MB or GB, at least 100MB, such as 2GB"
            ]
        case "string_pattern_mismatch":
            return [f"{where}: {value!r} is not a name: use lower-case letters, digits and _, starting with a letter"]
        case "model_type" | "dict_type" if not where:
            return ["the file holds no keys: start from configs/template.yaml"]
        case "too_short" if problem["ctx"]["actual_length"] == 0 and value:
            return []  # pydantic's echo of items that are wrong themselves, and told above
        case "too_short":
            least, there = (problem["ctx"][name] for name in ("min_length", "actual_length"))
            return [f"{where}: at least {least} are needed, there {'is' if there == 1 else 'are'} {there}"]
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return [f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}"]


def _nearest_key(key: str) -> str:
    known = {name for model in Strict.__subclasses__() for kind in (model, *model.__subclasses__()) for name in kind.model_fields}
    if key in known:
        return "it belongs elsewhere, or to another kind of target; configs/template.yaml shows where"
    near = get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else "configs/template.yaml shows every key"
