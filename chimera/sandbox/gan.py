"""A conditional GAN whose discriminator alone meets the data, and learns from it by DP-SGD.

The generator is a correction to a latent that was released under differential privacy already (`privacy/moments.py`):
`x = clip(z + f(z, noise, class))`, with f = 0 at first. So before its first step it says what the moments say, and
every step starts from there; a plain GAN starts from nothing, and spends its budget on getting to the mean.

Opacus' hooks give the discriminator's gradient of each record. Record i and the fake of the same index make one sum,
which is clipped as a whole: adding or removing a record moves the step by one clipped gradient. Several steps of the
discriminator go to one of the generator, which is the lever of "Private GANs, Revisited" (Bie et al. 2023).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional

from chimera.core.errors import InputError, StorageError
from chimera.sandbox.settings import GanSettings

# Opacus' hooks are on every layer, and the first has an input that needs no gradient, as it should.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


def pick_device(asked: str) -> torch.device:
    """auto is CUDA where there is one. Raises InputError for a device that is not there."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here: say --device cpu, or auto")
    return torch.device(asked)


class Generator(nn.Module):
    """(n, columns) latents in [-1, 1] and their classes (n, classes), one-hot -> (n, columns) records in [-1, 1]."""

    def __init__(self, columns: int, classes: int, settings: GanSettings) -> None:
        super().__init__()
        self.noise = settings.noise
        self.body = nn.Sequential(
            nn.Linear(columns + classes + settings.noise, settings.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(settings.hidden, settings.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(settings.hidden, columns),
        )
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, latent: Tensor, classes: Tensor, noise: Tensor) -> Tensor:
        moved: Tensor = latent + self.body(torch.cat([latent, classes, noise], dim=1))
        moved = torch.nan_to_num(moved)  # weights may come from others, who must not mark a class by it
        return moved + (moved.clamp(-1.0, 1.0) - moved).detach()  # clipped, and yet it can be pulled back


class Discriminator(nn.Sequential):
    """(n, columns + classes) -> (n, 1) logits, higher for what looks real. No layer mixes records."""

    def __init__(self, columns: int, classes: int, settings: GanSettings) -> None:
        super().__init__(
            nn.Linear(columns + classes, settings.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(settings.hidden, settings.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(settings.hidden, 1),
        )


class Shielded(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser, with noise from numpy's Philox and its key of 128 bits.

    On a CPU torch's own generator keeps 32 bits of its seed: few enough to try them all, and take the noise off. A
    gradient that is no finite number counts as nothing: clipping would let it pass, and no noise would hide it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, shaken: np.random.Generator, **options: Any) -> None:
        super().__init__(optimizer, **options)
        self._shaken = shaken

    def clip_and_accumulate(self) -> None:
        for parameter in self.params:
            torch.nan_to_num_(parameter.grad_sample, nan=0.0, posinf=0.0, neginf=0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        spread = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            drawn = self._shaken.standard_normal(tuple(parameter.summed_grad.shape), dtype=np.float32)
            noise = torch.from_numpy(drawn).to(parameter.summed_grad)
            parameter.grad = (parameter.summed_grad + spread * noise).view_as(parameter)


class Gan:
    """The two networks and their optimisers. `noise_multiplier` 0 is training without privacy, and without Opacus.

    `shaken` makes the noise that protects the data: seed it from the operating system, or the noise can be taken off.
    """

    def __init__(
        self,
        *,
        columns: int,
        classes: int,
        settings: GanSettings,
        noise_multiplier: float,
        shaken: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.device = device
        self._settings = settings
        self._classes = classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.generator = Generator(columns, classes, settings).to(device)
            critic: nn.Module = Discriminator(columns, classes, settings).to(device)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)
        adam = {"betas": (0.5, 0.9)}
        self._pull: Any = torch.optim.Adam(self.generator.parameters(), settings.generator_rate, **adam)  # type: ignore[arg-type]
        self._hooks: GradSampleModule | None = None
        if noise_multiplier:
            critic = self._hooks = GradSampleModule(critic, loss_reduction="mean")
        self.critic = critic
        self._push: Any = torch.optim.Adam(critic.parameters(), settings.critic_rate, **adam)  # type: ignore[arg-type]
        if noise_multiplier:
            self._push = Shielded(
                self._push,
                shaken=shaken,
                noise_multiplier=noise_multiplier,
                max_grad_norm=settings.clip,
                expected_batch_size=settings.batch,
            )
        self._parameters = list(critic.parameters())

    def one_hot(self, labels: Tensor) -> Tensor:
        """(n,) -> (n, classes)."""
        return functional.one_hot(labels, self._classes).to(torch.float32)

    def critic_step(self, real: Tensor, fake: Tensor, classes: Tensor) -> float:
        """One step of the discriminator on n records and as many fakes of the same classes; n may be 0."""
        self._push.zero_grad(set_to_none=True)
        told_real = self.critic(torch.cat([real, classes], dim=1))
        told_fake = self.critic(torch.cat([fake, classes], dim=1))
        of = max(1, len(real))
        loss = (functional.softplus(-told_real).sum() + functional.softplus(told_fake).sum()) / of
        loss.backward()  # type: ignore[no-untyped-call]
        self._push.step()
        return float(loss.detach())

    def generator_step(self, latent: Tensor, classes: Tensor, noise: Tensor, anchor: Tensor | None, mu: float) -> float:
        """One step of the generator, the discriminator frozen. `anchor` draws it by mu / 2 * distance^2 (FedProx)."""
        self._freeze(True)
        try:
            fake = self.generator(latent, classes, noise)
            loss = functional.softplus(-self.critic(torch.cat([fake, classes], dim=1))).mean()
            pulled = loss
            if anchor is not None and mu:
                here = nn.utils.parameters_to_vector(self.generator.parameters())
                pulled = loss + mu / 2 * (here - anchor).square().sum()
            self._pull.zero_grad(set_to_none=True)
            pulled.backward()  # type: ignore[no-untyped-call]
            self._pull.step()
        finally:
            self._freeze(False)
        with torch.no_grad():
            for kept, now in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(now, 1.0 - self._settings.averaging)
        return float(loss.detach())

    def released(self) -> Tensor:
        """(parameters,) all that the last step of the discriminator took of the data: a sum of gradients, and noise."""
        batch = self._settings.batch
        return torch.cat([p.grad.flatten() for p in self._parameters if p.grad is not None]) * batch

    def record_gradients(self, real: Tensor, fake: Tensor, classes: Tensor) -> Tensor:
        """(n, parameters) what each of n records would add to the next step's sum: its gradient, clipped.

        Computed apart from Opacus, so that an audit that builds on it does not share a mistake with what it judges.
        """
        with torch.device("meta"):
            plain = Discriminator(real.shape[1], self._classes, self._settings)
        weights = {name: each.detach() for name, each in self._bare.named_parameters()}

        def loss(weights: dict[str, Tensor], real: Tensor, fake: Tensor, classes: Tensor) -> Tensor:
            both = torch.stack([torch.cat([real, classes]), torch.cat([fake, classes])])
            told = torch.func.functional_call(plain, weights, (both,))
            return (functional.softplus(-told[0]) + functional.softplus(told[1])).sum()

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(weights, real, fake, classes)
        flat = torch.cat([gradient.flatten(1) for gradient in each.values()], dim=1)
        clipped: Tensor = flat * (self._settings.clip / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp(max=1.0)
        return clipped

    def _freeze(self, frozen: bool) -> None:
        if self._hooks is not None:
            (self._hooks.disable_hooks if frozen else self._hooks.enable_hooks)()
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen)

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain numbers."""
        return {
            "generator": self.generator.state_dict(),
            "averaged": self.averaged.state_dict(),
            "critic": self._bare.state_dict(),
            "pull": self._pull.state_dict(),
            "push": self._push.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises StorageError where it is another model's."""
        try:
            self.generator.load_state_dict(state["generator"])
            self.averaged.load_state_dict(state["averaged"])
            self._bare.load_state_dict(state["critic"])
            self._pull.load_state_dict(state["pull"])
            self._push.load_state_dict(state["push"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise StorageError(f"the checkpoint does not fit this model: {error}") from error

    @property
    def _bare(self) -> nn.Module:
        if self._hooks is None:
            return self.critic
        bare: nn.Module = self._hooks._module
        return bare
