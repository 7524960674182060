"""Between Flower's strategies and the nodes: nothing that a node sends can break a strategy, and all of it is noted.

Flower's strategies trust their nodes more than a federation of strangers may: one reply with other metrics than the
rest ends the run, one that echoes what was sent divides by zero under the noise wrappers, and one error reply makes
those skip the round. So a strategy is given the sound replies only, each rebuilt with its arrays and its weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from chimera.core.errors import ReplyError, SwarmError
from chimera.sandbox.federation.client import DRIFT, LOSS, RECORDS
from chimera.sandbox.federation.flower import (
    ArrayRecord,
    Grid,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
    Run,
)
from chimera.sandbox.federation.local import MAX_LOSSES, Floating, TrainReport
from chimera.sandbox.federation.plan import FederationPlan
from chimera.sandbox.federation.report import NodeRow
from chimera.sandbox.federation.wire import ARRAYS, METRICS, Blueprint

MAX_REASON_CHARS = 300


Pair = tuple[Message, Message | None]
"""What a node was asked, and its reply if one came."""


class Sound(NamedTuple):
    """A reply that is accepted: what the strategy is given, and what is noted."""

    content: RecordDict
    report: TrainReport


class ScreenedGrid(Grid):
    """A grid that gives on sound replies only. `rows` are the nodes of the last training, `drift` is the mean of what
    they said in the last evaluation."""

    def __init__(self, grid: Grid, *, plan: FederationPlan, blueprint: Blueprint) -> None:
        self._grid = grid
        self._plan = plan
        self._blueprint = blueprint
        self.rows: tuple[NodeRow, ...] = ()
        self.drift: float | None = None

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Raises SwarmError where fewer are left than the strategy needs: Flower would wait for more without end."""
        nodes = list(self._grid.get_node_ids())
        if len(nodes) < self._plan.quorum:
            raise SwarmError(f"{len(nodes)} nodes are left, and {self._plan.strategy} needs {self._plan.quorum}")
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("replies are checked against what was asked: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("replies are checked against what was asked: use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The sound replies; none of a training to which fewer than the strategy's quorum came."""
        asked = list(messages)
        if not asked:
            return []
        sent = self._blueprint.conform(_arrays(asked[0].content))
        record = self._blueprint.pack(sent)
        for message in asked:
            message.content[ARRAYS] = record
        came = self._grid.send_and_receive(asked, timeout=timeout)
        replies = {reply.metadata.reply_to_message_id: reply for reply in came}
        pairs = [(message, replies.get(message.metadata.message_id)) for message in asked]
        if asked[0].metadata.message_type == MessageType.TRAIN:
            return self._trained(pairs, sent)
        return self._evaluated(pairs)

    def _trained(self, pairs: Sequence[Pair], sent: list[Floating]) -> list[Message]:
        judged = [self._judged(message, reply, sent) for message, reply in pairs]
        sound = [message for message, _ in judged if message is not None]
        self.rows, self.drift = tuple(row for _, row in judged), None
        if len(sound) >= self._plan.quorum:
            return sound
        why = f"{len(sound)} sound replies came, and {self._plan.strategy} needs {self._plan.quorum}"
        left = {"state": "left_out", "reason": why}
        self.rows = tuple(row.model_copy(update=left) if row.state == "counted" else row for row in self.rows)
        return []

    def _judged(self, message: Message, reply: Message | None, sent: list[Floating]) -> tuple[Message | None, NodeRow]:
        node = message.metadata.dst_node_id
        if reply is None:
            return None, NodeRow(node_id=node, state="silent", reason="no reply in time")
        if reply.has_error():
            return None, NodeRow(node_id=node, state="failed", reason=_short(reply.error.reason or "no reason given"))
        try:
            content, report = self._sound(reply.content, sent)
        except ReplyError as error:
            return None, NodeRow(node_id=node, state="refused", reason=_short(str(error)))
        return Message(content, reply_to=message), NodeRow(node_id=node, state="counted", **report.model_dump())

    def _evaluated(self, pairs: Sequence[Pair]) -> list[Message]:
        """Drifts are for people to read: each counts once, whatever its node claims."""
        drifts = [(message, _drift(reply)) for message, reply in pairs if reply is not None and not reply.has_error()]
        sound = {message: drift for message, drift in drifts if drift is not None}
        self.drift = sum(sound.values()) / len(sound) if sound else None
        return [
            Message(RecordDict({METRICS: MetricRecord({RECORDS: 1, DRIFT: drift})}), reply_to=message)
            for message, drift in sound.items()
        ]

    def _sound(self, content: RecordDict, sent: list[Floating]) -> Sound:
        """Raises ReplyError for what is not exactly a generator and a report."""
        if set(content) != {ARRAYS, METRICS}:
            raise ReplyError(f"it holds {len(content)} records instead of {ARRAYS!r} and {METRICS!r}")
        report = _report(content[METRICS])
        arrays = self._blueprint.unpack(_arrays(content), max_abs=self._plan.max_abs)
        noisy = self._plan.noise_multiplier is not None
        if noisy and all(np.array_equal(a, b) for a, b in zip(arrays, sent, strict=True)):
            raise ReplyError("it sent back what it was sent: it has not trained")
        weight = report.records if self._plan.weigh == "records" and not noisy else 1
        metrics = MetricRecord({RECORDS: weight})
        return Sound(RecordDict({ARRAYS: self._blueprint.pack(arrays), METRICS: metrics}), report)


def _arrays(content: RecordDict) -> ArrayRecord:
    arrays = content.get(ARRAYS)
    if not isinstance(arrays, ArrayRecord):
        raise ReplyError(f"{ARRAYS!r} holds no arrays")
    return arrays


def _report(metrics: object) -> TrainReport:
    if not isinstance(metrics, MetricRecord) or len(metrics) > MAX_LOSSES + 3:
        raise ReplyError(f"{METRICS!r} is not a report of at most {MAX_LOSSES + 3} numbers")
    try:
        return TrainReport.model_validate(_fields(metrics))
    except ValidationError as error:
        first = error.errors()[0]
        raise ReplyError(f"its report: {'.'.join(map(str, first['loc']))[:60]}: {first['msg']}") from None


def _fields(metrics: Mapping[str, object]) -> dict[str, object]:
    known = {RECORDS: "records", "epsilon": "epsilon", "delta": "delta"}
    fields: dict[str, object] = {known[name]: value for name, value in metrics.items() if name in known}
    losses = {name: value for name, value in metrics.items() if name not in known}
    return {**fields, "losses": {name.removeprefix(LOSS): value for name, value in losses.items()}}


def _drift(reply: Message) -> float | None:
    metrics = reply.content.get(METRICS)
    drift = metrics.get(DRIFT) if isinstance(metrics, MetricRecord) else None
    return drift if isinstance(drift, float) and math.isfinite(drift) and drift >= 0 else None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_REASON_CHARS else text[: MAX_REASON_CHARS - 1] + "…"
