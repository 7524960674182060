"""A sandbox's end of a line: message bytes in, reply bytes out, and the app's state kept on disk in between."""

from __future__ import annotations

import importlib
import logging
import threading
from pathlib import Path
from typing import Annotated

from pydantic import Field

from chimera.core.errors import InputError, ReplyError
from chimera.core.types import Frozen
from chimera.sandbox.federation.client import failed
from chimera.sandbox.federation.flower import (
    ClientApp,
    Context,
    ContextProto,
    DecodeError,
    Message,
    RecordDict,
    context_from_proto,
    context_to_proto,
)
from chimera.sandbox.federation.wire import MAX_MESSAGE_BYTES, decode, encode
from chimera.storage.whole_file import write_whole

log = logging.getLogger(__name__)

STATE_FILE = "federation.context"

FOLDER = "folder"
"""The key of a node's configuration that names the folder of its trainer."""


class NodePlan(Frozen):
    """A sandbox of a federation: which app answers for it, where it keeps what it keeps, and its own settings.

    `app` is MODULE:NAME of a Flower ClientApp, as `chimera.sandbox.federation.client.client_app` makes them. `folder`
    is a path on the machine where the sandbox runs.
    """

    node_id: Annotated[int, Field(ge=1, lt=1 << 63)]
    app: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    folder: Path
    config: dict[str, bool | int | float | str] = Field(default_factory=dict)


def load_app(spec: str) -> ClientApp:
    """The ClientApp that MODULE:NAME is. Raises InputError where there is none. It runs the module's code."""
    module, _, name = spec.partition(":")
    try:
        app = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"no ClientApp at {spec!r}: {error}") from error
    if not isinstance(app, ClientApp):
        raise InputError(f"{spec} is a {type(app).__name__}, and no ClientApp: see client_app")
    return app


class Host:
    """Runs a ClientApp on one message at a time, and keeps its context in the folder, as a SuperNode would."""

    def __init__(self, plan: NodePlan, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._app = load_app(plan.app)
        self._plan = plan
        self._max_bytes = max_bytes
        self._file = plan.folder / STATE_FILE
        self._one_at_a_time = threading.Lock()
        plan.folder.mkdir(parents=True, exist_ok=True)

    def handle(self, packed: bytes) -> bytes:
        """Answer a message. Raises ReplyError for bytes that are none, or are for another node."""
        message = decode(packed, max_bytes=self._max_bytes)
        if message.metadata.dst_node_id != self._plan.node_id or not message.has_content():
            raise ReplyError(f"a message for node {message.metadata.dst_node_id} came to node {self._plan.node_id}")
        with self._one_at_a_time:
            context = self._context(message.metadata.run_id)
            reply = self._answer(message, context)
            self._keep(context)
        return encode(reply, max_bytes=self._max_bytes)

    def _answer(self, message: Message, context: Context) -> Message:
        try:
            return self._app(message, context)
        except Exception as error:
            log.exception("node %d: its app failed", self._plan.node_id)
            return failed(message, f"{type(error).__name__} in the sandbox's app; its log says where")

    def _context(self, run_id: int) -> Context:
        """The state of the run that is going on; of a new run an empty one. What cannot be read is begun anew: the
        ledger of what was spent is the trainer's."""
        config = {FOLDER: str(self._plan.folder), **self._plan.config}
        fresh = Context(run_id, self._plan.node_id, config, RecordDict(), {})
        try:
            kept = context_from_proto(ContextProto.FromString(self._file.read_bytes()))
        except FileNotFoundError:
            return fresh
        except (OSError, DecodeError, ValueError) as error:
            log.warning("the state in %s cannot be read and is begun anew: %s", self._file, error)
            return fresh
        if (kept.run_id, kept.node_id) == (run_id, self._plan.node_id):
            fresh.state = kept.state
        return fresh

    def _keep(self, context: Context) -> None:
        write_whole(self._file, context_to_proto(context).SerializeToString())
