"""What to do about what was noticed: nothing, learn, patch, or ask a person. A pure brain with a clock handed in.

Patches are dear and may do harm, so a reason for one has to be strong, recent, not already being dealt with, and about
code that somebody has named. What patches did not mend goes to a person.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.core.types import Frozen, Seconds, Share
from chimera.core.watching import AnomalyDetected, FailurePredicted
from chimera.healing.failure import Failure

MAX_SUBJECTS = 10_000
"""Of which it remembers what it did; the one that was longest quiet is forgotten first."""

Event = AnomalyDetected | FailurePredicted | Failure

Action = Literal["ignore", "learn", "patch", "ask"]

Score = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class MetacognitionOptions(Frozen):
    """When to do what. Scores are those of anomalies."""

    learn_from: Score = 4.5
    """Below this an anomaly is ignored."""
    patch_from: Score = 6.0
    """Below this it is a reason to learn what is usual now, and no more."""
    cooldown_s: Seconds = 300.0
    """After a patch for a subject, nothing more is done about it. An escalated anomaly is heeded after a fifth."""
    attempts: int = Field(default=3, ge=1, le=100)
    """Patches for one subject within `window_s`; the next reason goes to a person."""
    window_s: Seconds = 3_600.0
    confidence: Share = 0.2
    """Below this success rate of patches for the like, a person is asked."""


class Decision(Frozen):
    """What to do about an event, and why. `attempt` counts patches for the subject within the window, this one too."""

    action: Action
    subject: str
    module: str | None
    reason: str
    attempt: int = 0


@dataclass(slots=True)
class _Subject:
    patches: deque[float] = field(default_factory=deque)
    busy: bool = False
    asked: bool = False
    quiet_until: float = 0.0


class MetacognitiveEngine:
    """Takes events in, gives decisions out. `owners` say which module is to blame for a metric: glob -> dotted name.

    Tell it with `settled` how a patch ended: until then its subject has one in hand, and gets no other.
    """

    def __init__(self, owners: Mapping[str, str], *, clock: Clock, options: MetacognitionOptions | None = None) -> None:
        self._owners = dict(owners)
        self._clock = clock
        self._options = options or MetacognitionOptions()
        self._subjects: OrderedDict[str, _Subject] = OrderedDict()

    def consider(self, event: Event, *, success_rate: float | None = None) -> Decision:
        """Decide. `success_rate` is the most that the share of kept patches for the like may be."""
        module = self.owner_of(event)
        subject = module or (event.module if isinstance(event, Failure) else event.metric)
        action, reason = self._by_weight(event, module)
        if action != "patch":
            return Decision(action=action, subject=subject, module=module, reason=reason)
        return self._by_history(subject, module, event, success_rate)

    def resume(self, decision: Decision) -> None:
        """The patch of an earlier decision, maybe of an earlier process, is in hand again: tell how it ends."""
        self._remembered(decision.subject).busy = True

    def settled(self, decision: Decision, *, kept: bool) -> None:
        """The patch that `decision` asked for has been kept, or it was not made, not accepted, or rolled back."""
        about = self._subjects.get(decision.subject)
        if about is None:
            raise InputError(f"no patch was decided on for {decision.subject!r}")
        about.busy = False
        about.quiet_until = self._clock.monotonic() + self._options.cooldown_s
        if kept:
            about.patches.clear()
            about.asked = False

    def owner_of(self, event: Event) -> str | None:
        """The module that is to blame; None where nobody has named one."""
        if isinstance(event, Failure):
            return event.module
        return next((name for pattern, name in self._owners.items() if fnmatchcase(event.metric, pattern)), None)

    def _by_weight(self, event: Event, module: str | None) -> tuple[Action, str]:
        """What the event alone is reason for."""
        if isinstance(event, AnomalyDetected):
            if event.score < self._options.learn_from:
                return "ignore", f"its score {event.score:.3g} is below {self._options.learn_from:g}"
            if event.score < self._options.patch_from:
                return "learn", f"its score {event.score:.3g} is below {self._options.patch_from:g}"
        if module is None:
            return "learn", "no module is named as the owner of this metric"
        return "patch", "it is strong enough"

    def _by_history(self, subject: str, module: str | None, event: Event, success_rate: float | None) -> Decision:
        """What has been done about the subject lately decides whether one more patch is tried."""
        now, about = self._clock.monotonic(), self._remembered(subject)
        while about.patches and about.patches[0] <= now - self._options.window_s:
            about.patches.popleft()
        escalated = isinstance(event, AnomalyDetected) and event.escalated
        waits_s = about.quiet_until - now - (0.8 * self._options.cooldown_s if escalated else 0.0)
        action: Action = "patch"
        if about.busy:
            action, reason = "ignore", "a patch for it is in hand"
        elif waits_s > 0:
            action, reason = "ignore", f"a patch for it ended a moment ago: nothing for another {waits_s:.0f} s"
        elif len(about.patches) >= self._options.attempts:
            reason = f"{len(about.patches)} patches within {self._options.window_s:g} s have not mended it"
            action = "ignore" if about.asked else "ask"
        elif success_rate is not None and success_rate < self._options.confidence:
            reason = f"of patches for the like only {success_rate:.0%} were kept"
            action = "ignore" if about.asked else "ask"
        else:
            about.patches.append(now)
            about.busy, about.asked = True, False
            reason = f"attempt {len(about.patches)} of {self._options.attempts}"
        if action == "ask":
            about.asked = True
        attempt = len(about.patches) if action == "patch" else 0
        return Decision(action=action, subject=subject, module=module, reason=reason, attempt=attempt)

    def _remembered(self, subject: str) -> _Subject:
        about = self._subjects.setdefault(subject, _Subject())
        self._subjects.move_to_end(subject)
        while len(self._subjects) > MAX_SUBJECTS:
            quiet = next((name for name, each in self._subjects.items() if not each.busy), None)
            if quiet is None or quiet == subject:
                break
            del self._subjects[quiet]
        return about
