"""What the gateway cleared cannot be made, changed, copied or sent elsewhere by anybody else."""

from __future__ import annotations

import copy
import pickle
import types
from typing import Any

import cloudpickle
import pytest

from chimera.core.errors import Forbidden
from chimera.security.safety.cleared import Cleared, Publisher, opened
from chimera.security.safety.findings import Output
from tests.unit.security.safety.gate import cleared, gateway, output


class Post(Publisher):
    """A channel that keeps what it sends."""

    channel = "system"

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    async def _send(self, output: Output) -> str:
        self.sent.append((output.text, output.audience))
        return ""


async def test_what_was_cleared_is_sent() -> None:
    post = Post()
    await post.publish(cleared("good morning"), audience="all")
    assert post.sent == [("good morning", "all")]


def forged(text: str) -> Cleared:
    """One made past the constructor, with the seal of another."""
    genuine = cleared("good morning")
    made = object.__new__(Cleared)
    object.__setattr__(made, "_output", output(text))
    object.__setattr__(made, "_sealed", genuine._sealed)
    return made


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(lambda: "good morning", id="text"),
        pytest.param(lambda: output("good morning"), id="what was not reviewed"),
        pytest.param(lambda: forged("bad morning"), id="another's seal"),
        pytest.param(lambda: object.__new__(Cleared), id="an empty one"),
        pytest.param(
            lambda: types.SimpleNamespace(_output=output("x"), _sealed=b"", text="x"),
            id="a look-alike",
        ),
        pytest.param(lambda: None, id="nothing"),
    ],
)
async def test_nothing_else_is_sent(what: Any) -> None:
    post = Post()
    with pytest.raises(Forbidden):
        await post.publish(what(), audience="all")
    assert post.sent == []


async def test_a_text_goes_only_where_it_was_cleared_for() -> None:
    class Elsewhere(Post):
        channel = "post"

    one = cleared("good morning")
    for post, audience in ((Elsewhere(), "all"), (Post(), "somebody")):
        with pytest.raises(Forbidden, match="another channel or audience"):
            await post.publish(one, audience=audience)
        assert post.sent == []


@pytest.mark.parametrize("token", [None, object(), "token", Cleared])
def test_only_the_gateway_makes_one(token: object) -> None:
    with pytest.raises(Forbidden, match=r"SafetyGateway\.review"):
        Cleared(token, output("x"), (), "")


def test_it_does_not_change() -> None:
    one = cleared("good morning")
    for name in ("text", "_output", "_sealed", "findings", "new"):
        with pytest.raises(AttributeError):
            setattr(one, name, "x")
        with pytest.raises(AttributeError):
            delattr(one, name)
    object.__setattr__(one, "_output", output("bad morning"))
    with pytest.raises(Forbidden):
        opened(one, channel="system", audience="all")


@pytest.mark.parametrize(
    "take",
    [pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy],
    ids=["pickle", "cloudpickle", "copy", "deepcopy"],
)
def test_it_stays_in_its_process(take: Any) -> None:
    with pytest.raises(TypeError, match="stays in the process"):
        take(cleared("good morning"))


def test_no_class_is_derived_from_it_and_publish_is_not_replaced() -> None:
    with pytest.raises(TypeError, match="no subclasses"):
        type("Mine", (Cleared,), {})
    with pytest.raises(TypeError, match="publish is not to be replaced"):
        type("Mine", (Publisher,), {"publish": lambda self, text: None})


def test_it_shows_no_text() -> None:
    assert "morning" not in repr(cleared("good morning"))
    assert "morning" not in repr(output("good morning"))


def test_two_gateways_of_a_process_clear_for_each_other() -> None:
    """The seal is the process's: a process may have a gateway for each policy."""
    assert opened(gateway().review(output("x")), channel="system", audience="all").text == "x"
