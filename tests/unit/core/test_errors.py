"""Every error of the tree crosses a process boundary with its class, its text and its fields."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from chimera.core.errors import (
    ChimeraError,
    GraphError,
    InputError,
    MissingExtra,
    ModelRefused,
    NoAgents,
    Overloaded,
    UnreadableDocument,
)

PACKAGE = Path(__file__).parents[3] / "chimera"
SAMPLES: dict[str, Any] = {"str": "a café, 3 of 5", "float": 2.5, "int": 7}


def tree(root: type[ChimeraError]) -> Iterator[type[ChimeraError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ERRORS = sorted(
    {error for error in tree(ChimeraError) if error.__module__.startswith("chimera.")}, key=lambda error: error.__name__
)


def sample(error: type[ChimeraError]) -> ChimeraError:
    parameters = [name for name in inspect.signature(error).parameters.values() if name.default is name.empty]
    assert all(name.kind is name.POSITIONAL_OR_KEYWORD for name in parameters), "Ray cannot rebuild it otherwise"
    return error(*[SAMPLES[str(name.annotation)] for name in parameters])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("through", [pickle, cloudpickle, copy])
def test_an_error_survives_the_way_between_processes(error: type[ChimeraError], through: object) -> None:
    sent = sample(error)
    arrived = copy.copy(sent) if through is copy else pickle.loads(through.dumps(sent))  # type: ignore[attr-defined]
    assert type(arrived) is error
    assert arrived is not sent
    assert vars(arrived) == vars(sent)
    assert str(arrived) == str(sent) == sent.message
    assert arrived.args == sent.args


def test_the_tree_was_walked() -> None:
    assert {ChimeraError, InputError, GraphError, MissingExtra, Overloaded, NoAgents} <= set(ERRORS)
    assert all(error.__doc__ for error in ERRORS)


def test_the_tree_stands_in_one_file() -> None:
    """Every error is among ERRORS, so none escapes the tests above by living in a module that nobody imported."""
    names = {error.__name__ for error in ERRORS}
    strays = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and path != PACKAGE / "core/errors.py"
        if names & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    ]
    assert strays == []


def test_fields_and_messages() -> None:
    assert GraphError("a cycle: a, b, a", "cycle").reason == "cycle"
    assert Overloaded("the mailbox is full", 0.5).retry_after_s == 0.5
    unreadable = UnreadableDocument("notes.pdf", "encrypted")
    assert (unreadable.file, unreadable.cause, str(unreadable)) == ("notes.pdf", "encrypted", "notes.pdf: encrypted")
    missing = MissingExtra("openai", "llm")
    assert str(missing) == "openai is not installed: pip install 'chimera[llm]'"


def test_what_the_caller_can_mend_is_an_input_error() -> None:
    assert issubclass(ModelRefused, InputError)
    assert issubclass(NoAgents, InputError)
    assert not issubclass(Overloaded, InputError)
