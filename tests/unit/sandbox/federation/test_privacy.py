"""What a federation says of privacy: of a record, of a sandbox, and what it never forgets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from chimera.core.errors import InputError
from chimera.sandbox.federation.flower import MetricRecord, RecordDict
from chimera.sandbox.federation.host import Host
from chimera.sandbox.federation.report import FederationReport, NodeRow, RoundReport, gaussian_epsilon, record_privacy
from chimera.sandbox.federation.screen import ScreenedGrid
from chimera.sandbox.federation.wire import Blueprint, decode, encode
from tests.unit.sandbox.federation import tiny
from tests.unit.sandbox.federation.house import ROUNDS, hold, last, node, plan
from tests.unit.sandbox.federation.test_wire import asking

EPSILON_OF_A_ROUND = 0.1


def told(epsilon: float | None, node_id: int = 1) -> NodeRow:
    return NodeRow(node_id=node_id, state="counted" if epsilon is not None else "silent", epsilon=epsilon, delta=1e-5)


def rounds(*of: list[NodeRow]) -> list[RoundReport]:
    return [RoundReport(round=i, nodes=tuple(rows), aggregated=True, wall_s=0.1) for i, rows in enumerate(of, 1)]


def test_the_records_epsilon_is_the_largest_of_disjoint_sandboxes() -> None:
    privacy = record_privacy(rounds([told(1.0), told(2.0, 2)], [told(1.5), told(None, 2)]))
    assert (privacy.epsilon, privacy.unknown) == (2.0, (2,))
    assert record_privacy(rounds([told(None)])).epsilon is None


def test_sandboxes_without_noise_report_an_infinite_epsilon_of_the_client(tmp_path: Path) -> None:
    report = hold(tmp_path, ["honest"] * 3, plan("fedmedian")).report
    assert report.client_privacy.epsilon == report.client_privacy.epsilon_if_sampled == float("inf")
    assert report.record_privacy.epsilon == pytest.approx(EPSILON_OF_A_ROUND * ROUNDS)
    assert FederationReport.model_validate_json(report.model_dump_json()) == report


def test_the_clients_epsilon_is_that_of_gaussian_releases_in_a_row() -> None:
    """Renyi divergence of order a of k releases is k a / (2 z^2); as epsilon by Canonne, Kamath and Steinke 2020."""
    noise, releases, delta = 2.0, 20, 1e-5
    order = np.linspace(1.01, 100, 100_000)
    renyi = releases * order / (2 * noise**2)
    expected = (renyi + np.log1p(-1 / order) - np.log(delta * order) / (order - 1)).min()
    assert gaussian_epsilon([noise] * releases, sample_rate=1.0, delta=delta) == pytest.approx(expected, rel=0.01)
    assert gaussian_epsilon([noise] * releases, sample_rate=0.3, delta=delta) < expected / 2
    assert gaussian_epsilon([], sample_rate=1.0, delta=delta) == 0.0
    with pytest.raises(InputError, match="above 0"):
        gaussian_epsilon([1.0, 0.0], sample_rate=1.0, delta=delta)


@pytest.mark.soak
def test_the_clients_epsilon_is_another_accountants() -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    for rate in (1.0, 0.3):
        event = PoissonSampledDpEvent(rate, GaussianDpEvent(2.0))
        theirs = RdpAccountant().compose(SelfComposedDpEvent(event, 20)).get_epsilon(1e-5)
        assert gaussian_epsilon([2.0] * 20, sample_rate=rate, delta=1e-5) == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("adaptive", [False, True])
def test_noise_for_the_presence_of_a_sandbox_is_added_and_accounted(tmp_path: Path, adaptive: bool) -> None:
    noisy = {"noise_multiplier": 0.5, "clipping_norm": 2.0, "adaptive": adaptive}
    report = hold(tmp_path, ["honest"] * 7, plan("fedavg", **noisy)).report
    assert report.client_privacy.noise_multipliers == pytest.approx([0.5] * ROUNDS)
    expected = gaussian_epsilon([0.5] * ROUNDS, sample_rate=1.0, delta=1e-5)
    assert report.client_privacy.epsilon == pytest.approx(expected)
    assert report.record_privacy.epsilon == pytest.approx(EPSILON_OF_A_ROUND * ROUNDS)


@pytest.mark.parametrize("other", ["lazy", "broken", "not_a_number"])
def test_with_fewer_replies_the_same_noise_hides_less(tmp_path: Path, other: str) -> None:
    """Flower scales its noise for all that were asked; one that echoes would make it divide by zero, an error skip."""
    report = hold(tmp_path, ["honest"] * 6 + [other], plan("fedavg", noise_multiplier=0.5, rounds=2)).report
    assert report.client_privacy.noise_multipliers == pytest.approx([0.5 * 6 / 7] * 2)
    assert [each.aggregated for each in report.rounds] == [True, True]
    assert report.client_privacy.epsilon > gaussian_epsilon([0.5] * 2, sample_rate=1.0, delta=1e-5)


def test_under_noise_no_sandbox_weighs_more_than_another() -> None:
    """A mean by records would let one sandbox move it by more than the noise is for."""
    blueprint = Blueprint.of(tiny.blank())
    arrays = [array + 1 for array in tiny.blank()]
    told = MetricRecord({"num-examples": 10**8, "epsilon": 1.0, "delta": 0.0})
    for fields, weight in (({}, 10**8), ({"noise_multiplier": 1.0}, 1), ({"weigh": "equally"}, 1)):
        screen = ScreenedGrid(None, plan=plan("fedavg", **fields), blueprint=blueprint)  # type: ignore[arg-type]
        content = RecordDict({"arrays": blueprint.pack(arrays), "metrics": told})
        sound = screen._sound(content, tiny.blank())
        assert sound.content.metric_records["metrics"]["num-examples"] == weight


def test_adaptive_clipping_with_too_few_nodes_is_refused_before_it_begins() -> None:
    with pytest.raises(InputError, match=r"takes a noise multiplier below 0\.7"):
        plan("fedavg", noise_multiplier=1.0, adaptive=True).open(7)


def test_a_spent_budget_ends_that_sandboxs_part_and_not_the_federation(tmp_path: Path) -> None:
    poor = node(tmp_path, 1, "honest", budget=0.2)
    host = Host(poor)
    for _ in range(2):
        assert decode(host.handle(encode(asking(tiny.blank(), steps=10)))).has_content()
    reply = decode(host.handle(encode(asking(tiny.blank(), steps=10))))
    assert reply.error.reason == "the privacy budget of this sandbox is spent"


def test_a_process_of_its_own_for_each_message_forgets_nothing(tmp_path: Path) -> None:
    for spent in (0.05, 0.1, 0.15):
        reply = decode(Host(node(tmp_path, 1, "honest")).handle(encode(asking(tiny.blank()))))
        assert reply.content.metric_records["metrics"]["epsilon"] == pytest.approx(spent)


def test_a_ledger_that_was_lost_is_noticed(tmp_path: Path) -> None:
    planned = node(tmp_path, 1, "honest")
    for _ in range(2):
        Host(planned).handle(encode(asking(tiny.blank())))
    for lost in ("ledger.json", "tiny.npz"):
        (planned.folder / lost).unlink()
    reply = decode(Host(planned).handle(encode(asking(tiny.blank()))))
    assert "0.1 was spent in this run before" in str(reply.error.reason)


def test_a_state_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    planned = node(tmp_path, 1, "honest")
    Host(planned).handle(encode(asking(tiny.blank())))
    (planned.folder / "federation.context").write_bytes(b"\xff" * 10)
    reply = decode(Host(planned).handle(encode(asking(tiny.blank()))))
    assert reply.content.metric_records["metrics"]["epsilon"] == pytest.approx(0.1)
    shutil.rmtree(planned.folder)


def test_the_drift_looks_at_no_record_and_costs_nothing(tmp_path: Path) -> None:
    federated = hold(tmp_path, ["honest"] * 3, plan("fedmedian", evaluate=True))
    drift = federated.report.rounds[-1].drift
    assert drift is not None and 0 < drift < 0.1
    assert last(federated, 1).epsilon == pytest.approx(EPSILON_OF_A_ROUND * ROUNDS)
