"""The engine: one discriminator meets the data, what it costs is written down first, and nothing of it is forgotten."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from chimera.core.errors import InputError, PrivacyError, StorageError
from chimera.sandbox import engine as engine_module
from chimera.sandbox.engine import DISCRIMINATOR, RESERVED, AdversarialEngine, Batch
from chimera.sandbox.model import Model
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.settings import GanSettings

SCHEMA = Schema(
    columns=(*(Column(name=name, low=-4, high=4) for name in "ab"), Column(name="n", low=0, high=9, step=1)),
    classes=("no", "yes"),
)

SMALL = GanSettings(epsilon=2.0, delta=1e-4, steps=60, batch=32, hidden=16, critic_steps=2)

FREE = SMALL.model_copy(update={"epsilon": math.inf})


def table(n: int = 300, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    a = rng.normal(2.0 * labels - 1.0, 0.5)
    return Table(SCHEMA, np.clip(np.column_stack([a, -a, rng.integers(0, 10, n)]), SCHEMA.low, 9), labels)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> AdversarialEngine:
    engine = AdversarialEngine(table(), SMALL, folder=tmp_path_factory.mktemp("trained"), entropy=1)
    while engine.left:
        engine.train_gan_step()
    engine.save()
    return engine


def test_the_budget_is_used_and_not_passed(trained: AdversarialEngine) -> None:
    assert trained.step == SMALL.steps
    assert 0.9 * SMALL.epsilon < trained.ledger.epsilon() <= trained.epsilon <= SMALL.epsilon
    assert [release.what for release in trained.ledger.releases] == ["class counts", "moments", DISCRIMINATOR]
    with pytest.raises(PrivacyError, match="are spent"):
        trained.train_gan_step()
    assert trained.step == SMALL.steps


def test_epsilon_rises_and_is_counted_before_it_is_spent() -> None:
    engine = AdversarialEngine(table(), SMALL.model_copy(update={"latent_share": 0.2}), entropy=1)
    reports = [engine.train_gan_step() for _ in range(RESERVED + 1)]
    assert engine.ledger.releases[-1].steps == 2 * RESERVED
    epsilons = [report.epsilon for report in reports]
    assert epsilons == sorted(epsilons) and epsilons[-1] > epsilons[0]
    assert [report.left for report in reports] == list(range(SMALL.steps - 1, SMALL.steps - RESERVED - 2, -1))


def test_a_record_moves_a_step_of_the_discriminator_by_one_clipped_gradient() -> None:
    """What the noise hides: the sums of clipped gradients with and without a record, fakes included."""
    settings = SMALL.model_copy(update={"clip": 0.1})

    def summed(rows: list[int]) -> torch.Tensor:
        engine = AdversarialEngine(table(), settings, entropy=3)
        gan, labels = engine._gan, engine._labels[rows]
        classes = gan.one_hot(labels)
        steady = torch.Generator().manual_seed(0)
        fake = torch.rand(300, 3, generator=steady)[rows]
        gan.critic_step(engine._real[rows], fake, classes)
        return torch.cat(
            [
                parameter.summed_grad.flatten()  # type: ignore[attr-defined]
                for parameter in gan.critic.parameters()
            ]
        )

    everybody = list(range(40))
    assert summed(everybody).norm() > 3 * settings.clip
    for one in (0, 17, 39):
        moved = summed(everybody) - summed([row for row in everybody if row != one])
        assert 0.5 * settings.clip < moved.norm() <= settings.clip * 1.001


def test_a_step_s_noise_is_as_large_as_the_ledger_says() -> None:
    """Of an empty batch the step releases nothing but noise: its spread is the noise multiplier times the clip."""
    engine = AdversarialEngine(table(), SMALL.model_copy(update={"clip": 0.5, "hidden": 64, "batch": 1}))
    spreads = []
    while len(spreads) < 3:
        batch = engine.sample()
        if not batch.rows.numel():
            engine.train_gan_step(batch)
            spreads.append(float(engine.released().std()))
    assert engine.ledger.releases[-1].noise_multiplier == engine.noise_multiplier > 0
    assert np.mean(spreads) == pytest.approx(0.5 * engine.noise_multiplier, rel=0.03)
    assert len(set(spreads)) == 3


def test_a_gradient_that_is_no_number_counts_as_nothing() -> None:
    engine = AdversarialEngine(table(), SMALL, entropy=1)
    rows = torch.arange(8)
    engine._real[rows[3]] = math.nan
    classes = engine._gan.one_hot(engine._labels[rows])
    engine._gan.critic_step(engine._real[rows], torch.zeros(8, 3), classes)
    assert all(torch.isfinite(parameter).all() for parameter in engine._gan.critic.parameters())


def test_records_of_the_caller_s_choice_are_refused() -> None:
    engine, other = (AdversarialEngine(table(), SMALL, entropy=1) for _ in range(2))
    batch = engine.sample()
    engine.train_gan_step(batch)
    for not_drawn in (batch, other.sample(), Batch(torch.arange(5), drawn_by=None), torch.arange(5)):
        with pytest.raises(InputError, match="drawn by"):
            engine.train_gan_step(not_drawn)  # type: ignore[arg-type]
    assert engine.step == 1


def test_batches_are_drawn_by_poisson_sampling_and_may_be_empty() -> None:
    engine = AdversarialEngine(table(), SMALL.model_copy(update={"batch": 1}), entropy=1)
    sizes = [len(engine.sample().rows) for _ in range(400)]
    assert 0 in sizes and max(sizes) > 2
    assert 0.75 < np.mean(sizes) < 1.25
    while (batch := engine.sample()).rows.numel():
        pass
    assert math.isfinite(engine.train_gan_step(batch).losses["discriminator"])


def test_what_a_dead_process_had_reserved_stays_spent(tmp_path: Path) -> None:
    first = AdversarialEngine(table(), SMALL, folder=tmp_path)
    for _ in range(RESERVED + 3):
        first.train_gan_step()
    spent = first.ledger.epsilon()
    first.close()
    second = AdversarialEngine(table(), SMALL, folder=tmp_path)
    assert second.step == 0
    assert second.left == SMALL.steps - 2 * RESERVED
    assert second.ledger.epsilon() == spent
    assert second.noise_multiplier == first.noise_multiplier
    while second.left:
        second.train_gan_step()
    assert second.ledger.epsilon() <= SMALL.epsilon


@pytest.mark.parametrize("damage", ["deleted", "emptied", "its first line only", "an older copy"])
def test_a_ledger_that_has_forgotten_is_refused(tmp_path: Path, damage: str) -> None:
    ledger = tmp_path / "ledger.jsonl"
    engine = AdversarialEngine(table(), SMALL, folder=tmp_path)
    engine.train_gan_step()
    older = ledger.read_bytes()
    for _ in range(RESERVED):
        engine.train_gan_step()
    engine.save()
    engine.close()
    if damage == "deleted":
        ledger.unlink()
    else:
        ledger.write_bytes({"emptied": b"", "an older copy": older}.get(damage, older.splitlines(keepends=True)[0]))
    with pytest.raises(StorageError, match="the ledger lacks what its checkpoint has spent"):
        AdversarialEngine(table(), SMALL, folder=tmp_path)


def test_a_process_that_died_before_its_first_checkpoint_is_told_of(tmp_path: Path) -> None:
    AdversarialEngine(table(), SMALL, folder=tmp_path).close()
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(StorageError, match="Start in another folder, and count both"):
        AdversarialEngine(table(), SMALL, folder=tmp_path)


def test_noise_has_more_bits_than_can_be_tried() -> None:
    """torch keeps 32 bits of a seed on a CPU: seeds that differ above them gave the same noise."""
    drawn = {engine_module._generator(1, "noise", past).random() for past in range(100)}
    assert len(drawn) == 100
    keys = [engine_module._generator(None).bit_generator.state["state"]["key"] for _ in range(50)]
    assert min(int(word).bit_length() for key in keys for word in key) > 32
    assert len({tuple(map(int, key)) for key in keys}) == 50


def test_weights_of_strangers_do_not_mark_a_class() -> None:
    """Weights so large that only one class's fakes overflow: a discriminator that breaks would say who was drawn."""
    engine = AdversarialEngine(table(), SMALL, entropy=1)
    wild = [np.zeros_like(array) for array in engine.generator()]
    for value in (3e38, np.inf, np.nan, 1e5):
        wild[0][:, 3] = value
        with pytest.raises(InputError, match="at most"):
            engine.load_generator(wild)
    with torch.no_grad():
        for parameter in engine._gan.generator.parameters():
            parameter.fill_(3e38)
    for _ in range(3):
        assert math.isfinite(engine.train_gan_step().losses["discriminator"])
    assert all(torch.isfinite(parameter).all() for parameter in engine._gan.critic.parameters())
    with pytest.raises(InputError, match="mu is"):
        engine.draw_towards(wild, 1e300)


def test_a_training_goes_on_where_it_was_saved(tmp_path: Path, trained: AdversarialEngine) -> None:
    first = AdversarialEngine(table(), FREE, folder=tmp_path, entropy=1)
    for _ in range(30):
        first.train_gan_step()
    first.save()
    first.close()
    second = AdversarialEngine(table(), FREE, folder=tmp_path, entropy=1)
    assert second.step == 30
    assert all((a == b).all() for a, b in zip(first.generator(), second.generator(), strict=True))
    second.close()
    for data, settings, what in [
        (table(seed=1), FREE, "data"),
        (table(), FREE.model_copy(update={"clip": 0.5}), "settings"),
    ]:
        with pytest.raises(InputError, match=f"other {what}"):
            AdversarialEngine(data, settings, folder=tmp_path)


def test_a_released_model_makes_records_of_the_schema_without_the_data(
    tmp_path: Path, trained: AdversarialEngine
) -> None:
    trained.model().save(tmp_path / "model.pt")
    model = Model.load(tmp_path / "model.pt")
    assert model.privacy.epsilon == trained.ledger.epsilon()
    assert model.privacy.said.startswith("epsilon 1.9") or model.privacy.said.startswith("epsilon 2")
    made = model.sample(500, np.random.default_rng(0))
    assert (SCHEMA.snap(made.values) == made.values).all()
    again = trained.model().sample(500, np.random.default_rng(0))
    assert (made.values == again.values).all() and made.labels is not None
    means = [made.values[made.labels == label, 0].mean() for label in (0, 1)]
    assert means[0] < -0.4 and means[1] > 0.4
    assert len(model.sample(0, np.random.default_rng(0))) == 0


def test_without_privacy_it_says_infinite(tmp_path: Path) -> None:
    engine = AdversarialEngine(table(), FREE, entropy=1)
    assert engine.train_gan_step().epsilon == math.inf
    engine.model().save(tmp_path / "model.pt")
    model = Model.load(tmp_path / "model.pt")
    assert model.privacy.epsilon == math.inf
    assert "infinite" in model.privacy.said


def test_the_gan_learns_what_the_moments_cannot_say() -> None:
    """Two peaks: a normal distribution has its mass between them."""
    schema = Schema(columns=(Column(name="x", low=-3, high=3), Column(name="y", low=-3, high=3)))
    rng = np.random.default_rng(0)
    x = rng.choice([-1.5, 1.5], 600) + rng.normal(0, 0.2, 600)
    peaks = Table(schema, np.clip(np.column_stack([x, rng.normal(0, 0.4, 600)]), -3, 3))
    settings = FREE.model_copy(update={"steps": 900, "batch": 64, "hidden": 64, "generator_rate": 2e-3})
    engine = AdversarialEngine(peaks, settings, entropy=1)

    def between() -> float:
        return float((np.abs(engine.model().sample(2_000, np.random.default_rng(1)).values[:, 0]) < 0.7).mean())

    before = between()
    while engine.left:
        engine.train_gan_step()
    assert before > 0.3
    assert between() < before / 2


def test_a_generator_is_taken_over_and_drawn_back() -> None:
    engine = AdversarialEngine(table(), FREE.model_copy(update={"generator_rate": 0.05}), entropy=1)
    start = [array + 0.01 for array in engine.generator()]

    def moved(mu: float) -> float:
        engine.load_generator(start)
        engine.draw_towards(start, mu)
        for _ in range(10):
            engine.train_gan_step()
        return float(sum(np.square(now - then).sum() for now, then in zip(engine.generator(), start, strict=True)))

    assert moved(1_000.0) < 0.5 * moved(0.0)
    with pytest.raises(InputError, match="not the weights"):
        engine.load_generator(start[1:])
    with pytest.raises(InputError, match="finite"):
        engine.load_generator([array * np.nan for array in start])


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "run"),)

    evil = tmp_path / "evil.pt"
    for write in (lambda: evil.write_bytes(pickle.dumps(Evil())), lambda: torch.save({"format": Evil()}, evil)):
        write()
        with pytest.raises(StorageError, match="cannot be read"):
            Model.load(evil)
    assert not (tmp_path / "run").exists()
    evil.write_bytes(b"PK\x03\x04")
    with pytest.raises(StorageError):
        Model.load(evil)
    with pytest.raises(InputError, match="no such file"):
        Model.load(tmp_path / "none")


def test_a_model_cannot_claim_less_than_its_releases_come_to(tmp_path: Path, trained: AdversarialEngine) -> None:
    model = trained.model()
    for epsilon in (0.01, math.nan):
        model.privacy = model.privacy.model_copy(update={"epsilon": epsilon})
        model.save(tmp_path / "lie.pt")
        with pytest.raises(StorageError, match="lists releases of"):
            Model.load(tmp_path / "lie.pt")


def test_moments_of_another_shape_and_a_checkpoint_are_no_model(tmp_path: Path, trained: AdversarialEngine) -> None:
    state = trained.model().state()
    state["moments"]["counts"] = torch.ones(1).expand(400_000)
    torch.save({"format": "chimera sandbox model 1", "model": state}, tmp_path / "wide.pt")
    with pytest.raises(StorageError, match="a shape differs"):
        Model.load(tmp_path / "wide.pt")
    engine = AdversarialEngine(table(), FREE, folder=tmp_path, entropy=1)
    engine.close()
    with pytest.raises(InputError, match=r"take its model\.pt"):
        Model.load(tmp_path / "checkpoint.pt")


def test_what_cannot_be_trained_is_told() -> None:
    with pytest.raises(InputError, match="at least 2"):
        AdversarialEngine(table(1), SMALL)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA"):
            AdversarialEngine(table(), SMALL.model_copy(update={"device": "cuda"}))
