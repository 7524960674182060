"""The hash: the published vectors of circomlib, and the same value inside a circuit and outside."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.sandbox.proofs.poseidon import FIELD, NUMBERS, permute, sponge
from chimera.sandbox.proofs.r1cs import Evaluator, Tracer

ELEMENTS = st.integers(0, FIELD - 1)


@pytest.mark.parametrize(
    ("inputs", "hashed"),
    [
        ([1, 2], 7853200120776062878684798364095072458815029376092732009249414926327459813530),
        ([1, 2, 3, 4], 18821383157269793795438455681495246036402687001665670618754263018637548127333),
        (list(range(1, 9)), 18604317144381847857886385684060986177838410221561136253933256952257712543953),
    ],
)
def test_it_is_the_poseidon_of_circomlib(inputs: list[int], hashed: int) -> None:
    assert permute(NUMBERS, [0, *inputs])[0] == hashed


@settings(max_examples=5)
@given(st.lists(ELEMENTS, min_size=1, max_size=12))
def test_the_circuit_computes_the_same(elements: list[int]) -> None:
    evaluator, tracer = Evaluator(), Tracer()
    inside = sponge(evaluator, 7, [evaluator.private(element) for element in elements])
    out = sponge(tracer, {0: 7}, [tracer.private(element) for element in elements])
    constraints = tracer.constraints()
    assert inside == sponge(NUMBERS, 7, elements)
    assert sum(factor * evaluator.assignment[variable] for variable, factor in out.items()) % FIELD == inside
    assert constraints.hold(evaluator.assignment)
    wrong = list(evaluator.assignment)
    wrong[-1] = (wrong[-1] + 1) % FIELD
    assert not constraints.hold(wrong)


@settings(max_examples=10)
@given(st.lists(ELEMENTS, min_size=2, max_size=20), st.data())
def test_every_element_and_the_header_count(elements: list[int], data: st.DataObject) -> None:
    hashed = sponge(NUMBERS, 1, elements)
    place = data.draw(st.integers(0, len(elements) - 1))
    other = [*elements[:place], (elements[place] + 1) % FIELD, *elements[place + 1 :]]
    assert sponge(NUMBERS, 1, other) != hashed != sponge(NUMBERS, 2, elements)
    if any(first != second for first, second in pairwise(elements)):
        assert sponge(NUMBERS, 1, [*elements[1:], elements[0]]) != hashed
