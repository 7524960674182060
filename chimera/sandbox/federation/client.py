"""The ClientApp of a sandbox: it trains what the federation sends, and gives back the generator and nothing else.

The same app answers in a Ray actor and in a SuperNode. Each message may find a process of its own, so the trainer is
opened from its folder every time, and saved before it is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np

from chimera.core.errors import ChimeraError, InputError, PrivacyError, ReplyError
from chimera.sandbox.federation.flower import (
    ArrayRecord,
    ClientApp,
    ConfigRecord,
    Context,
    Error,
    ErrorCode,
    Message,
    MetricRecord,
    RecordDict,
)
from chimera.sandbox.federation.local import Floating, LocalTrainer, TrainReport
from chimera.sandbox.federation.wire import ARRAYS, CONFIG, METRICS, Blueprint

log = logging.getLogger(__name__)

OpenTrainer = Callable[[Context], LocalTrainer]
"""Opens the sandbox's trainer: where its folder and its data are is in `context.node_config` and `run_config`."""

Answer = Callable[[Message, Context], RecordDict]

STEPS, PROXIMAL_MU, RECORDS, DRIFT = "steps", "proximal-mu", "num-examples", "drift"
"""Keys of what is asked and told; `proximal-mu` and `num-examples` are Flower's own."""

LOSS = "loss-"

MAX_STEPS = 1_000_000
"""Training steps that one message may ask for."""

_SPENT, _EPSILON = "chimera.spent", "epsilon"


def client_app(open_trainer: OpenTrainer) -> ClientApp:
    """The app that answers for a sandbox. What fails is told in words of Chimera's own: never in a traceback, which
    might repeat a record of the private data."""
    app = ClientApp()

    @app.train()
    @_answering
    def train(message: Message, context: Context) -> RecordDict:
        with _opened(open_trainer, context) as trainer:
            return _train(trainer, message, context)

    @app.evaluate()
    @_answering
    def evaluate(message: Message, context: Context) -> RecordDict:
        with _opened(open_trainer, context) as trainer:
            return _evaluate(trainer, message)

    return app


@contextmanager
def _opened(open_trainer: OpenTrainer, context: Context) -> Iterator[LocalTrainer]:
    """What goes wrong before there is a trainer may quote a record: the log has it, and the reply has not."""
    try:
        trainer = open_trainer(context)
    except Exception as error:
        log.exception("node %d cannot open its trainer", context.node_id)
        raise ReplyError("the sandbox cannot open its data or its folder; its own log says why") from error
    with closing(trainer):
        yield trainer


def _answering(answer: Answer) -> Callable[[Message, Context], Message]:
    def answered(message: Message, context: Context) -> Message:
        try:
            return Message(answer(message, context), reply_to=message)
        except ChimeraError as error:
            return failed(message, str(error))
        except Exception as error:
            log.exception("node %d could not answer", context.node_id)
            return failed(message, f"{type(error).__name__} in the sandbox's own code; its log says where")

    return answered


def failed(message: Message, reason: str) -> Message:
    """The reply to `message` that says why there is none."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def _train(trainer: LocalTrainer, message: Message, context: Context) -> RecordDict:
    blueprint = Blueprint.of(trainer.generator())
    arrays, config = _asked(message, blueprint)
    steps, proximal_mu = config.get(STEPS), config.get(PROXIMAL_MU, 0.0)
    if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
        raise InputError(f"a message asks for 1 to {MAX_STEPS} training steps, and not for {steps!r}")
    if not isinstance(proximal_mu, float) or not 0.0 <= proximal_mu < float("inf"):
        raise InputError(f"proximal-mu is a number from 0 up, and not {proximal_mu!r}")
    trainer.load_generator(arrays)
    report = trainer.train(steps, anchor=arrays if proximal_mu else None, proximal_mu=proximal_mu)
    trainer.save()
    _never_forget(report, context)
    return RecordDict({ARRAYS: blueprint.pack(trainer.generator()), METRICS: _told(report)})


def _told(report: TrainReport) -> MetricRecord:
    losses = {LOSS + name: value for name, value in report.losses.items()}
    return MetricRecord({RECORDS: report.records, "epsilon": report.epsilon, "delta": report.delta, **losses})


def _never_forget(report: TrainReport, context: Context) -> None:
    """Flower keeps the state of a node for as long as a run lasts: a ledger that was lost or rolled back is noticed.

    Raises PrivacyError then: what the trainer claims is less than what was spent.
    """
    spent = context.state.get(_SPENT)
    before = spent.get(_EPSILON, 0.0) if isinstance(spent, MetricRecord) else 0.0
    if isinstance(before, float) and report.epsilon < before * (1 - 1e-9):
        raise PrivacyError(
            f"the trainer's ledger says epsilon {report.epsilon:g}, and {before:g} was spent in this run before: "
            "its folder was lost or replaced by an older one; restore it, or leave the federation"
        )
    context.state[_SPENT] = MetricRecord({_EPSILON: report.epsilon})


def _evaluate(trainer: LocalTrainer, message: Message) -> RecordDict:
    """How far the federation's generator is from the sandbox's own: the root of the mean squared difference.

    It looks at no record: a score of the generator on the private data would have to be paid for.
    """
    own = trainer.generator()
    arrays, _ = _asked(message, Blueprint.of(own))
    return RecordDict({METRICS: MetricRecord({RECORDS: 1, DRIFT: drift(own, arrays)})})


def drift(own: Sequence[Floating], other: Sequence[Floating]) -> float:
    """The root of the mean squared difference of two generators of the same form, over all their numbers."""
    squares = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(own, other, strict=True))
    return float(np.sqrt(squares / sum(array.size for array in own)))


def _asked(message: Message, blueprint: Blueprint) -> tuple[list[Floating], ConfigRecord]:
    arrays, config = message.content.get(ARRAYS), message.content.get(CONFIG)
    if not isinstance(arrays, ArrayRecord) or not isinstance(config, ConfigRecord):
        raise ReplyError(f"a message of a federation holds the records {ARRAYS!r} and {CONFIG!r}")
    return blueprint.unpack(arrays), config
