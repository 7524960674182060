"""The judgement of a patch: read first, tried second, and the first thing that is wrong is the reason.

parse -> paths -> syntax -> capabilities -> visible tests -> the patch's own tests -> held-out tests. Nothing of a patch
is run before its text has passed, and nothing outside a sandbox. The workspace is only read: what is tried is a copy,
and that the workspace is the same afterwards is part of the verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, PatchInvalid
from chimera.core.types import Frozen
from chimera.healing.patch import CodePatch, edited, is_test_path, parse_patch
from chimera.healing.policy import PathPolicy, judge_capabilities, local_modules
from chimera.healing.sandbox.port import Sandbox
from chimera.healing.trial import Expected, Suite, Trial, TrialReport, names_of_tests
from chimera.healing.workspace import Snapshot, snapshot

HELD_OUT = "_held_out"
GENERATED = "_generated"
"""Where tests are put in a copy, for their run only."""

MAX_REFUSALS = 5

FAILURES = frozenset("failed crash time output memory cpu processes disk".split())
"""Faults of code that has the bug which a test is for."""

Stage = Literal["parse", "paths", "syntax", "capabilities", "visible", "generated", "hidden", "workspace", "done"]


class Count(Frozen):
    """How many tests of a suite passed, and how many had to."""

    passed: int
    expected: int


class Verdict(Frozen):
    """What is thought of a patch. `stage` is where it fell, or `done`.

    `reason` quotes visible and generated tests, for whoever mends the patch; of held-out tests it tells numbers only,
    as a generator that reads them could answer to them. `fault` is the trial's word for it (`TrialReport.fault`).
    `reproduced` says of an accepted patch whether tests of its own fail without it, and so prove something; it is None
    where it brings none.
    """

    verdict: Literal["accept", "reject"]
    stage: Stage
    reason: str
    fault: str = ""
    tests: dict[str, Count] = Field(default_factory=dict)
    reproduced: bool | None = None
    sandbox: str
    wall_s: float = 0.0

    @property
    def accepted(self) -> bool:
        return self.verdict == "accept"


async def judge(
    workspace: Path,
    hidden_tests: Path,
    patch: CodePatch | str | bytes | Mapping[str, JsonValue],
    sandbox: Sandbox,
    *,
    policy: PathPolicy | None = None,
    allowed: Collection[str] = (),
    wall_s: float = 10.0,
    clock: Clock | None = None,
) -> Verdict:
    """Judge a patch to the code in `workspace` by its own `test_*.py` and by those in `hidden_tests`.

    `allowed` are capabilities that the patch may bring in (`chimera.healing.policy`). `wall_s` is for each suite.
    Raises InputError where a folder cannot be used, SandboxUnavailable where nothing could be run.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    case = _Case(workspace, hidden_tests, sandbox, policy or PathPolicy(), allowed, Trial(sandbox, wall_s=wall_s))
    verdict = await case.judged(patch)
    if snapshot(workspace).digest != case.before.digest:
        changed = "the workspace changed while the patch was judged: judge it again"
        verdict = verdict.model_copy(update={"verdict": "reject", "stage": "workspace", "reason": changed})
    return verdict.model_copy(update={"wall_s": round(clock.monotonic() - began, 3)})


class _Case:
    """One patch before the court."""

    def __init__(
        self,
        workspace: Path,
        hidden_tests: Path,
        sandbox: Sandbox,
        policy: PathPolicy,
        allowed: Collection[str],
        trial: Trial,
    ) -> None:
        self.before = snapshot(workspace)
        self._files = _without(self.before, workspace, hidden_tests)
        self._hidden = _held_out(snapshot(hidden_tests), hidden_tests)
        if any(path.split("/")[0] in (HELD_OUT, GENERATED) for path in self._files):
            raise InputError(f"{workspace} has a folder {HELD_OUT} or {GENERATED}, where tests are put: rename it")
        visible = tuple(sorted(path for path in self._files if is_test_path(path)))
        self._visible = Suite(name="visible", tests=visible)
        self._sandbox = sandbox
        self._policy = policy
        self._allowed = allowed
        self._trial = trial
        self._counts: dict[str, Count] = {}

    async def judged(self, given: CodePatch | str | bytes | Mapping[str, JsonValue]) -> Verdict:
        texts = {path: text for path, text in self.before.texts.items() if path in self._files}
        try:
            patch = given if isinstance(given, CodePatch) else parse_patch(given)
        except PatchInvalid as error:
            return self._rejected("parse", str(error))
        if refusals := self._path_refusals(patch):
            return self._rejected("paths", _listed(refusals))
        try:
            changed = edited(texts, patch)
        except PatchInvalid as error:
            return self._rejected("parse", str(error))
        if refused := self._refused(texts, changed):
            return refused
        return await self._tried(patch, {**self._files, **{path: text.encode() for path, text in changed.items()}})

    def _path_refusals(self, patch: CodePatch) -> list[str]:
        refusals = self._policy.refusals(patch.paths, self._files)
        for path in patch.paths:
            if path.split("/")[0] in (HELD_OUT, GENERATED):
                refusals.append(f"{path} would lie among the tests")
            parents = {path[:at] for at, char in enumerate(path) if char == "/"} | {path}
            if parents & self.before.links:
                refusals.append(f"{path} is or lies behind a link")
        return refusals

    def _refused(self, texts: Mapping[str, str], changed: Mapping[str, str]) -> Verdict | None:
        """What the patched text is refused for, before it is run."""
        local = local_modules([*self._files, *changed])
        for path, text in sorted(changed.items()):
            if not path.endswith(".py"):
                continue
            try:
                refusals = judge_capabilities(texts.get(path, ""), text, self._allowed, local)
            except SyntaxError as error:
                return self._rejected("syntax", f"{path}: {error}")
            if refusals:
                return self._rejected("capabilities", f"{path} brings in {_listed(refusals)}")
        return None

    async def _tried(self, patch: CodePatch, files: Mapping[str, bytes]) -> Verdict:
        visible, hidden = await self._trial.collect(self._files, [self._visible, self._hidden])
        if self._visible.tests:
            report = await self._trial.run(files, self._visible, visible)
            if not report.ok:
                return self._failed("visible", report)
            self._count("visible", report)
        if patch.tests:
            suite, expected = _generated(patch)
            report = await self._trial.run(files, suite, expected)
            if not report.ok:
                return self._failed("generated", report)
            self._count("generated", report)
        report = await self._trial.run(files, self._hidden, hidden)
        if not report.ok:
            return self._failed("hidden", report)
        self._count("hidden", report)
        reproduced = await self._reproduced(patch, was_broken=bool(visible.files or hidden.files))
        counts = ", ".join(f"{count.passed} {name}" for name, count in self._counts.items())
        return Verdict(
            verdict="accept",
            stage="done",
            reason=f"all tests passed ({counts})",
            tests=self._counts,
            reproduced=reproduced,
            sandbox=self._sandbox.name,
        )

    async def _reproduced(self, patch: CodePatch, *, was_broken: bool) -> bool | None:
        """Whether a test of the patch fails over the code as it was.

        That tests cannot be imported says something only where this code could not be: else they want what is new.
        """
        if not patch.tests:
            return None
        report = await self._trial.run(self._files, *_generated(patch))
        return report.fault in FAILURES or (report.fault == "import" and was_broken)

    def _count(self, suite: str, report: TrialReport) -> None:
        self._counts[suite] = Count(passed=report.passed, expected=report.expected)

    def _failed(self, stage: Stage, report: TrialReport) -> Verdict:
        self._count(stage, report)
        if stage == "hidden":
            reason = f"held-out tests: {report.fault}, {report.passed} of {report.expected} passed"
        else:
            reason = f"{stage} tests: {report.reason}"
        return self._rejected(stage, reason, report.fault)

    def _rejected(self, stage: Stage, reason: str, fault: str = "") -> Verdict:
        return Verdict(
            verdict="reject", stage=stage, reason=reason, fault=fault, tests=self._counts, sandbox=self._sandbox.name
        )


def _without(found: Snapshot, workspace: Path, hidden_tests: Path) -> dict[str, bytes]:
    """The workspace's files, less the held-out tests where these lie within it: no visible run may read them."""
    root, hidden = workspace.resolve(), hidden_tests.resolve()
    if root == hidden or hidden in root.parents:
        raise InputError(f"{hidden_tests} holds the workspace: give the held-out tests a folder of their own")
    if root not in hidden.parents:
        return dict(found.files)
    inside = found.below(hidden.relative_to(root).as_posix())
    return {path: data for path, data in found.files.items() if path not in inside}


def _held_out(found: Snapshot, folder: Path) -> Suite:
    files = {f"{HELD_OUT}/{path}": data for path, data in found.files.items()}
    tests = tuple(sorted(path for path in files if is_test_path(path)))
    if not tests:  # under other names, then: whoever gave the folder meant something in it
        tests = tuple(
            sorted(path for path, data in files.items() if path.endswith(".py") and names_of_tests(path, data))
        )
    if not tests:
        raise InputError(f"{folder} holds no test_*.py: without held-out tests there is nothing to go by")
    return Suite(name="hidden", tests=tests, files=files, folders=(HELD_OUT,))


def _generated(patch: CodePatch) -> tuple[Suite, Expected]:
    files = {f"{GENERATED}/{test.path}": test.text.encode() for test in patch.tests}
    names = frozenset(name for path, data in files.items() for name in names_of_tests(path, data))
    expected = Expected(names=names, files=frozenset(files))
    return Suite(name="generated", tests=tuple(files), files=files, folders=(GENERATED,)), expected


def _listed(refusals: list[str]) -> str:
    more = f"; and {len(refusals) - MAX_REFUSALS} more" if len(refusals) > MAX_REFUSALS else ""
    return "; ".join(refusals[:MAX_REFUSALS]) + more
