"""For commands that need Ray: joined to it as long as they run, and ended by SIGTERM without leaving actors behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chimera.actors import cluster
from chimera.cli import render
from chimera.cli.arena import command
from chimera.core.config import Settings


@contextmanager
def on_ray(settings: Settings, *, shown: bool) -> Iterator[None]:
    """On the Ray of `settings.address`, which is started if there is none. Raises ClusterError.

    Ray takes SIGTERM for itself as it starts, and its handler would leave at once; so it is taken back.
    """
    with render.waiting("starting Ray", shown=shown):
        connection = cluster.connect(settings)
    try:
        command.cancel_on_sigterm()
        yield
    finally:
        cluster.disconnect(connection)
