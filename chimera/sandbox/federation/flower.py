"""Flower, as the federation uses it: the one place that imports it, with its telemetry off.

Raises MissingExtra where it is not installed. `flwr[simulation]` is never used: it pins another Ray, and its
simulation ends the Ray of the process that calls it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from chimera.core.errors import MissingExtra

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # Flower reads it once, while it is imported

try:
    from flwr.app import (
        Array,
        ArrayRecord,
        ConfigRecord,
        Context,
        Error,
        Message,
        MessageType,
        MetricRecord,
        RecordDict,
    )
    from flwr.app.exception import AppExitException
    from flwr.clientapp import ClientApp
    from flwr.common.constant import ErrorCode, SType
    from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Context as ContextProto
    from flwr.proto.message_pb2 import Message as MessageProto
    from flwr.serverapp import Grid, ServerApp, strategy
    from flwr.supercore.run import Run
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise MissingExtra("flwr", "federation") from error

__all__ = [
    "AppExitException",
    "Array",
    "ArrayRecord",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "ContextProto",
    "DecodeError",
    "Error",
    "ErrorCode",
    "Grid",
    "Message",
    "MessageProto",
    "MessageType",
    "MetricRecord",
    "RecordDict",
    "Run",
    "SType",
    "ServerApp",
    "context_from_proto",
    "context_to_proto",
    "message_from_proto",
    "message_to_proto",
    "quiet",
    "strategy",
]


@contextmanager
def quiet() -> Iterator[None]:
    """Flower writes a page a round to stderr. Here it is asked to keep to its errors: the report says the rest."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
