"""What a command runs with: the environment's settings, and over them the options that were given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from chimera.core.config import Settings
from chimera.core.errors import InputError, MissingExtra, StorageError

_SHORT = (str, bytes, int, float, type(None))


def read_settings(**options: Any) -> Settings:
    """The settings; an option that is None or empty was not given. Raises InputError that names each wrong one."""
    given = {name: value for name, value in options.items() if value not in (None, "")}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InputError(explain(error, prefix="CHIMERA_")) from error


def explain(error: ValidationError, *, prefix: str = "") -> str:
    """pydantic's findings in one line; with `prefix` the fields are called by their environment variables."""
    all_details = error.errors(include_url=False, include_context=False)
    inner = {details["loc"][:length] for details in all_details for length in range(len(details["loc"]))}
    found = []
    for details in all_details:
        where, got = details["loc"], details["input"]
        if where and where in inner:
            continue  # a list that is short only because what was in it is wrong
        name = ".".join(str(part) for part in where)
        what = details["msg"].removeprefix("Value error, ")
        said = f"{prefix}{name.upper() if prefix else name}: " if name else ""
        said += (what[:1].lower() + what[1:]) if name else what
        # A whole document is no help, and pydantic gives one where something is missing or two things do not fit.
        found.append(f"{said} (got {got!r:.60})" if isinstance(got, _SHORT) else said)
    return "; ".join(found)


@contextmanager
def opening(journal: str) -> Iterator[None]:
    """While the journal at this URL is opened, here or by a swarm that starts: a file that cannot be one is bad input.

    A server that does not answer is a fault, and stays a StorageError.
    """
    try:
        yield
    except MissingExtra as error:
        raise InputError(str(error)) from error
    except StorageError as error:
        if journal.startswith("sqlite:"):
            raise InputError(str(error)) from error
        raise
