"""What a command runs with: the environment's settings, and over them the options that were given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from chimera.core.config import Settings
from chimera.core.errors import InputError, MissingExtra, StorageError


def read_settings(**options: Any) -> Settings:
    """The settings; an option that is None or empty was not given. Raises InputError that names each wrong one."""
    given = {name: value for name, value in options.items() if value not in (None, "")}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise InputError(explain(error, prefix="CHIMERA_")) from error


def explain(error: ValidationError, *, prefix: str = "") -> str:
    """pydantic's findings in one line; with `prefix` the fields are called by their environment variables."""
    found = []
    for details in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in details["loc"])
        what = details["msg"][:1].lower() + details["msg"][1:]
        found.append(f"{prefix}{name.upper() if prefix else name}: {what} (got {details['input']!r:.60})")
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
