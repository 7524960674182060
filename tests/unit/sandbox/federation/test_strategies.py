"""Seven sandboxes, one of them an enemy and one that dies: what Flower's strategies make of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chimera.core.errors import InputError, ReplyError, SwarmError
from chimera.sandbox.federation.flower import Array, ArrayRecord, Message, MetricRecord, RecordDict
from chimera.sandbox.federation.local import Floating
from chimera.sandbox.federation.plan import FederationPlan
from chimera.sandbox.federation.wire import Blueprint
from tests.unit.sandbox.federation import tiny
from tests.unit.sandbox.federation.house import ROUNDS, dying, hanging, hold, last, plan

DIES, ENEMY = 3, 7


@pytest.fixture(autouse=True)
def _old_objects_aside() -> Iterator[None]:
    """Flower's Bulyan collects garbage for every array: of a whole test session's objects that takes seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


ROBUST = ["fedmedian", "fedtrimmedavg", "krum", "multikrum"]


@pytest.mark.parametrize("strategy", [*ROBUST, "fedavg", "fedprox"])
def test_seven_honest_sandboxes_agree_on_their_mean(tmp_path: Path, strategy: str) -> None:
    fields: dict[str, Any] = {"proximal_mu": 0.1} if strategy == "fedprox" else {}
    federated = hold(tmp_path, ["honest"] * 7, plan(strategy, **fields))
    assert abs(tiny.mean(federated.arrays) / tiny.TARGET - 1) < 0.05
    assert all(array.dtype == np.float32 for array in federated.arrays)
    assert [report.aggregated for report in federated.report.rounds] == [True] * ROUNDS
    assert federated.report.stopped == ""


@pytest.mark.parametrize("enemy", ["scaled", "flipped"])
@pytest.mark.parametrize("strategy", ROBUST)
def test_a_robust_strategy_holds_against_an_enemy_while_another_dies(tmp_path: Path, strategy: str, enemy: str) -> None:
    honest = tiny.mean(hold(tmp_path / "honest", ["honest"] * 7, plan(strategy)).arrays)
    federated = hold(
        tmp_path / "attacked",
        ["honest"] * 6 + [enemy],
        plan(strategy, malicious=1),
        instead=lambda i, send: dying(send, after=2) if i == DIES else None,
    )
    assert abs(tiny.mean(federated.arrays) / honest - 1) < 0.05
    assert last(federated, ENEMY).state == "counted", "it is the strategy that withstood it, and not the screen"
    states = [next(r.state for r in each.nodes if r.node_id == DIES) for each in federated.report.rounds]
    assert states == ["counted"] * 2 + ["failed"] * (ROUNDS - 2)
    assert federated.report.record_privacy.unknown == (DIES,)


def test_bulyan_holds_against_an_enemy_and_stands_still_when_too_few_are_left(tmp_path: Path) -> None:
    rounds = 3
    federated = hold(
        tmp_path,
        ["honest"] * 6 + ["scaled"],
        plan("bulyan", malicious=1, rounds=rounds, steps=20),
        instead=lambda i, send: dying(send, after=2) if i == DIES else None,
    )
    assert abs(tiny.mean(federated.arrays) / tiny.TARGET - 1) < 0.05
    assert [report.aggregated for report in federated.report.rounds] == [True, True, False]
    row = last(federated, 1)
    assert row.state == "left_out" and "6 sound replies came, and bulyan needs 7" in row.reason
    assert row.epsilon == pytest.approx(0.01 * 20 * rounds), "what it spent is on the report all the same"


def test_a_plain_mean_breaks(tmp_path: Path) -> None:
    federated = hold(tmp_path, ["honest"] * 6 + ["scaled"], plan("fedavg", rounds=1))
    assert tiny.mean(federated.arrays) > 50


@pytest.mark.parametrize("strategy", ["fedavg", *ROBUST, "bulyan"])
def test_what_a_strategy_makes_of_larger_arrays_can_be_sent_next(strategy: str) -> None:
    """It may change types and lay arrays out otherwise in memory, and a sandbox reads one form only."""
    rng = np.random.default_rng(0)
    arrays: list[Floating] = [rng.normal(size=(4, 3, 2)), rng.normal(size=(2, 5)).astype(np.float32)]
    blueprint = Blueprint.of(arrays)
    asked = Message(RecordDict(), 1, "train")
    metrics = MetricRecord({"num-examples": 1})
    contents = [RecordDict({"arrays": blueprint.pack(arrays), "metrics": metrics}) for _ in range(7)]
    made, _ = plan(strategy).open(7).aggregate_train(1, [Message(content, reply_to=asked) for content in contents])
    assert made is not None
    again = blueprint.unpack(blueprint.pack(blueprint.conform(made)))
    assert all(np.allclose(a, b) and a.dtype == b.dtype for a, b in zip(again, arrays, strict=True))


def test_arrays_in_another_order_in_memory_are_sent_in_the_one_that_is_read() -> None:
    blueprint = Blueprint.of([np.ones((3, 2))])
    odd = ArrayRecord({"generator/0": Array(np.asfortranarray(np.arange(6.0).reshape(3, 2)))})
    with pytest.raises(ReplyError, match="not what numpy writes"):
        blueprint.unpack(odd)
    assert np.array_equal(blueprint.unpack(blueprint.pack(blueprint.conform(odd)))[0], np.arange(6.0).reshape(3, 2))


def test_a_node_that_hangs_costs_its_round_no_more_than_the_time_it_has(tmp_path: Path) -> None:
    federated = hold(
        tmp_path,
        ["honest"] * 4,
        plan("fedmedian", rounds=2, round_s=0.7),
        instead=lambda i, _: hanging if i == 2 else None,
    )
    assert last(federated, 2).state == "silent"
    assert abs(tiny.mean(federated.arrays) / tiny.TARGET - 1) < 0.5


def test_where_no_round_brings_a_generator_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match=r"no round brought a generator: node \d refused: generator/0 holds numbers"):
        hold(tmp_path, ["not_a_number"] * 3, plan("fedavg", rounds=1))


@pytest.mark.parametrize(
    ("strategy", "fields", "fewest"),
    [
        ("fedavg", {}, 2),
        ("fedmedian", {"malicious": 2}, 5),
        ("fedtrimmedavg", {"malicious": 1, "beta": 0.2}, 5),
        ("fedtrimmedavg", {"malicious": 1, "beta": 0.1}, 10),
        ("krum", {"malicious": 1}, 5),
        ("krum", {"malicious": 2}, 7),
        ("multikrum", {"malicious": 1, "select": 4}, 7),
        ("bulyan", {"malicious": 1}, 7),
        ("bulyan", {"malicious": 2}, 11),
    ],
)
def test_a_strategy_is_not_begun_with_too_few_nodes(strategy: str, fields: dict[str, Any], fewest: int) -> None:
    federation = plan(strategy, **fields)
    assert federation.quorum == fewest
    federation.open(fewest)
    with pytest.raises(InputError, match=f"{strategy} needs {fewest} nodes"):
        federation.open(fewest - 1)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"strategy": "fedsum"}, "strategy"),
        ({"strategy": "fedavg", "malicious": 1}, "withstands no malicious node"),
        ({"strategy": "krum", "noise-multiplier": 1.0}, "calibrated to a mean"),
        ({"strategy": "fedmedian", "proximal-mu": 0.1}, "is fedprox's"),
        ({"rounds": 0}, "rounds"),
        ({"round-s": float("inf")}, "round-s"),
        ({"beta": 0.5}, "beta"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        FederationPlan.from_config(config)


def test_a_plan_is_read_from_a_runs_configuration() -> None:
    found = FederationPlan.from_config({"strategy": "krum", "malicious": 1, "round-s": 5.0, "out": "/somewhere"})
    assert (found.strategy, found.malicious, found.round_s) == ("krum", 1, 5.0)
