"""The trainer actor: trains an adversarial engine in a thread, saves it as it goes, and says how far it is."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from chimera.core.errors import ChimeraError, InputError, NotBegun, StorageError, SwarmError
from chimera.core.types import Frozen
from chimera.sandbox.engine import AdversarialEngine, StepReport
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings

log = logging.getLogger(__name__)

LEDGER_FILE, CHECKPOINT_FILE, MODEL_FILE, HISTORY_FILE = "ledger.jsonl", "checkpoint.pt", "model.pt", "progress.jsonl"
"""What a training's folder holds. Only the model is made to be given away."""

TELL_S = 0.2
"""Between two reports, so that the steps do not wait for who hears of them."""

POINTS = 200
"""Lines of history that a training of all its steps leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """What is trained, and where it is kept: `folder` is on the machine of the trainer, and stays there."""

    table: Table
    settings: GanSettings
    folder: Path
    save_every: int = 100
    """Steps from one checkpoint to the next. A process that dies loses those since the last; they stay spent."""

    def __post_init__(self) -> None:
        if self.save_every < 1:
            raise InputError(f"a checkpoint is saved every 1 or more steps, not {self.save_every}")


class Progress(Frozen, ser_json_inf_nan="strings"):
    """How a training stands. `losses` are computed from the records without noise: no epsilon holds for them."""

    step: int
    """Of the networks as they are now."""
    spent: int
    """Steps that were made of the budget's, those that died with a process among them."""
    left: int
    epsilon: float
    """Never less than what was spent: steps that are reserved count as made."""
    delta: float
    saved: int
    """The step that is on disk."""
    losses: dict[str, float] = Field(default_factory=dict)
    steps_per_s: float = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at this pace; None before there is one."""
        return self.left / self.steps_per_s if self.steps_per_s else None


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest progress, counted: `number` is 0 before the first. `error` says why a training ended too early."""

    number: int
    progress: Progress | None
    ended: bool
    error: ChimeraError | None = None


class Trainer:
    """Trains in a process of its own, one plan at a time.

    All that matters is in the plan's folder. One that died knows nothing any more: `collect` raises NotBegun, and
    whoever collects begins anew, upon which it goes on from the folder, ledger and all.
    """

    def __init__(self, *, named: str) -> None:
        self._named = named
        self._run_id = ""
        self._standing = Standing(0, None, False)
        self._news = asyncio.Event()
        self._stopping = threading.Event()
        self._training: asyncio.Task[None] | None = None

    async def begin(self, run_id: str, plan: TrainPlan, since: Progress | None = None) -> None:
        """Train what is left of `plan`; what goes on is stopped. Beginning the same run twice changes nothing.

        `since` is the last that was heard of this training from a process that has died. Its folder must know of it.
        """
        if run_id == self._run_id:
            return
        await self.stop()
        self._run_id, self._standing, self._stopping = run_id, Standing(0, None, False), threading.Event()
        self._training = asyncio.create_task(self._run(plan, since))

    async def collect(self, run_id: str, after: int, wait_s: float) -> Standing:
        """How things stand, as soon as there is more than number `after`, or after `wait_s`."""
        if run_id != self._run_id:
            raise NotBegun(f"{self._named} does not train {run_id}")
        try:
            async with asyncio.timeout(wait_s):
                while run_id == self._run_id and self._standing.number <= after and not self._standing.ended:
                    await self._news.wait()
        except TimeoutError:
            pass
        if run_id != self._run_id:
            raise NotBegun(f"{self._named} was told to train something else")
        return self._standing

    async def stop(self) -> None:
        """End after the step that is being made, saved."""
        self._stopping.set()
        if self._training:
            await asyncio.gather(self._training, return_exceptions=True)
            self._training = None
        self._run_id = ""
        self._stands(None)

    def open(self, plan: TrainPlan) -> AdversarialEngine:
        """The engine on the plan's folder, as it was left."""
        return AdversarialEngine(plan.table, plan.settings, folder=plan.folder)

    def __repr__(self) -> str:  # the dashboard shows it
        return f"Trainer[{self._named}]"

    async def _run(self, plan: TrainPlan, since: Progress | None) -> None:
        loop = asyncio.get_running_loop()
        error: ChimeraError | None = None

        def tell(progress: Progress) -> None:
            loop.call_soon_threadsafe(self._stands, progress)

        try:
            await asyncio.to_thread(self._train, plan, since, self._stopping, tell)
        except ChimeraError as fault:
            error = fault
        except OSError as fault:
            error = StorageError(f"{plan.folder} cannot be written: {fault}")
        except Exception as fault:
            log.exception("%s: a training failed", self._named)
            error = SwarmError(f"the training in {plan.folder} failed: {type(fault).__name__}: {fault}")
        self._stands(self._standing.progress, ended=True, error=error)

    def _stands(self, progress: Progress | None, *, ended: bool = False, error: ChimeraError | None = None) -> None:
        self._standing = Standing(self._standing.number + 1, progress, ended, error)
        told, self._news = self._news, asyncio.Event()
        told.set()

    def _train(
        self,
        plan: TrainPlan,
        since: Progress | None,
        stopping: threading.Event,
        tell: Callable[[Progress], None],
    ) -> None:
        open_folder(plan.folder)
        if since is not None and not (plan.folder / LEDGER_FILE).is_file():
            raise _elsewhere(plan.folder)
        engine = self.open(plan)
        try:
            if since is not None and plan.settings.steps - engine.left < since.spent:
                raise _elsewhere(plan.folder)
            history = _History(engine, plan)
            tell(history.now)
            told_s = time.monotonic()
            while engine.left and not stopping.is_set():
                report = engine.train_gan_step()
                if engine.step % plan.save_every == 0:
                    engine.save()
                    history.saved = engine.step
                history.count(report)
                if time.monotonic() - told_s >= TELL_S:
                    tell(history.now)
                    told_s = time.monotonic()
            engine.save()
            engine.model().save(plan.folder / MODEL_FILE)
            history.end()
            tell(history.now)
        finally:
            engine.close()


class _History:
    """What is noted of a training while it goes on, some of it in a file beside the checkpoint."""

    def __init__(self, engine: AdversarialEngine, plan: TrainPlan) -> None:
        self.saved = engine.step
        self._engine, self._file = engine, plan.folder / HISTORY_FILE
        self._steps, self._delta = plan.settings.steps, plan.settings.delta
        self._every = max(1, self._steps // POINTS)
        self._began_s, self._made = time.monotonic(), 0
        self._losses: dict[str, float] = {}

    @property
    def now(self) -> Progress:
        engine = self._engine
        return Progress(
            step=engine.step,
            spent=self._steps - engine.left,
            left=engine.left,
            epsilon=engine.epsilon,
            delta=self._delta,
            saved=self.saved,
            losses=self._losses,
            steps_per_s=self._made / max(time.monotonic() - self._began_s, 1e-9),
        )

    def count(self, report: StepReport) -> None:
        self._made += 1
        self._losses = {**self._losses, **report.losses}
        if report.step % self._every == 0:
            self._note()

    def end(self) -> None:
        self.saved = self._engine.step
        if self._made:
            self._note()

    def _note(self) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(self.now.model_dump_json() + "\n")


def open_folder(folder: Path) -> None:
    """A folder that only its owner can look into, new or of a training before. Raises InputError for any other."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / LEDGER_FILE).exists() and any(folder.iterdir()):
            raise InputError(f"{folder} holds other things than a training: name a new folder")
        folder.chmod(0o700)
    except OSError as error:
        raise InputError(f"{folder} cannot be a training's folder: {error.strerror}") from error


def _elsewhere(folder: Path) -> StorageError:
    return StorageError(
        f"{folder} does not know of steps that were made: the trainer was started again on another machine, or the "
        "folder was replaced. Name a folder on a disk that all machines share, and restore the ledger"
    )


def read_history(folder: Path) -> tuple[Progress, ...]:
    """The progress noted in a training's folder, in order; a line that a dead process did not finish is left out."""
    try:
        lines = (folder / HISTORY_FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        try:
            found.append(Progress.model_validate_json(line))
        except ValueError:
            continue
    return tuple(found)
