"""A small sandbox for tests: a linear generator, x = W z + b, fitted to records of mean 0.97; and its enemies."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from chimera.core.errors import PrivacyError
from chimera.sandbox.federation.client import client_app
from chimera.sandbox.federation.flower import (
    Array,
    ArrayRecord,
    ClientApp,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from chimera.sandbox.federation.local import Floating, TrainReport

HERE = "tests.unit.sandbox.federation.tiny"

TARGET, SPREAD, COLUMNS, RECORDS = 0.97, 0.1, 3, 400

LEARNING_RATE = 0.2


def records(seed: int) -> Floating:
    """(RECORDS, COLUMNS) the private data of the sandbox with that seed."""
    return np.random.default_rng(seed).normal(TARGET, SPREAD, (RECORDS, COLUMNS))


def blank() -> list[Floating]:
    """The generator that a federation begins with: W and b."""
    return [np.eye(COLUMNS, dtype=np.float32), np.zeros(COLUMNS, np.float32)]


def mean(arrays: Sequence[Floating]) -> float:
    """The mean of what the generator makes."""
    return float(arrays[1].mean())


class TinyTrainer:
    """Fits W and b by gradient descent to the mean and covariance of the records. Its epsilon is 0.01 a step."""

    def __init__(self, folder: Path, *, seed: int, budget: float = 1e9) -> None:
        self._folder = folder
        self._records = records(seed)
        self._budget = budget
        self.steps = 0
        self._arrays = blank()
        if (folder / "tiny.npz").exists():
            with np.load(folder / "tiny.npz") as kept:
                self._arrays = [kept["W"], kept["b"]]
            self.steps = int(json.loads((folder / "ledger.json").read_text()))

    def generator(self) -> list[Floating]:
        return [array.copy() for array in self._arrays]

    def load_generator(self, arrays: Sequence[Floating]) -> None:
        self._arrays = [array.copy() for array in arrays]

    def train(self, steps: int, *, anchor: Sequence[Floating] | None, proximal_mu: float) -> TrainReport:
        if (self.steps + steps) * 0.01 > self._budget:
            raise PrivacyError("the privacy budget of this sandbox is spent")
        self.steps += steps
        (self._folder / "ledger.json").write_text(json.dumps(self.steps))
        centre, covariance = self._records.mean(axis=0), np.cov(self._records.T)
        for _ in range(steps):
            W, b = self._arrays
            slopes = [2 * (W @ W.T - covariance) @ W, b - centre]
            if anchor is not None:
                slopes = [s + proximal_mu * (a - o) for s, a, o in zip(slopes, self._arrays, anchor, strict=True)]
            new = [a - LEARNING_RATE * s for a, s in zip(self._arrays, slopes, strict=True)]
            self._arrays = [array.astype(np.float32) for array in new]
        loss = float(np.square(self._arrays[1] - centre).sum())
        return TrainReport(records=RECORDS, epsilon=0.01 * self.steps, delta=1e-5, losses={"generator": loss})

    def save(self) -> None:
        W, b = self._arrays
        np.savez(self._folder / "tiny.npz", W=W, b=b)

    def close(self) -> None:
        """Nothing is held."""


def open_trainer(context: Context) -> TinyTrainer:
    config = {**context.run_config, **context.node_config}
    folder = Path(str(config["folder"]))
    folder.mkdir(parents=True, exist_ok=True)
    return TinyTrainer(folder, seed=int(config["seed"]), budget=float(config.get("budget", 1e9)))


honest = client_app(open_trainer)


def enemy(spoil: Callable[[RecordDict], None]) -> ClientApp:
    """An app that trains as it is told and sends something else."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if reply.has_content():
            spoil(reply.content)
        return reply

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return honest(message, context)

    return app


def _changed(change: Callable[[Floating], Floating]) -> Callable[[RecordDict], None]:
    def spoil(content: RecordDict) -> None:
        for name, array in content.array_records["arrays"].items():
            content.array_records["arrays"][name] = Array(np.asarray(change(array.numpy())))

    return spoil


class Boom:
    """Unpickling it would be noticed."""

    unpickled = False

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (exec, (f"import {HERE} as t; t.Boom.unpickled = True",))


def _pickled(content: RecordDict) -> None:
    for name, array in content.array_records["arrays"].items():
        content.array_records["arrays"][name] = Array(array.dtype, array.shape, "cloudpickle", pickle.dumps(Boom()))


def _object_array(content: RecordDict) -> None:
    out = io.BytesIO()
    np.save(out, np.array([Boom()] * 9, object), allow_pickle=True)
    array = content.array_records["arrays"]["generator/0"]
    content.array_records["arrays"]["generator/0"] = Array(array.dtype, array.shape, array.stype, out.getvalue())


def _lying_header(content: RecordDict) -> None:
    array = content.array_records["arrays"]["generator/0"]
    data = array.data.replace(b"(3, 3)", b"(1<<40,)"[:6])
    content.array_records["arrays"]["generator/0"] = Array(array.dtype, array.shape, array.stype, data)


def _more_arrays(content: RecordDict) -> None:
    content.array_records["arrays"]["generator/2"] = Array(records(0))


def _data_beside(content: RecordDict) -> None:
    content["private"] = ArrayRecord([records(0)])


def _greedy(content: RecordDict) -> None:
    content.metric_records["metrics"]["num-examples"] = 10**12


def _strange_metrics(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"num-examples": [1.0, 2.0], "epsilon": 1.0, "delta": 0.0})


def _negative_epsilon(content: RecordDict) -> None:
    content.metric_records["metrics"]["epsilon"] = -1.0


scaled = enemy(_changed(lambda array: array * 1000))
flipped = enemy(_changed(lambda array: -10 * array))
not_a_number = enemy(_changed(lambda array: array * np.float32("nan")))
infinite = enemy(_changed(lambda array: array + np.float32("inf")))
beyond = enemy(_changed(lambda array: array + np.float32(1e30)))
wrong_shape = enemy(_changed(lambda array: array[:1]))
wrong_type = enemy(_changed(lambda array: array.astype(np.float64)))
pickled = enemy(_pickled)
object_array = enemy(_object_array)
lying_header = enemy(_lying_header)
more_arrays = enemy(_more_arrays)
data_beside = enemy(_data_beside)
greedy = enemy(_greedy)
strange_metrics = enemy(_strange_metrics)
negative_epsilon = enemy(_negative_epsilon)

lazy = ClientApp()
broken = ClientApp()


@lazy.train()
def _echo(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": RECORDS, "epsilon": 0.0, "delta": 0.0})
    return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)


@broken.train()
def _raise(message: Message, context: Context) -> Message:
    raise RuntimeError(f"a record: {records(0)[0]}")


deadly = ClientApp()


@deadly.train()
def _die(message: Message, context: Context) -> Message:
    """Its process is killed in the middle of its second training."""
    if message.content.config_records["config"]["server-round"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(message, context)
