"""What was tried is found again by its failure, counted per model, bounded, and shared by processes."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import HealingError, StorageError
from chimera.core.stats import wilson_interval
from chimera.healing import memory as memory_module
from chimera.healing.memory import PatchMemory, signature
from chimera.healing.patch import Append, CodePatch

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def memory(path: Path) -> Iterator[PatchMemory]:
    with closing(PatchMemory(path, clock=ManualClock(5.0))) as made:
        yield made


def patch(text: str, provider: str = "p", model: str = "m") -> CodePatch:
    return CodePatch(
        summary="s", edits=(Append(path="a.py", append=text),), provider=provider, model=model, cost_usd=0.5
    )


def texts(memory: PatchMemory, of: str, n: int = 100) -> list[str]:
    return [edit.append for each in memory.recall(of, n) for edit in each.patch.edits if isinstance(edit, Append)]


# -- signatures


def failing(source: str, folder: str) -> str:
    """The traceback of running `source` as a module in a folder."""
    try:
        exec(compile(source, f"{folder}/orders.py", "exec"), {})
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")


CODE = "class Order: pass\ndef total(o):\n    return o.{name}\ndef bill():\n    return total(Order())\nbill()\n"


def test_one_failure_has_one_signature_wherever_and_whenever_it_happens() -> None:
    first = signature(failing(CODE.format(name="price"), "/home/a/app"))
    assert first.startswith("AttributeError-")
    assert signature(failing("# moved\n\n\n" + CODE.format(name="price"), "/tmp/x7/other")) == first
    deeper = failing(CODE.format(name="price"), "/x").replace("line 3", "line 99").replace("Order", "0x7f12ab")
    assert signature(deeper) == first


def test_other_failures_have_other_signatures() -> None:
    plain = failing(CODE.format(name="price"), "/a")
    others = [
        failing(CODE.format(name="price").replace("total", "sum_up"), "/a"),
        failing(CODE.replace("o.{name}", "1 / 0"), "/a"),
        plain.replace("orders.py", "bills.py"),
    ]
    assert len({signature(text) for text in [plain, *others]}) == 4


def test_of_chained_exceptions_the_one_that_got_out_counts() -> None:
    inner = "def g():\n    return int('x')\ndef f():\n    try:\n        {}\n"
    inner += "    except Exception as e:\n        raise KeyError('k') from e\nf()\n"
    assert signature(failing(inner.format("1 / 0"), "/a")) == signature(failing(inner.format("g()"), "/b"))
    assert signature(failing(inner.format("1 / 0"), "/a")).startswith("KeyError-")


def test_recursion_of_any_depth_is_one_failure() -> None:
    code = "import sys\ndef f(n):\n    if n == 0:\n        raise ValueError(n)\n    f(n - 1)\nf({})\n"
    assert signature(failing(code.format(1), "/a")) == signature(failing(code.format(2), "/a"))


def test_what_pytest_prints_has_the_frames_too() -> None:
    text = (
        "tests/test_a.py:7: in test_total\n    total(1)\nsrc/orders.py:3: in total\n    1/0\nE   ZeroDivisionError: x\n"
    )
    first = signature(text)
    assert first.startswith("ZeroDivisionError-")
    assert signature(text.replace(":7:", ":70:").replace("src/", "/tmp/w1/src/")) == first
    assert signature(text.replace("in total", "in add")) != first


def test_words_without_frames_are_taken_without_what_varies() -> None:
    first = signature("p95 of /var/x/orders is 812.5 ms, object at 0x7fa")
    assert first == signature("p95 of /srv/orders is 99 ms,\n object at 0x11b")
    assert first != signature("p95 of /srv/bills is low: 99 ms, object at 0x11b")
    assert signature("") == signature(" ")


@given(st.text())
def test_every_text_has_a_signature(text: str) -> None:
    assert len(signature(text)) < 200 and signature(text) == signature(text)


# -- remembering


def test_accepted_come_before_rejected_and_late_before_early(path: Path) -> None:
    clock = ManualClock(1.0)
    with closing(PatchMemory(path, clock=clock)) as memory:
        for text, accepted in (("a", True), ("b", False), ("c", True), ("d", False)):
            memory.remember("x", patch(text), accepted=accepted, reason=f"why {text}")
            clock.advance(1.0)
        memory.remember("y", patch("other"), accepted=True)
    with closing(PatchMemory(path, clock=clock)) as memory:
        assert texts(memory, "x") == ["c", "a", "d", "b"]
        assert texts(memory, "x", n=3) == ["c", "a", "d"]
        latest = memory.recall("x", 1)[0]
        assert latest.patch == patch("c") and latest.accepted and latest.reason == "why c" and latest.at_s == 3.0
        assert memory.recall("z") == ()


def test_a_verdict_that_is_turned_round_is_the_same_try(memory: PatchMemory) -> None:
    memory.remember("x", patch("a"), accepted=True)
    memory.remember("x", patch("a"), accepted=False, reason="rolled back")
    assert [each.reason for each in memory.recall("x")] == ["rolled back"]
    assert [(rate.accepted, rate.tried) for rate in memory.success_rates()] == [(0, 1)]
    memory.remember("x", patch("a"), accepted=False)
    memory.remember("x", patch("a", provider="q"), accepted=True)
    assert {rate.provider: (rate.accepted, rate.tried) for rate in memory.success_rates()} == {"p": (0, 2), "q": (1, 1)}


def test_rates_are_ranked_by_what_can_be_relied_on(memory: PatchMemory) -> None:
    memory.remember("x", patch("lucky", "new"), accepted=True)
    for n in range(20):
        memory.remember("x", patch(f"{n}", "old"), accepted=n > 1)
    old, new = memory.success_rates()
    assert (old.provider, old.model, old.accepted, old.tried) == ("old", "m", 18, 20)
    assert new.at_least == wilson_interval(1, 1)[0] < old.at_least == wilson_interval(18, 20)[0] < 0.9


def test_the_oldest_rejected_are_forgotten_first(path: Path) -> None:
    with closing(PatchMemory(path, clock=ManualClock(), max_rows=3)) as memory:
        for text, accepted in (("a", True), ("b", False), ("c", False), ("d", True), ("e", False)):
            memory.remember("x", patch(text), accepted=accepted)
        assert texts(memory, "x") == ["d", "a", "e"]
        for text in "fg":
            memory.remember("x", patch(text), accepted=True)
        assert texts(memory, "x") == ["g", "f", "d"]
        assert [(rate.accepted, rate.tried) for rate in memory.success_rates()] == [(4, 7)]


def test_bytes_are_bounded_too(path: Path) -> None:
    with closing(PatchMemory(path, clock=ManualClock(), max_bytes=25_000)) as memory:
        for n in range(5):
            memory.remember("x", patch(f"{n}" * 10_000), accepted=False)
        assert texts(memory, "x") == ["4" * 10_000, "3" * 10_000]
        memory.remember("x", patch("z" * 30_000), accepted=False)
        assert texts(memory, "x") == []
        memory.remember("x", patch("a"), accepted=False, reason="r" * 50_000 + "end\ud800")
        assert len(memory.recall("x")[0].reason) == 20_000 and memory.recall("x")[0].reason.endswith("end?")


def test_the_models_that_are_counted_are_bounded(memory: PatchMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_MODELS", 2)
    for provider in "abc":
        memory.remember("x", patch(provider, provider), accepted=True)
    assert [rate.provider for rate in memory.success_rates()] == ["b", "c"]
    memory.remember("x", patch("a", "a"), accepted=False)
    assert [rate.provider for rate in memory.success_rates()] == ["b", "c"]


def test_what_cannot_be_is_refused(path: Path, tmp_path: Path, memory: PatchMemory) -> None:
    for n in (0, 101):
        with pytest.raises(HealingError, match="1 to 100"):
            memory.recall("x", n)
    with pytest.raises(HealingError, match="room"):
        PatchMemory(path, clock=ManualClock(), max_rows=0)
    (tmp_path / "text.db").write_text("no database at all, but long enough to be taken for one")
    with pytest.raises(StorageError, match="damaged"):
        PatchMemory(tmp_path / "text.db", clock=ManualClock())


WRITER = """
import sys
from pathlib import Path
from chimera.core.clock import ManualClock
from chimera.healing.memory import PatchMemory
from chimera.healing.patch import Append, CodePatch
memory = PatchMemory(Path(sys.argv[1]), clock=ManualClock(), max_rows=30, busy_timeout_s=60.0)
for n in range(40):
    patch = CodePatch(summary="s", edits=(Append(path="a.py", append=f"{sys.argv[2]} {n}"),), provider="p")
    memory.remember("x", patch, accepted=n % 2 == 0)
"""


def test_two_processes_remember_into_one_file(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), who], cwd=PROJECT) for who in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with closing(PatchMemory(path, clock=ManualClock())) as memory:
        assert [(rate.accepted, rate.tried) for rate in memory.success_rates()] == [(40, 80)]
        assert len(texts(memory, "x")) == 30
