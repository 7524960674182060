"""From a failure to a patch that may be applied: candidates, each judged, each told what was wrong, the best taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import HealingError, InputError, PatchInvalid
from chimera.core.stats import wilson_interval
from chimera.core.types import Frozen
from chimera.healing.confidence import changed_lines, confidence
from chimera.healing.failure import Failure
from chimera.healing.generator import CodeGenerator
from chimera.healing.judge import Verdict, judge
from chimera.healing.memory import MAX_RECALLED, PatchMemory, Remembered, signature
from chimera.healing.patch import CodePatch, edited
from chimera.healing.policy import PathPolicy
from chimera.healing.sandbox.port import Sandbox
from chimera.healing.workspace import snapshot

_log = logging.getLogger(__name__)

REMEMBERED = 5
"""Earlier patches for the like that a generator is told of."""

TOLD_CHARS = 300


class HealerOptions(Frozen):
    """How much is tried for one failure."""

    repairs: int = Field(default=1, ge=0, le=5)
    """How often a rejected candidate's output goes back to the model."""
    enough: int = Field(default=1, ge=1, le=16)
    """Accepted candidates from which on no more are asked for; of several the best is taken."""
    wall_s: float = Field(default=10.0, gt=0.0, le=3_600.0)
    """For each suite of tests."""
    allowed: tuple[str, ...] = ()
    """Capabilities that a patch may bring in."""


class Tried(Frozen):
    """A candidate, and what is thought of it."""

    patch: CodePatch
    verdict: Verdict


class PatchResult(Frozen):
    """What came of a failure. `chosen` is the patch to apply, None where none was accepted; `tried` are all."""

    signature: str
    chosen: Tried | None
    tried: tuple[Tried, ...]
    changes: dict[str, str] = Field(default_factory=dict)
    """Path -> new text, of the chosen one."""
    confidence: float = Field(default=0.0, ge=0.0, le=1.0)
    """What speaks for the chosen one (`chimera.healing.confidence`); 0 where there is none."""


class Healer:
    """Finds patches for the code in `workspace`, judged by its own tests and by those in `hidden_tests`.

    Nothing is changed: whoever asks applies what is chosen. All candidates are remembered, accepted or not.
    """

    def __init__(
        self,
        generator: CodeGenerator,
        *,
        workspace: Path,
        hidden_tests: Path,
        sandbox: Sandbox,
        memory: PatchMemory | None = None,
        policy: PathPolicy | None = None,
        options: HealerOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._generator = generator
        self._workspace = workspace
        self._hidden_tests = hidden_tests
        self._sandbox = sandbox
        self.memory = memory
        self._policy = policy or PathPolicy()
        self._options = options or HealerOptions()
        self._clock = clock or SystemClock()

    def success_rate(self, failure: Failure) -> float | None:
        """The most that the share of accepted patches for the like of `failure` may be; None where none is known.

        The high end of the 95 % Wilson interval: a patch or two that failed say little.
        """
        known = self.memory.recall(signature(failure.text), MAX_RECALLED) if self.memory else ()
        return wilson_interval(sum(each.accepted for each in known), len(known))[1] if known else None

    async def heal(self, failure: Failure, paths: Sequence[str]) -> PatchResult:
        """Find a patch for `failure`. `paths` are the files of the workspace that the model is shown.

        Raises InputError for a path that is not there, HealingError where the model writes no patch at all, ModelError,
        SandboxUnavailable.
        """
        texts = snapshot(self._workspace).texts
        if unknown := [path for path in paths if path not in texts]:
            raise InputError(f"{unknown[0]!r} is no text file of {self._workspace}")
        shown = {path: texts[path] for path in paths}
        name = signature(failure.text)
        known = self.memory.recall(name, REMEMBERED) if self.memory else ()
        rates = (
            {(each.provider, each.model): each.at_least for each in self.memory.success_rates()} if self.memory else {}
        )
        tried: list[Tried] = []
        async for patch in self._generator.candidates(failure, shown, remembered=[_told(each) for each in known]):
            tried += await self._followed(failure, shown, patch, name)
            if sum(each.verdict.accepted for each in tried) >= self._options.enough:
                break
        accepted = [(each, edited(texts, each.patch)) for each in tried if each.verdict.accepted]
        if not accepted:
            return PatchResult(signature=name, chosen=None, tried=tuple(tried))
        chosen, changes = min(accepted, key=lambda each: _rank(each[0].verdict, changed_lines(texts, each[1])))
        return PatchResult(
            signature=name,
            chosen=chosen,
            tried=tuple(tried),
            changes=changes,
            confidence=confidence(
                rate=rates.get((chosen.patch.provider, chosen.patch.model), 0.0),
                reproduced=bool(chosen.verdict.reproduced),
                passed=_passed(chosen.verdict),
                lines=changed_lines(texts, changes),
            ),
        )

    async def _followed(self, failure: Failure, shown: Mapping[str, str], patch: CodePatch, name: str) -> list[Tried]:
        """A candidate and its repairs, until one is accepted or none is left."""
        tried: list[Tried] = []
        for repair in range(self._options.repairs + 1):
            verdict = await judge(
                self._workspace,
                self._hidden_tests,
                patch,
                self._sandbox,
                policy=self._policy,
                allowed=self._options.allowed,
                wall_s=self._options.wall_s,
                clock=self._clock,
            )
            tried.append(Tried(patch=patch, verdict=verdict))
            if self.memory:
                self.memory.remember(name, patch, accepted=verdict.accepted, reason=verdict.reason)
            _log.info("patch %s (%s): %s, %s", patch.id[:8], patch.summary[:80], verdict.verdict, verdict.reason[:200])
            if verdict.accepted or repair == self._options.repairs:
                break
            try:
                patch = await self._generator.repaired(failure, shown, patch, verdict.reason)
            except (PatchInvalid, HealingError) as error:
                _log.info("its repair is no patch: %s", error)
                break
            if any(each.patch.id == patch.id for each in tried):
                break
        return tried


def _rank(verdict: Verdict, lines: int) -> tuple[bool, int, int]:
    """What shows by its own tests that it mends something first, then the smaller change, then the more tests."""
    return not verdict.reproduced, lines, -_passed(verdict)


def _passed(verdict: Verdict) -> int:
    """The tests that passed. Those of the patch count if they do not pass without it."""
    return sum(count.passed for suite, count in verdict.tests.items() if suite != "generated" or verdict.reproduced)


def _told(known: Remembered) -> str:
    verdict = "accepted" if known.accepted else "rejected"
    return f"{known.patch.summary[:TOLD_CHARS]}: {verdict}, {known.reason[:TOLD_CHARS]}"
