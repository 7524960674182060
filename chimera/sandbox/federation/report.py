"""What a federation reports: who did what in each round, and two budgets of privacy that must not be mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict, Field

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.sandbox.privacy.accountants import estimate, history

State = Literal["counted", "left_out", "refused", "failed", "silent"]
"""Its reply was given to the strategy; was sound, but too few others were; was not accepted; was an error; did not
come in time."""


class NodeRow(Frozen):
    """One node in one round. What it says of itself is its own word; `reason` says why it was not counted."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    node_id: int
    state: State
    reason: str = ""
    records: int = 0
    epsilon: float | None = None
    delta: float | None = None
    losses: dict[str, float] = Field(default_factory=dict)


class RoundReport(Frozen):
    """One round. `aggregated` says whether the generator changed; `drift` is how far it is from the nodes' own."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    round: int
    nodes: tuple[NodeRow, ...]
    aggregated: bool
    drift: float | None = None
    wall_s: float


class RecordPrivacy(Frozen):
    """What the federation says of one record in one sandbox: the largest epsilon of any, as their records are disjoint.

    None where no sandbox has said what it spent. `unknown` are nodes whose last training brought no report: they may
    have spent more than they said before.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    epsilon: float | None
    delta: float | None
    unknown: tuple[int, ...] = ()


class ClientPrivacy(Frozen):
    """What the federation says of the presence of a whole sandbox, to those who see the generators but no updates.

    Infinite without Flower's noise. The server sees each update, and against it this says nothing. Neighbours: a
    sandbox's update is replaced by none at all. `epsilon` counts on no secrecy of who was asked.
    `epsilon_if_sampled` does: it takes each node to be drawn for itself with probability `sample_rate` (Mironov et al.
    2019), which Flower's draw of a fixed number only comes near to.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    epsilon: float
    epsilon_if_sampled: float
    delta: float
    sample_rate: float
    noise_multipliers: tuple[float, ...] = ()


class FederationReport(Frozen):
    """How a federation went. `stopped` says why it ended before its last round; empty where it did not."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    strategy: str
    nodes: int
    rounds: tuple[RoundReport, ...]
    record_privacy: RecordPrivacy
    client_privacy: ClientPrivacy
    stopped: str = ""


def record_privacy(rounds: Sequence[RoundReport]) -> RecordPrivacy:
    """The largest of what the sandboxes say that they spent."""
    said: dict[int, NodeRow] = {}
    unknown: dict[int, bool] = {}
    for row in (row for report in rounds for row in report.nodes):
        unknown[row.node_id] = row.epsilon is None
        if row.epsilon is not None:
            said[row.node_id] = row
    return RecordPrivacy(
        epsilon=max((row.epsilon for row in said.values() if row.epsilon is not None), default=None),
        delta=max((row.delta for row in said.values() if row.delta is not None), default=None),
        unknown=tuple(sorted(node for node, is_unknown in unknown.items() if is_unknown)),
    )


def client_privacy(noise_multipliers: Sequence[float], *, sample_rate: float, delta: float) -> ClientPrivacy:
    """The two epsilons of rounds with these noise multipliers, each that changed the generator; none, none spent."""
    return ClientPrivacy(
        epsilon=gaussian_epsilon(noise_multipliers, sample_rate=1.0, delta=delta),
        epsilon_if_sampled=gaussian_epsilon(noise_multipliers, sample_rate=sample_rate, delta=delta),
        delta=delta,
        sample_rate=sample_rate,
        noise_multipliers=tuple(noise_multipliers),
    )


def gaussian_epsilon(noise_multipliers: Sequence[float], *, sample_rate: float, delta: float) -> float:
    """Epsilon of Gaussian releases in a row, by Renyi accounting (Mironov 2017; Mironov et al. 2019; Opacus' code).

    0 for none. Raises InputError for a multiplier that is not positive, MissingExtra without Opacus.
    """
    if min(noise_multipliers, default=1.0) <= 0:
        raise InputError("a release without noise has no epsilon: its noise multiplier is above 0")
    steps = history((noise, sample_rate, 1) for noise in noise_multipliers)
    return estimate(steps, delta, "rdp").epsilon
