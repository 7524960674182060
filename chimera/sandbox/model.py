"""What is released of a training: a generator, the moments that its latent is drawn from, and what both have cost."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from chimera.core.errors import InputError, StorageError
from chimera.core.types import Frozen
from chimera.sandbox.gan import Generator
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.privacy.moments import Moments
from chimera.sandbox.schema import Integers, Schema, Table
from chimera.sandbox.settings import GanSettings
from chimera.storage.whole_file import write_whole

FORMAT = "chimera sandbox model 1"

MAX_BYTES = 256 * 2**20

MAX_RECORDS = 1_000_000
"""Records that are made at once."""

PIECE = 8_192
"""Records that go through the network at once."""


class Privacy(Frozen, ser_json_inf_nan="strings"):
    """What was spent on a data set when a model was released: for each record, under adding or removing it."""

    epsilon: float
    delta: float
    releases: tuple[Release, ...] = ()

    @property
    def said(self) -> str:
        """For people. Infinite stays a word, so that nobody takes a missing guarantee for a large one."""
        return say_epsilon(self.epsilon, self.delta)


def say_epsilon(epsilon: float, delta: float) -> str:
    """`epsilon 0.98 at delta 1e-05`, or `epsilon: infinite`."""
    return f"epsilon {epsilon:.4g} at delta {delta:g}" if math.isfinite(epsilon) else "epsilon: infinite (not private)"


class Model:
    """Makes records. It needs no data, and what is made with it costs no privacy beyond its own (post-processing)."""

    def __init__(
        self, *, schema: Schema, settings: GanSettings, generator: Generator, moments: Moments, privacy: Privacy
    ) -> None:
        self.schema = schema
        self.settings = settings
        self.generator = generator
        self.moments = moments
        self.privacy = privacy

    def sample(self, n: int, rng: np.random.Generator, labels: Integers | None = None) -> Table:
        """n records on the schema's lattice; their classes as frequent as the released counts say, or `labels` (n,).

        Raises InputError for more than MAX_RECORDS.
        """
        if not 0 <= n <= MAX_RECORDS:
            raise InputError(f"{n} records: between 0 and {MAX_RECORDS} are made at once")
        classes = self.moments.labels(n, rng) if labels is None else labels
        latent = np.clip(self.moments.draw(classes, rng), -1.0, 1.0)
        made = [np.zeros((0, len(self.schema)))]
        device = next(self.generator.parameters()).device
        with torch.no_grad():
            for start in range(0, n, PIECE):
                piece = slice(start, start + PIECE)
                given = torch.as_tensor(latent[piece], dtype=torch.float32, device=device)
                known = torch.nn.functional.one_hot(torch.as_tensor(classes[piece]), len(self.moments.counts))
                noise = torch.as_tensor(rng.standard_normal((len(given), self.generator.noise)), dtype=torch.float32)
                made.append(self.generator(given, known.float().to(device), noise.to(device)).cpu().numpy())
        values = self.schema.decode(np.concatenate(made).astype(np.float64))
        return Table(self.schema, values, classes if self.schema.classes else None)

    def digest(self) -> str:
        """SHA-256 of everything that decides what is made, in hex: two models with the same digest are the same."""
        hashed = hashlib.sha256(f"{FORMAT}\0{self.schema.model_dump_json()}\0{self.privacy.model_dump_json()}".encode())
        arrays = [*kept(self.moments).values(), *self.generator.state_dict().values()]
        for array in arrays:
            hashed.update(array.cpu().numpy().tobytes())
        return hashed.hexdigest()

    def save(self, path: Path) -> None:
        """One file, whole or not at all. Raises OSError."""
        write_whole(path, packed({"model": self.state()}))

    def state(self) -> dict[str, Any]:
        return {
            "schema": self.schema.model_dump_json(),
            "settings": self.settings.model_dump_json(),
            "privacy": self.privacy.model_dump_json(),
            "moments": kept(self.moments),
            "generator": self.generator.state_dict(),
        }

    @classmethod
    def load(cls, path: Path) -> Model:
        """Raises InputError where there is none, StorageError where the file is not one of ours or is damaged."""
        state = unpacked(path).get("model")
        if not isinstance(state, dict):
            raise InputError(f"{path} holds no model: a training's checkpoint stays where it is; take its model.pt")
        return cls.of(state)

    @classmethod
    def of(cls, state: dict[str, Any]) -> Model:
        try:
            schema = Schema.model_validate_json(state["schema"])
            settings = GanSettings.model_validate_json(state["settings"])
            moments = restored(schema, state["moments"])
            generator = Generator(len(schema), len(moments.counts), settings)
            generator.load_state_dict(state["generator"])
            privacy = Privacy.model_validate_json(state["privacy"])
            least = PrivacyLedger(delta=privacy.delta, releases=privacy.releases).epsilon()
            if not privacy.epsilon >= least * (1.0 - 1e-6):
                raise StorageError(f"the model claims epsilon {privacy.epsilon:.4g}, and lists releases of {least:.4g}")
        except (KeyError, RuntimeError, ValidationError, TypeError, AttributeError) as error:
            raise StorageError(f"this is no model that can be used: {error}") from error
        generator.requires_grad_(False)
        return cls(schema=schema, settings=settings, generator=generator, moments=moments, privacy=privacy)


def kept(moments: Moments) -> dict[str, torch.Tensor]:
    """As tensors, beside a schema."""
    return {name: torch.as_tensor(getattr(moments, name)) for name in ("counts", "means", "covariances")}


def restored(schema: Schema, state: dict[str, torch.Tensor]) -> Moments:
    """Raises StorageError where they are not moments of that schema."""
    classes, columns = max(1, len(schema.classes)), len(schema)
    shapes = {"counts": (classes,), "means": (classes, columns), "covariances": (classes, columns, columns)}
    if {name: tuple(each.shape) for name, each in state.items()} != shapes:
        raise StorageError("these are not the moments of its schema: a shape differs")
    arrays = {name: each.numpy().astype(np.float64) for name, each in state.items()}
    if not all(np.isfinite(each).all() for each in arrays.values()) or (arrays["counts"] <= 0.0).any():
        raise StorageError("the moments hold what is no finite number, or a class of no records")
    return Moments(schema=schema, **arrays)


def privacy_of(ledger: PrivacyLedger) -> Privacy:
    return Privacy(epsilon=ledger.epsilon(), delta=ledger.delta, releases=ledger.releases)


def packed(state: dict[str, Any]) -> bytes:
    """Tensors and plain values as bytes that hold no code."""
    out = io.BytesIO()
    torch.save({"format": FORMAT, **state}, out)
    return out.getvalue()


def unpacked(path: Path) -> dict[str, Any]:
    """What `packed` wrote. Nothing of the file is run. Raises InputError, StorageError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StorageError(f"{path}: larger than {MAX_BYTES} bytes: it is no model of ours")
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MAX_BYTES:
                raise StorageError(f"{path} unpacks to more than {MAX_BYTES} bytes: it is no model of ours")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: `chimera sandbox train` makes one") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path}: it cannot be read as a model: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise StorageError(f"{path}: this is not a file of {FORMAT!r}")
    return state
