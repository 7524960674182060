"""A pass is a report of exactly the expected tests. Code that was not read beforehand tries to fake one."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from chimera.healing.trial import Expected, Suite, Trial, TrialReport, names_of_tests
from chimera.healing.trial_runner import verified
from tests.unit.healing.walls import NoWalls

TESTS = b"""
import pytest
from app import double

@pytest.mark.parametrize("x", [1, 2], ids=["one", "two"])
def test_double(x):
    assert double(x) == 2 * x

class TestMore:
    def test_zero(self):
        assert double(0) == 0

def test_plain(tmp_path, capsys):
    print("heard")
    assert capsys.readouterr().out == "heard\\n" and tmp_path.is_dir()
"""
GOOD = "def double(x):\n    return 2 * x\n"
BAD = "def double(x):\n    return 3 * x\n"
PATIENT_S = 60.0
"""For what ends by itself: on a busy machine to begin takes seconds."""

SUITE = Suite(name="visible", tests=("test_app.py",), files={"test_app.py": TESTS})
IDS = {"test_double[one]", "test_double[two]", "TestMore::test_zero", "test_plain"}
EXPECTED = Expected(ids=frozenset(f"test_app.py::{name}" for name in IDS))


def workspace(app: str) -> dict[str, bytes]:
    return {"app.py": app.encode()}


async def tried(app: str, tests: bytes = TESTS, expected: Expected = EXPECTED, **options: float) -> TrialReport:
    suite = Suite(name="visible", tests=("test_app.py",), files={"test_app.py": tests})
    return await Trial(NoWalls(), **{"wall_s": PATIENT_S, **options}).run(workspace(app), suite, expected)  # type: ignore[arg-type]


async def test_ids_are_collected_over_the_code_as_it_was_and_good_code_passes() -> None:
    trial = Trial(NoWalls(), wall_s=PATIENT_S)
    assert await trial.collect(workspace(BAD), [SUITE]) == [EXPECTED]
    report = await trial.run(workspace(GOOD), SUITE, EXPECTED)
    assert (report.ok, report.passed, report.expected) == (True, 4, 4), report.reason


@pytest.mark.parametrize("app", ["def double(:", "import nothing_of_this_name", "import os; os._exit(0)"])
async def test_where_the_old_code_cannot_be_imported_names_are_read_from_the_text(app: str) -> None:
    trial = Trial(NoWalls(), wall_s=PATIENT_S)
    [expected] = await trial.collect(workspace(app), [SUITE])
    assert expected == Expected(
        names=frozenset(f"test_app.py::{name}" for name in ("test_double", "TestMore::test_zero", "test_plain")),
        files=frozenset({"test_app.py"}),
    )
    assert (await trial.run(workspace(GOOD), SUITE, expected)).ok
    assert (await trial.run(workspace(BAD), SUITE, expected)).fault == "failed"


FAKES = {
    "wrong": (BAD, "failed"),
    "os._exit at import": (GOOD + "import os\nos._exit(0)\n", "crash"),
    "os._exit in a call": ("import os\ndef double(x):\n    os._exit(0)\n", "crash"),
    "sys.exit at import": (GOOD + "import sys\nsys.exit(0)\n", "crash import missing"),
    "SystemExit in a call": ("def double(x):\n    raise SystemExit(0)\n", "failed crash"),
    "interrupt": ("def double(x):\n    raise KeyboardInterrupt\n", "missing crash failed"),
    "exit at the end": ("import os, atexit\natexit.register(os._exit, 0)\n" + BAD, "failed"),
    "crash": ("import ctypes\ndef double(x):\n    return ctypes.string_at(0)\n", "crash"),
    "killing the runner": ("import os\ndef double(x):\n    os.kill(os.getppid(), 9)\n", "crash"),
    "printing a pass": (BAD + "print('4 passed in 0.01s')\n", "failed"),
    "skipping": ("import pytest\ndef double(x):\n    pytest.skip('later')\n", "skipped"),
    "skipping the file": ("import pytest\npytest.skip('later', allow_module_level=True)\n" + GOOD, "import missing"),
    "expecting failure": ("import pytest\ndef double(x):\n    pytest.xfail('so')\n", "skipped"),
    "leaving pytest": ("import pytest\ndef double(x):\n    pytest.exit('done', 0)\n", "missing crash failed"),
    "writing into every pipe": (
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'0 0 {\"end\": 0}\\n')\n    except OSError: pass\n"
        + GOOD,
        "forged",
    ),
    "closing every pipe": ("import os\nos.closerange(3, 20)\n" + GOOD, "crash"),
    "printing without end": ("while True: print('x' * 100_000)\n", "output"),
    "much in one test": ("def double(x):\n    print('x' * 3_000_000)\n    return 2 * x\n", "output"),
}


@pytest.mark.parametrize("name", FAKES)
async def test_no_fake_is_a_pass(name: str) -> None:
    app, faults = FAKES[name]
    report = await tried(app)
    assert report.fault in faults.split(), (report.fault, report.reason)
    assert report.reason


@pytest.mark.parametrize("app", ["while True: pass\n", "def double(x):\n    while True: pass\n"])
async def test_what_does_not_end_is_ended(app: str) -> None:
    report = await tried(app, wall_s=1.0)
    assert report.fault == "time"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"test_plain", b"test_simple", "missing"),
        (b"def test_plain", b"def plain", "missing"),
        (b'[1, 2], ids=["one", "two"]', b'[1, 2, 3], ids=["one", "two", "three"]', "extra"),
        (b"def test_plain", b"@pytest.mark.skip\ndef test_plain", "skipped"),
        (b"def test_plain", b"@pytest.mark.xfail\ndef test_plain", "skipped"),
        (TESTS, b"", "crash empty missing"),
    ],
)
async def test_other_tests_than_those_expected_are_no_pass(old: bytes, new: bytes, fault: str) -> None:
    report = await tried(GOOD, TESTS.replace(old, new))
    assert report.fault in fault.split(), report.reason


@pytest.mark.parametrize("app", ["import nothing_of_this_name", "import os; os._exit(0)"])
async def test_of_a_file_that_could_not_be_collected_something_must_be_reported(app: str) -> None:
    tests = b"import app\nfor name in getattr(app, 'NAMES', ()):\n    globals()[name] = lambda: None\n"
    suite = Suite(name="visible", tests=("test_app.py", "test_b.py"), files={"test_app.py": tests, "test_b.py": TESTS})
    trial = Trial(NoWalls(), wall_s=PATIENT_S)
    [expected] = await trial.collect(workspace(app), [suite])
    report = await trial.run(workspace(GOOD), suite, expected)
    assert (report.fault, "test_app.py" in report.reason) == ("missing", True)
    assert (await trial.run(workspace(GOOD + "NAMES = ['test_a']\n"), suite, expected)).ok


MARKED = b"""
import pytest
import app

@pytest.mark.skipif(getattr(app, "SKIP", False), reason="so")
def test_when_it_is_there():
    assert app.double(1) == 2

@pytest.mark.xfail(getattr(app, "HARD", False), reason="so")
def test_hard():
    assert app.double(2) == 4

def test_plain():
    if getattr(app, "LATER", False):
        pytest.skip("later")
"""


@pytest.mark.parametrize("means", ["SKIP = True", "HARD = True", "LATER = True"])
async def test_what_was_not_marked_before_the_patch_is_not_excused_after_it(means: str) -> None:
    suite = Suite(name="visible", tests=("test_app.py",), files={"test_app.py": MARKED})
    trial = Trial(NoWalls(), wall_s=PATIENT_S)
    before, marked = [(await trial.collect(workspace(app), [suite]))[0] for app in (BAD, f"{BAD}SKIP = HARD = True\n")]
    assert (before.excused, len(marked.excused)) == (frozenset(), 2)
    app = workspace(f"{GOOD}{means}\n")
    assert (await trial.run(app, suite, before)).fault == "skipped"
    assert (await trial.run(app, suite, marked)).ok is (means != "LATER = True")


async def test_where_all_are_excused_there_is_nothing_to_go_by() -> None:
    tests = b"import pytest\n@pytest.mark.skip\ndef test_it(): ...\n"
    suite = Suite(name="visible", tests=("test_app.py",), files={"test_app.py": tests})
    trial = Trial(NoWalls(), wall_s=PATIENT_S)
    [expected] = await trial.collect(workspace(GOOD), [suite])
    assert (await trial.run(workspace(GOOD), suite, expected)).fault == "empty"


async def test_a_failing_subtest_is_no_pass() -> None:
    tests = b"import app\ndef test_all(subtests):\n    for x in (0, 1):\n        with subtests.test(x=x):\n"
    tests += b"            assert app.double(x) == 2 * x\n"
    expected = Expected(ids=frozenset({"test_app.py::test_all"}))
    assert (await tried(GOOD, tests, expected)).ok
    assert (await tried(BAD, tests, expected)).fault == "failed"


async def test_the_keys_are_in_no_place_that_the_code_can_read() -> None:
    keys: list[str] = []

    def nonce(size: int) -> bytes:
        keys.append(bytes(range(100, 100 + size)).hex())
        return bytes.fromhex(keys[-1])

    walls = NoWalls()
    assert (await Trial(walls, nonce=nonce, wall_s=PATIENT_S).run(workspace(GOOD), SUITE, EXPECTED)).ok
    assert keys and not [seen for seen, _ in walls.seen if keys[0] in seen]


async def test_a_suite_sees_its_own_tests_only() -> None:
    walls = NoWalls()
    hidden = Suite(name="hidden", tests=("h/test_h.py",), files={"h/test_h.py": TESTS}, folders=("h",))
    trial = Trial(walls, wall_s=PATIENT_S)
    await trial.run(workspace(GOOD), SUITE, EXPECTED)
    await trial.run(workspace(GOOD), hidden, EXPECTED)
    assert [sorted(names) for _, names in walls.seen] == [["app.py", "test_app.py"], ["app.py", "h", "h/test_h.py"]]


def test_names_are_read_of_classes_and_coroutines_too() -> None:
    source = b"import unittest\nasync def test_a(): ...\nclass Case(unittest.TestCase):\n    def test_b(self): ...\n"
    assert names_of_tests("t.py", source) == ["t.py::test_a", "t.py::Case::test_b"]
    assert names_of_tests("t.py", b"def test_(") == []


def told(number: int, message: str, key: bytes = b"key") -> bytes:
    body = f"{number} {message}".encode()
    return hmac.new(key, body, hashlib.sha256).hexdigest().encode() + b" " + body + b"\n"


def test_messages_count_only_in_order_and_under_the_key() -> None:
    good = [told(0, '{"a": 1}'), told(1, '{"end": 0}')]
    assert verified(b"".join(good), b"key") == [{"a": 1}, {"end": 0}]
    for forged in (
        [good[0], told(1, '{"end": 0}', b"another")],
        [good[0], good[1].replace(b"0}", b"1}")],
        [good[0], good[0]],
        [good[1]],
        [good[0], b"1 passed\n"],
    ):
        with pytest.raises(ValueError, match="not the trial's own"):
            verified(b"".join(forged), b"key")
