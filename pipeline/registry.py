"""Who is in charge: the aliases `champion` and `challenger` in MLflow's registry, moved with a reason that stays as a tag."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from features.errors import ConfigError, GateError, StoreError, first_line, listed

CHAMPION, CHALLENGER = "champion", "challenger"
UNTIL, PROMOTED, REPLACES, ROLLED_BACK = "trained_until", "promoted_because", "replaces", "rolled_back_because"
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@dataclass(frozen=True)
class Change:
    """A version that was put in charge, and the one that was before it, if there was one."""

    model: str
    version: str
    former: str | None


@contextmanager
def asking(uri: str, to: str) -> Iterator[None]:
    """Turn whatever a store that is down, full or read-only throws while asked `to` do something into a StoreError."""
    try:
        yield
    # Its server and its database fail as MlflowException or SQLAlchemyError, its files and its network as OSError.
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise StoreError(
            f"the MLflow store {without_password(uri)} did not {to}: {without_password(first_line(error))[:200]}. "
            "Check that it is up and may be written to, then run this again"
        ) from None


@contextmanager
def few_retries() -> Iterator[None]:
    """Learn within seconds that a server is down, which MLflow asks for minutes; once it is known to be up, patience is right."""
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = "2"
    try:
        yield
    finally:
        del os.environ[_RETRIES]


def without_password(text: str) -> str:
    """Take the users and passwords out of the URIs in a text, such as another library's message.

    >>> without_password("no answer from postgresql://me:secret@host/db")
    'no answer from postgresql://host/db'
    """
    return re.sub(r"://[^/\s]*@", "://", text)


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Give the aliases of a registered model and their versions; none where it is not registered."""
    try:
        found = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: str(version) for alias, version in found.items()}


def versions(client: MlflowClient, name: str) -> list[str]:
    """Give the versions of a registered model, newest first; none where it is not registered."""
    found = client.search_model_versions(f"name = '{name}'")
    return sorted((str(version.version) for version in found), key=int, reverse=True)


def newest_tag(client: MlflowClient, name: str, key: str) -> str | None:
    """Give a tag of the newest version of a registered model that has it."""
    found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    return next((str(version.tags[key]) for version in reversed(found) if key in version.tags), None)


def planned(client: MlflowClient, name: str, version: str) -> Change:
    """Say what putting a version in charge would change; raises ConfigError naming the versions there are, when it is not there."""
    there = versions(client, name)
    if version not in there:
        raise ConfigError(f"{name} has no version {version}: {f'there are {listed(there)}' if there else 'it has none at all'}")
    return Change(name, version, aliases(client, name).get(CHAMPION))


def promote(client: MlflowClient, changes: Sequence[Change], *, reason: str) -> None:
    """Put versions in charge: each keeps why, and whom it replaces, as tags; the aliases move together after all that."""
    for change in changes:
        client.set_model_version_tag(change.model, change.version, PROMOTED, reason)
        # Put in charge once more, a version must not come to replace itself.
        if change.former is not None and change.former != change.version:
            client.set_model_version_tag(change.model, change.version, REPLACES, change.former)
    for change in changes:
        client.set_registered_model_alias(change.model, CHAMPION, change.version)
    for change in changes:
        if aliases(client, change.model).get(CHALLENGER) == change.version:
            client.delete_registered_model_alias(change.model, CHALLENGER)


def way_back(client: MlflowClient, name: str) -> Change:
    """Say what a rollback would change: the champion makes way for the version that it replaced.

    Raises GateError when there is no champion, or it replaced nobody, or the one it replaced is gone.
    """
    champion = aliases(client, name).get(CHAMPION)
    if champion is None:
        raise GateError(f"{name} has no champion that could be rolled back: run `beforehand train` first")
    there = versions(client, name)
    before = client.get_model_version(name, champion).tags.get(REPLACES)
    if before not in there:
        gone = f"replaced version {before}, which is gone" if before else "replaced no other"
        raise GateError(
            f"the champion of {name}, version {champion}, {gone}: choose one of {listed(there)} with `beforehand promote --version`"
        )
    return Change(name, str(before), champion)


def roll_back(client: MlflowClient, change: Change, *, reason: str) -> None:
    """Put the former version in charge again; the champion keeps why it had to go as a tag."""
    client.set_model_version_tag(change.model, str(change.former), ROLLED_BACK, reason)
    client.set_registered_model_alias(change.model, CHAMPION, change.version)
