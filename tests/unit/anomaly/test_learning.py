"""Learning in the background: after a reason, a few at a time, and never in the way."""

from __future__ import annotations

import asyncio
import threading

from chimera.anomaly.buffer import Slots
from chimera.anomaly.detectors.base import Adopt, Study
from chimera.anomaly.learning import MAX_WAITING, BackgroundLearning
from chimera.core.clock import ManualClock


class Pupil:
    """Notes what it is asked, and studies until it is let go."""

    def __init__(self, *, open_: bool = True, fails: bool = False) -> None:
        self.asked: list[list[int] | None] = []
        self.adopted = 0
        self.at_once = 0
        self.most_at_once = 0
        self.thread = 0
        self.gate = threading.Event()
        if open_:
            self.gate.set()
        self.fails = fails

    def study(self, at: Slots | None = None) -> Study | None:
        self.asked.append(None if at is None else at.tolist())

        def learn() -> Adopt:
            self.thread = threading.get_ident()
            assert self.gate.wait(60)
            if self.fails:
                raise RuntimeError("on purpose")
            return adopt

        def adopt() -> None:
            assert threading.get_ident() != self.thread
            self.adopted += 1

        return learn


def learning(*pupils: Pupil, learners: int = 1, clock: ManualClock | None = None) -> BackgroundLearning:
    made = BackgroundLearning(learners=learners, every_s=60.0, clock=clock or ManualClock())
    made.teach(pupils)
    return made


async def test_nothing_is_learned_without_a_reason() -> None:
    pupil = Pupil()
    made = learning(pupil)
    made.begin()
    await made.settled()
    assert pupil.asked == []


async def test_a_study_runs_elsewhere_and_is_adopted_here() -> None:
    pupil = Pupil(open_=False)
    made = learning(pupil)
    made.remember([3, 1])
    made.begin()  # returns though the study cannot end
    await asyncio.sleep(0)
    assert (pupil.asked, pupil.adopted) == ([[1, 3]], 0)
    pupil.gate.set()
    await made.settled()
    assert (pupil.adopted, made.learned, made.failed) == (1, 1, 0)
    await made.aclose()


async def test_reasons_that_come_meanwhile_are_answered_together_and_not_too_soon() -> None:
    clock, pupil = ManualClock(), Pupil(open_=False)
    made = learning(pupil, clock=clock)
    for slot in range(5):
        made.remember([slot])
        made.begin()
        clock.advance(100.0)
    pupil.gate.set()
    await made.settled()
    made.begin()
    await made.settled()
    assert pupil.asked == [[0], [1, 2, 3, 4]]
    made.remember([7])
    made.begin()
    assert len(pupil.asked) == 2
    clock.advance(60.0)
    made.begin()
    await made.settled()
    assert pupil.asked[2:] == [[7]]
    await made.aclose()


async def test_too_many_reasons_are_a_reason_to_learn_everything() -> None:
    pupil = Pupil()
    made = learning(pupil)
    made.remember(range(MAX_WAITING + 1))
    made.begin()
    await made.settled()
    assert pupil.asked == [None]
    await made.aclose()


async def test_at_most_so_many_study_at_once() -> None:
    lock, now, most = threading.Lock(), 0, 0

    class Busy(Pupil):
        def study(self, at: Slots | None = None) -> Study | None:
            def learn() -> Adopt:
                nonlocal now, most
                with lock:
                    now += 1
                    most = max(most, now)
                threading.Event().wait(0.05)
                with lock:
                    now -= 1
                return lambda: None

            return learn

    made = learning(*(Busy() for _ in range(6)), learners=2)
    made.remember_all()
    made.begin()
    await made.settled()
    assert (most, made.learned) == (2, 6)
    await made.aclose()


async def test_one_that_fails_is_counted_and_stops_nobody() -> None:
    class Refuses(Pupil):
        def study(self, at: Slots | None = None) -> Study | None:
            raise RuntimeError("on purpose")

    pupil = Pupil()
    made = learning(Refuses(), Pupil(fails=True), pupil)
    made.remember_all()
    made.begin()
    await made.settled()
    assert (pupil.adopted, made.learned, made.failed) == (1, 1, 2)
    await made.aclose()


async def test_what_was_studied_for_others_is_not_adopted() -> None:
    old, new = Pupil(open_=False), Pupil()
    made = learning(old)
    made.remember_all()
    made.begin()
    await asyncio.sleep(0)
    made.teach([new])
    old.gate.set()
    await made.settled()
    assert (old.adopted, made.learned) == (0, 0)
    await made.aclose()


async def test_closing_waits_for_no_study() -> None:
    pupil = Pupil(open_=False)
    made = learning(pupil)
    made.remember_all()
    made.begin()
    await asyncio.sleep(0)
    await made.aclose()
    pupil.gate.set()
    made.remember_all()
    made.begin()
    assert (len(pupil.asked), pupil.adopted) == (1, 0)
