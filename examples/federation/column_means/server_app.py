"""What a SuperLink runs."""

from __future__ import annotations

from flwr.app import Context

from chimera.sandbox.federation.local import Floating
from chimera.sandbox.federation.server import server_app
from column_means.trainer import blank


def initial(context: Context) -> list[Floating]:
    """The generator to begin with. The server has no data, so it is told how many columns the tables have."""
    return blank(int(context.run_config["columns"]))


app = server_app(initial)
