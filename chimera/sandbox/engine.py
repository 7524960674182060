"""The adversarial engine: learns a table under differential privacy, and makes records and threats like it."""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from chimera.core.errors import InputError, PrivacyError
from chimera.core.rng import derive_seed
from chimera.core.types import Frozen
from chimera.sandbox.batches import ThreatBatch, generate_threats
from chimera.sandbox.checkpoint import data_digest, open_ledger, read_checkpoint
from chimera.sandbox.gan import Gan, pick_device
from chimera.sandbox.model import Model, kept, packed, privacy_of, restored
from chimera.sandbox.privacy.gaussian import sigma_for
from chimera.sandbox.privacy.kept import KeptLedger
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release, noise_for
from chimera.sandbox.privacy.moments import Moments, release_counts, release_moments
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings
from chimera.sandbox.threats import BatchDetector, ThreatKind
from chimera.storage.whole_file import write_whole

RESERVED = 25
"""Steps that are written down as spent before the first of them is made: a process that dies has counted at most so
many too much, and none too little."""

MAX_WEIGHT = 1e4
"""The largest number in a generator that others have sent."""

MAX_MU = 1e4

COUNTS_SHARE = 0.05
"""Of the budget, as `latent_share` is: with less, a few hundred records would have their classes' shares wrong."""

COUNTS, MOMENTS, DISCRIMINATOR = "class counts", "moments", "discriminator"


class StepReport(Frozen, ser_json_inf_nan="strings"):
    """How things stand after a step of the discriminator."""

    step: int
    losses: dict[str, float]
    """discriminator, and generator where it made a step too, in nats. The discriminator's is of the records themselves,
    without noise: it is for whoever holds the data, and no part of what is released."""
    epsilon: float
    """What is spent of the data, with what is reserved: never too low."""
    delta: float
    left: int
    """Steps that the budget still allows."""


class Batch:
    """Records that `AdversarialEngine.sample` has drawn, for one step. Epsilon rests on how they were drawn."""

    def __init__(self, rows: Tensor, *, drawn_by: object) -> None:
        self.rows = rows
        self.drawn_by = drawn_by


class AdversarialEngine:
    """Trains a GAN on `table`, in `folder` where it is to outlive this process.

    There the ledger of what was spent is on disk before it is spent, and `save` keeps the rest. An engine that is made
    on a folder that holds both goes on from there: steps that a dead process had reserved stay spent.

    Without `entropy` the noise comes from the operating system. With it, training can be repeated, and its epsilon is
    worth what the secrecy of that number is: for tests and measurements. The number of records is taken to be public.

    Raises InputError for a table or settings that cannot be used, PrivacyError where the budget is spent, StorageError.
    """

    def __init__(
        self, table: Table, settings: GanSettings, *, folder: Path | None = None, entropy: int | None = None
    ) -> None:
        if len(table) < 2:
            raise InputError(f"{len(table)} records: there must be at least 2 to learn from")
        self.settings = settings
        self.table = table
        self.device = pick_device(settings.device)
        self.step = 0
        self._here = 0
        self._anchor: Tensor | None = None
        self._mu = 0.0
        self._checkpoint = folder / "checkpoint.pt" if folder else None
        self.ledger: PrivacyLedger = open_ledger(folder, settings)
        """All that was released of the table, by this process and those before it."""
        try:
            self._set_up(entropy)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have the folder. What was not saved is lost, and stays spent."""
        if isinstance(self.ledger, KeptLedger):
            self.ledger.close()

    def _set_up(self, entropy: int | None) -> None:
        table, device = self.table, self.device
        self._real = torch.as_tensor(table.encoded, dtype=torch.float32, device=device)
        labels = np.zeros(len(table), np.int64) if table.labels is None else table.labels
        self._labels = torch.as_tensor(labels, device=device)
        self._rate = min(1.0, self.settings.batch / len(table))
        self._shaken = _generator(entropy, "noise", self._past)
        """Tosses and noise: all that protects the records."""
        self._drawn = torch.Generator(device)
        """Latents, from what was released already."""
        self._drawn.manual_seed(int(_generator(entropy, "latents", self._past).integers(2**63)))
        state = read_checkpoint(self._checkpoint, table=table, settings=self.settings, ledger=self.ledger)
        if state is None:
            self.moments, self.noise_multiplier = self._released()
        else:
            self.step, self.noise_multiplier = int(state["step"]), float(state["noise_multiplier"])
            self.moments = restored(table.schema, state["moments"])
        self._means, self._roots, self._shares = self._latent_tensors()
        self._gan = Gan(
            columns=len(table.schema),
            classes=len(self.moments.counts),
            settings=self.settings,
            noise_multiplier=self.noise_multiplier,
            shaken=self._shaken,
            device=device,
        )
        if state is None:
            self.save()
        else:
            self._gan.load(state["gan"])

    # What is spent

    @property
    def left(self) -> int:
        """Steps that can still be made."""
        return self.settings.steps - self._past + self._here

    @property
    def sample_rate(self) -> float:
        """The chance of each record to be in a batch."""
        return self._rate

    @property
    def epsilon(self) -> float:
        """At least what is spent: the bound by RDP while training goes on, and no more than the budget, which holds."""
        if not self.settings.private:
            return math.inf
        return min(self.ledger.epsilon("rdp"), self.settings.epsilon)

    @property
    def _past(self) -> int:
        """Steps that were ever reserved."""
        return sum(release.steps for release in self.ledger.releases if release.what == DISCRIMINATOR)

    # Training

    def sample(self) -> Batch:
        """A batch: each record is in it with the same chance, whoever else is (Poisson sampling)."""
        tossed = np.flatnonzero(self._shaken.random(len(self._real)) < self._rate)
        return Batch(torch.as_tensor(tossed, device=self.device), drawn_by=self)

    def train_gan_step(self, batch: Batch | None = None) -> StepReport:
        """One step of the discriminator, and at every `critic_steps`-th one of the generator.

        `batch` is one that `sample` has drawn, for one step; by default a new one. Raises PrivacyError where the
        budget allows no further step, InputError for records of the caller's choice: no epsilon would hold for them.
        """
        batch = self.sample() if batch is None else batch
        if not isinstance(batch, Batch) or batch.drawn_by is not self:
            raise InputError("a batch is drawn by `engine.sample()`, for one step: epsilon rests on how it was drawn")
        if self._here == 0:
            self._reserve()
        self._here -= 1
        batch.drawn_by = None
        return self._stepped(batch.rows)

    def _reserve(self) -> None:
        more = min(RESERVED, self.left)
        if more <= 0:
            raise PrivacyError(
                f"the {self.settings.steps} steps that the budget was made for are spent: release the model, or start "
                "in another folder, with a budget that counts what was spent here"
            )
        self.ledger.add(
            Release(what=DISCRIMINATOR, noise_multiplier=self.noise_multiplier, sample_rate=self._rate, steps=more)
        )
        self._here = more

    def _stepped(self, rows: Tensor) -> StepReport:
        gan, labels = self._gan, self._labels[rows]
        classes = gan.one_hot(labels)
        fake = self.fakes(labels)
        losses = {"discriminator": gan.critic_step(self._real[rows], fake, classes)}
        self.step += 1
        if self.step % self.settings.critic_steps == 0:
            drawn = torch.multinomial(self._shares, self.settings.batch, replacement=True, generator=self._drawn)
            losses["generator"] = gan.generator_step(
                self._latents(drawn), gan.one_hot(drawn), self._noise(len(drawn)), self._anchor, self._mu
            )
        return StepReport(
            step=self.step, losses=losses, epsilon=self.epsilon, delta=self.settings.delta, left=self.left
        )

    def fakes(self, labels: Tensor) -> Tensor:
        """(n,) classes -> (n, columns) encoded records, made as those of a discriminator's step are."""
        with torch.no_grad():
            made: Tensor = self._gan.generator(
                self._latents(labels), self._gan.one_hot(labels), self._noise(len(labels))
            )
        return made

    def observed(self, table: Table) -> Tensor:
        """(n, parameters) what each record of `table` would add to the next step's sum, were it in: for audits.

        It costs nothing if the records are made up, and shows all of those that are not.
        """
        known = np.zeros(len(table), np.int64) if table.labels is None else table.labels
        labels = torch.as_tensor(known, device=self.device)
        real = torch.as_tensor(table.encoded, dtype=torch.float32, device=self.device)
        return self._gan.record_gradients(real, self.fakes(labels), self._gan.one_hot(labels))

    def released(self) -> Tensor:
        """(parameters,) what the last step took of the data, noise and all. Who sees it learns no more than epsilon."""
        return self._gan.released()

    def _latents(self, labels: Tensor) -> Tensor:
        """(n,) classes -> (n, columns) latents, drawn from the moments that were released."""
        drawn = self._normal(len(labels), len(self.table.schema))
        return (self._means[labels] + torch.einsum("nij,nj->ni", self._roots[labels], drawn)).clamp_(-1.0, 1.0)

    def _noise(self, n: int) -> Tensor:
        return self._normal(n, self.settings.noise)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._drawn, device=self.device)

    # What it is for

    def generate_threats(
        self, n: int, kind: ThreatKind, strength: float, *, detector: BatchDetector | None = None, windows: bool = False
    ) -> ThreatBatch:
        """Threats from the model as it is now; see `chimera.sandbox.batches`, also for what they cost."""
        rng = np.random.default_rng(secrets.randbits(63))
        return generate_threats(self.model(), n, kind, strength, rng=rng, detector=detector, windows=windows)

    # What others share: the generator, which is post-processing of a private discriminator

    def generator(self) -> list[npt.NDArray[np.float32]]:
        """The generator's weights, in order."""
        return [each.detach().cpu().numpy().copy() for each in self._gan.generator.state_dict().values()]

    def load_generator(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Go on from these weights, a stranger's perhaps. Raises InputError where they do not fit, or are wild."""
        known = self._gan.generator.state_dict()
        if [np.shape(each) for each in arrays] != [tuple(each.shape) for each in known.values()]:
            raise InputError("these are not the weights of this generator: their number or a shape differs")
        if not all((np.abs(each) <= MAX_WEIGHT).all() for each in arrays):
            raise InputError(f"a weight is not a finite number of at most {MAX_WEIGHT:g}")
        state = {name: torch.as_tensor(np.asarray(each)) for name, each in zip(known, arrays, strict=True)}
        self._gan.generator.load_state_dict(state)
        self._gan.averaged.load_state_dict(state)

    def draw_towards(self, arrays: Sequence[npt.NDArray[Any]] | None, mu: float) -> None:
        """Have the generator's steps drawn to these weights by mu / 2 * distance^2, as FedProx does; None ends it.

        Raises InputError for a `mu` that is not 0 to MAX_MU.
        """
        if not 0.0 <= mu <= MAX_MU:
            raise InputError(f"mu is 0 to {MAX_MU:g}, not {mu}")
        self._anchor, self._mu = None, mu
        if arrays is not None:
            flat = np.concatenate([np.asarray(each, np.float32).ravel() for each in arrays])
            self._anchor = torch.as_tensor(flat, device=self.device)

    # What is left when this process is gone

    def model(self) -> Model:
        """What can be released now, with what it has cost."""
        generator = copy.deepcopy(self._gan.averaged).cpu()
        return Model(
            schema=self.table.schema,
            settings=self.settings,
            generator=generator,
            moments=self.moments,
            privacy=privacy_of(self.ledger),
        )

    def save(self) -> None:
        """Write the checkpoint, whole or not at all. It holds the discriminator: keep it where the data is kept."""
        if self._checkpoint is None:
            return
        state = {
            "step": self.step,
            "settings": self.settings.model_dump_json(),
            "schema": self.table.schema.model_dump_json(),
            "data": data_digest(self.table),
            "releases": [release.model_dump_json() for release in self.ledger.releases],
            "noise_multiplier": self.noise_multiplier,
            "moments": kept(self.moments),
            "gan": self._gan.state(),
        }
        write_whole(self._checkpoint, packed(state))

    def _released(self) -> tuple[Moments, float]:
        """Class counts and moments, each within its share, and the noise with which the steps stay within the rest."""
        settings = self.settings
        together = sigma_for(epsilon=settings.epsilon, delta=settings.delta)
        of_counts = Release(what=COUNTS, noise_multiplier=together / math.sqrt(COUNTS_SHARE))
        of_moments = Release(what=MOMENTS, noise_multiplier=together / math.sqrt(settings.latent_share))
        before = [of_counts, of_moments] if self.table.schema.classes else [of_moments]
        noise_multiplier = noise_for(  # takes a while, and nothing is spent until it is found
            epsilon=settings.epsilon,
            delta=settings.delta,
            sample_rate=self._rate,
            steps=settings.steps,
            beside=before,
        )
        for release in before:
            self.ledger.add(release)
        counts = np.array([float(len(self.table))])
        if self.table.schema.classes:
            counts = release_counts(self.table, noise_multiplier=of_counts.noise_multiplier, rng=self._shaken)
        noise = of_moments.noise_multiplier
        return release_moments(self.table, counts=counts, noise_multiplier=noise, rng=self._shaken), noise_multiplier

    def _latent_tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(classes, columns) means, (classes, columns, columns) roots of covariances, (classes,) shares."""

        moments = self.moments
        arrays = moments.means, np.linalg.cholesky(moments.covariances), moments.counts / moments.counts.sum()
        means, roots, shares = (torch.as_tensor(each, dtype=torch.float32, device=self.device) for each in arrays)
        return means, roots, shares


def _generator(entropy: int | None, *names: str | int) -> np.random.Generator:
    """Philox, whose key of 128 bits is from the operating system; or follows from `entropy` and the names."""
    return np.random.Generator(
        np.random.Philox(secrets.randbits(256) if entropy is None else derive_seed("sandbox", entropy, *names))
    )
