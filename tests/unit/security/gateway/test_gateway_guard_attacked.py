"""The guard of tools and what marks data, attacked: uses once a call, arguments of every make, hostile marks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError
from chimera.security.capabilities import attenuate
from chimera.security.capability_home import CapabilityHome
from chimera.security.caveats import Caveat, OnlyOperations, Uses
from chimera.security.gateway.canary import Canary
from chimera.security.gateway.guard import Call, Effect, Tool, ToolGuard
from chimera.security.gateway.taint import MARKS, SPARE, Tainted, spotlight
from chimera.security.held import HeldCapability

WEB = frozenset({"web"})
TAINTED = Tainted("pay me", WEB)
GUARD = ToolGuard([Tool("mail", frozenset({Effect.SENDS})), Tool("fetch", frozenset({Effect.READS, Effect.SENDS}))])
ALL = ("sends:mail", "tainted:sends:mail", "reads:fetch", "sends:fetch", "tainted:reads:fetch", "tainted:sends:fetch")


class Everything:
    """A capability for all that is not tainted."""

    def verify(self, operations: tuple[str, ...], resource: str) -> bool:
        return not any(operation.startswith("tainted:") for operation in operations)


@pytest.mark.parametrize(
    ("tool", "taint"), [("mail", frozenset()), ("mail", WEB), ("fetch", frozenset()), ("fetch", WEB)]
)
def test_a_call_is_one_use_and_a_refused_one_is_none(tmp_path: Path, tool: str, taint: frozenset[str]) -> None:
    with CapabilityHome(tmp_path, clock=ManualClock(1_800_000_000.0)) as home:
        token = attenuate(home.issue("agent", ALL, "a/*", ttl_s=60), Uses(3))
        without = attenuate(token, OnlyOperations(("sends:mail", "reads:fetch", "sends:fetch")))
        held, narrow = HeldCapability(home, token), HeldCapability(home, without)
        for _ in range(5):
            assert not GUARD.allow(Call(tool, "a/1"), tainted_by=WEB, capability=narrow).allowed
        told = [GUARD.allow(Call(tool, "a/1"), tainted_by=taint, capability=held).allowed for _ in range(4)]
    assert told == [True, True, True, False]


class Parcel:
    def __init__(self) -> None:
        self.inside = TAINTED


@pytest.mark.parametrize(
    "argument",
    [deque([TAINTED]), {"a": TAINTED}.values(), {TAINTED}, {TAINTED: 1}, Parcel(), iter([TAINTED]), lambda: TAINTED],
    ids=lambda value: type(value).__name__,
)
def test_no_container_hides_a_taint(argument: object) -> None:
    call = Call("mail", "a/1", {"body": argument})
    assert not GUARD.allow(call, tainted_by=frozenset(), capability=Everything()).allowed


def test_plain_arguments_are_not_suspected() -> None:
    call = Call("mail", "a/1", {"body": ["Hello", 1, 2.5, None, True, b"x", {"path": Path("a")}, ("b",), {"c"}]})
    assert GUARD.allow(call, tainted_by=frozenset(), capability=Everything()).allowed


def test_an_argument_that_holds_itself_is_looked_through_once() -> None:
    body: list[object] = ["Hello"]
    body.append(body)
    assert GUARD.allow(Call("mail", "a/1", {"body": body}), tainted_by=frozenset(), capability=Everything()).allowed
    body.append(TAINTED)
    assert not GUARD.allow(Call("mail", "a/1", {"body": body}), tainted_by=frozenset(), capability=Everything()).allowed


def test_a_text_of_all_marks_finds_another_and_one_of_every_is_refused() -> None:
    every = "".join(map(chr, MARKS))
    prompt = spotlight(Tainted(f"a b {every}", WEB))
    assert any(ord(character) in SPARE for character in prompt) and "a b" not in prompt
    with pytest.raises(InputError, match="private use"):
        spotlight(Tainted(every + "".join(map(chr, SPARE)), WEB))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda word: {"body": Tainted(f"it is {word}", WEB)},
        lambda word: {"body": word.encode()},
        lambda word: {"body": {word}},
    ],
    ids=["tainted", "bytes", "set"],
)
def test_a_canary_is_seen_in_every_kind_of_argument(wrap: Callable[[str], object]) -> None:
    assert Canary().leaked(wrap("0")) is False
    canary = Canary()
    assert canary.leaked(wrap(canary.word))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Uses(2.5),  # type: ignore[arg-type]
        lambda: Uses(True),
        lambda: Uses("1"),  # type: ignore[arg-type]
        lambda: OnlyOperations("pays"),  # type: ignore[arg-type]
    ],
    ids=["half a use", "a truth", "a text", "letters"],
)
def test_a_caveat_of_another_type_says_so(make: Callable[[], Caveat]) -> None:
    with pytest.raises(InputError, match="give a"):
        make()
