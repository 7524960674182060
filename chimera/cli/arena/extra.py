"""The arena's commands are always there; what they need is an extra, which may not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from chimera.arena import PACKAGES
from chimera.core.errors import MissingExtra

BAD_INPUT = 2


@contextmanager
def needs_arena(*, as_json: bool) -> Iterator[None]:
    """While a command's own modules are imported: where the extra is missing, say so and end with BAD_INPUT."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        from chimera.cli import render  # only then: it takes longer than `--help` may

        render.error(MissingExtra(package, "arena"), as_json=as_json)
        raise typer.Exit(BAD_INPUT) from None
