"""What a SuperNode runs."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from chimera.sandbox.federation.client import client_app
from column_means.trainer import Trainer


def open_trainer(context: Context) -> Trainer:
    """The trainer of this node: its folder and its table are in the node's own configuration."""
    return Trainer(Path(str(context.node_config["folder"])), table=Path(str(context.node_config["table"])))


app = client_app(open_trainer)
