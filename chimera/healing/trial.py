"""A trial: does code pass these tests, run where it can do no harm, and is that its own doing?

pytest runs in the sandbox over a copy of the workspace. A pass is a report of exactly the expected test ids, each of
them passed in all its phases; the ids are collected beforehand, over the code as it was. So an early `os._exit(0)`, a
test that is skipped, renamed or gone, or a printed "1 passed" is no pass.

Who reports: a runner in the sandbox (`trial_runner`) that imports nothing of the code under trial starts pytest
(`trial_child`) as a process of its own, one for each suite, and reads what becomes of each test over a pipe whose
messages carry an HMAC. The runner's own report carries another one, under a key that was never in the child.

What remains possible: pytest and the code under trial share one process. Code that digs through the interpreter
(frames, `gc`, `ctypes`) can find the child's key or change pytest itself, and values that claim to equal everything
pass any assertion. That is why `chimera.healing.policy` refuses those means before a trial; a trial alone, of code that
was not read so, proves less.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import json
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from chimera.healing.sandbox.port import Limits, Sandbox, SandboxResult

MAX_TOLD = 5

EXCUSES = frozenset({"passed", "skipped", "xfailed"})
"""What may become of each phase of a test that is marked to be skipped or to fail."""

SPARE_S = 5.0
"""The runner stops the tests at their time; the sandbox stops the runner so many seconds later."""

PROCESSES = 256
"""Processes and threads of a trial. Tests of what threads share start a hundred of them."""

ENVIRONMENT = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "2",  # each thread's own would count 64 MiB against the limit on memory
}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tests that are run together. `files` are put into the copy for this run only, `tests` are those to collect.

    `folders` are put on the import path after the workspace's own. Paths are relative, with `/`.
    """

    name: str
    tests: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Which tests must be reported: `ids`, and of `files` that could not be collected each of `names` and any more.

    Those of `excused` (tests or whole files) may be skipped or fail, as the code before the patch had them marked so.
    """

    ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids) + len(self.names)

    def difference(self, found: Iterable[str]) -> tuple[list[str], list[str]]:
        """What is missing, and what is too much; sorted."""
        found = set(found)
        bases = {test.partition("[")[0] for test in found}
        files = {test.partition("::")[0] for test in found}
        extra = {test for test in found - self.ids if test.partition("::")[0] not in self.files}
        return sorted((self.ids - found) | (self.names - bases) | (self.files - files)), sorted(extra)


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """What came of a suite. `fault` is "" for a pass, else what a program can go by:

    `time`, `output`, `memory`, `cpu`, `processes`, `disk` (a limit), `crash` (it ended early), `forged` (a report that
    is not the trial's own), `import` (tests cannot be collected), `missing`, `extra`, `failed`, `skipped`, `empty`.
    `reason` says it in words and may quote the tests; `passed` and `expected` are counts.
    """

    fault: str
    reason: str
    passed: int = 0
    expected: int = 0
    wall_s: float = 0.0
    output: str = ""

    @property
    def ok(self) -> bool:
        return not self.fault


class Trial:
    """Runs suites in a sandbox. `wall_s` is for one suite; `output_bytes` is what its tests may print in all."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        wall_s: float = 10.0,
        output_bytes: int = 1_000_000,
        memory_bytes: int = 1 << 30,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._sandbox = sandbox
        self._wall_s = wall_s
        self._output_bytes = output_bytes
        self._memory_bytes = memory_bytes
        self._nonce = nonce

    async def collect(self, files: Mapping[str, bytes], suites: Sequence[Suite]) -> list[Expected]:
        """Which tests each suite has over `files`, the code as it was. One process collects them all.

        Where a file cannot be collected (the code as it was may not even be importable), its functions are read from
        its text, and each of them must be reported at least once; it may turn out to have more.
        """
        tests = tuple(test for suite in suites for test in suite.tests)
        everything = {path: data for suite in suites for path, data in suite.files.items()}
        folders = tuple(folder for suite in suites for folder in suite.folders)
        whole = Suite(name="collection", tests=tests, files=everything, folders=folders)
        told, _ = await self._told(files, whole, ["--collect-only"])
        messages = (told or {}).get("messages", ())
        ids = [test for message in messages for test in message.get("collected", ())]
        broken = [message for message in messages if "uncollected" in message]
        failed = {message["uncollected"].partition("::")[0] for message in broken if not message["skipped"]}
        excused = {message["uncollected"] for message in broken if message["skipped"]}
        excused |= {test for message in messages for test in message.get("excused", ())}
        if not any("collected" in message for message in messages):
            failed = set(tests)  # it ended before it was done
        expected = []
        for suite in suites:
            unknown = failed.intersection(suite.tests)
            texts = {**files, **suite.files}
            known = {test for test in ids if test.partition("::")[0] in suite.tests}
            expected.append(
                Expected(
                    ids=frozenset(test for test in known if test.partition("::")[0] not in unknown),
                    names=frozenset(name for test in unknown for name in names_of_tests(test, texts[test])),
                    files=frozenset(unknown),
                    excused=frozenset(each for each in excused if each.partition("::")[0] in suite.tests),
                )
            )
        return expected

    async def run(self, files: Mapping[str, bytes], suite: Suite, expected: Expected) -> TrialReport:
        """Run a suite over `files`. Raises SandboxUnavailable if the walls could not be put up."""
        told, result = await self._told(files, suite, [])
        fault, reason, passed = judge_report(told, result, expected)
        output = "" if told is None else str(told["output"])
        return TrialReport(
            fault=fault, reason=reason, passed=passed, expected=len(expected), wall_s=result.wall_s, output=output
        )

    async def _told(
        self, files: Mapping[str, bytes], suite: Suite, options: Sequence[str]
    ) -> tuple[dict[str, Any] | None, SandboxResult]:
        """What the runner reports of one pytest process; None where there is no report that is its own."""
        key = self._nonce(32)
        texts = {**files, **suite.files}
        with TemporaryDirectory(prefix="chimera-trial-") as place:
            root = _written(place, texts)
            src = ["src"] if any(path.startswith("src/") for path in texts) else []
            folders = [".", *src, *suite.folders, *_bases(suite.tests, texts)]
            job = {
                "root": str(root),
                "paths": [str(root / folder) for folder in dict.fromkeys(folders)],
                "files": list(suite.tests),
                "options": [*options, *_plugins(texts[test] for test in suite.tests)],
            }
            task = {"key": key.hex(), "job": job, "wall_s": self._wall_s, "output_bytes": self._output_bytes}
            result = await self._sandbox.run(
                [sys.executable, "-I", "-S", "-B", "-c", _text("trial_runner"), _text("trial_child")],
                folder=root,
                env=ENVIRONMENT,
                limits=Limits(
                    wall_s=self._wall_s + SPARE_S,
                    cpu_s=self._wall_s + SPARE_S,
                    memory_bytes=self._memory_bytes,
                    processes=PROCESSES,
                    output_bytes=64 << 20,
                ),
                stdin=json.dumps(task).encode() + b"\n",
            )
        return _opened(result.stdout, key), result


def judge_report(told: Mapping[str, Any] | None, result: SandboxResult, expected: Expected) -> tuple[str, str, int]:
    """The fault ("" if none), the reason, and how many tests passed. Anything that is not fully told is a fault."""
    if told is None:
        if result.killed_for or result.timed_out:
            limit = result.killed_for or "time"
            return limit, f"the tests reached the sandbox's limit of {limit}", 0
        return "crash", "the tests ended without a report", 0
    match told["stopped"]:
        case "time":
            return "time", "the tests did not end in time", 0
        case "output":
            return "output", "the tests printed more than they may", 0
        case "forged" | "report":
            return "forged", "the report of the tests is not the trial's own", 0
    messages = told["messages"]
    if broken := [m for m in messages if "uncollected" in m and not _is_excused(m, expected)]:
        return "import", f"{broken[0]['uncollected']} cannot be collected: {broken[0]['why']}", 0
    if not messages or "end" not in messages[-1] or told["exit"] != 0:
        return "crash", f"the tests' process ended before its tests did (exit code {told['exit']})", 0
    return _judge_tests(messages, expected)


def _is_excused(uncollected: Mapping[str, Any], expected: Expected) -> bool:
    return bool(uncollected["skipped"]) and uncollected["uncollected"] in expected.excused


def _judge_tests(messages: Sequence[Mapping[str, Any]], expected: Expected) -> tuple[str, str, int]:
    phases: dict[str, list[tuple[str, str]]] = {}
    whys: dict[str, str] = {}
    for message in messages:
        if "test" in message:
            phases.setdefault(message["test"], []).append((message["when"], message["outcome"]))
            if message["outcome"] != "passed":
                whys.setdefault(message["test"], f"{message['outcome']}: {message['why']}")
    good = [("setup", "passed"), ("call", "passed"), ("teardown", "passed")]
    passed = {
        test for test, found in phases.items() if [each for each in found if each != ("subtest", "passed")] == good
    }
    excused = {
        test for test in expected.excused & phases.keys() if not {outcome for _, outcome in phases[test]} - EXCUSES
    }
    if bad := [test for test in phases if test not in passed | excused]:
        first = bad[0]
        outcomes = Counter(outcome for test in bad for _, outcome in phases[test] if outcome != "passed")
        fault = "failed" if outcomes["failed"] or not outcomes else "skipped"
        why = whys.get(first, "not all of its phases are reported")
        return fault, f"{len(bad)} of {len(expected)} tests did not pass; {first} {why}", len(passed)
    missing, extra = expected.difference(phases)
    if missing:
        return "missing", f"{len(missing)} expected tests did not run: {_listed(missing)}", len(passed)
    if extra:
        return "extra", f"{len(extra)} tests ran that nobody expected: {_listed(extra)}", len(passed)
    if not passed:
        return "empty", "there are no tests", 0
    if messages[-1]["end"] != 0:
        return "crash", f"pytest ended with status {messages[-1]['end']}", len(passed)
    return "", f"{len(passed)} tests passed", len(passed)


def names_of_tests(path: str, data: bytes) -> list[str]:
    """The tests in a file, as `file::name` or `file::Class::name`, read from its text; none where that is no Python."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [f"{path}::{name}" for name in _tests_of(tree)]


def _tests_of(node: ast.Module | ast.ClassDef) -> list[str]:
    names = []
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name.startswith("test"):
            if not any("fixture" in ast.unparse(each) for each in child.decorator_list):
                names.append(child.name)
        elif isinstance(child, ast.ClassDef):
            is_case = any("TestCase" in ast.unparse(base) for base in child.bases)
            has_init = any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in child.body)
            if is_case or (child.name.startswith("Test") and not has_init):
                names += [f"{child.name}::{name}" for name in _tests_of(child)]
    return names


def _opened(stdout: bytes, key: bytes) -> dict[str, Any] | None:
    """The runner's report, if it is the only line and bears the runner's signature."""
    mac, _, report = stdout.removesuffix(b"\n").partition(b" ")
    good = hmac.new(key, report, hashlib.sha256).hexdigest().encode()
    if not hmac.compare_digest(mac, good):
        return None
    told: dict[str, Any] = json.loads(report)
    return told


def _written(place: str, files: Mapping[str, bytes]) -> Path:
    root = Path(place).resolve()
    for path, data in files.items():
        target = root.joinpath(*PurePosixPath(path).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return root


def _bases(tests: Iterable[str], files: Collection[str]) -> list[str]:
    """The folders of the tests, or those that their packages are in: what pytest by default puts on the import path."""
    found: dict[str, None] = {}
    for test in tests:
        folder = PurePosixPath(test).parent
        while folder.name and str(folder / "__init__.py") in files:
            folder = folder.parent
        found[str(folder)] = None
    return list(found)


def _plugins(texts: Iterable[bytes]) -> list[str]:
    """pytest's plugins are off, as each takes time to load; coroutines need one."""
    if any(b"async def" in text for text in texts) and find_spec("pytest_asyncio"):
        return ["-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto"]
    return []


def _listed(tests: Sequence[str]) -> str:
    more = f" and {len(tests) - MAX_TOLD} more" if len(tests) > MAX_TOLD else ""
    return ", ".join(tests[:MAX_TOLD]) + more


@cache
def _text(module: str) -> str:
    return Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
