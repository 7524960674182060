"""The Poseidon permutation over BN254's scalar field, and a sponge on it: a hash that is cheap inside a circuit.

Grassi, Khovratovich, Rechberger, Roy, Schofnegger: "Poseidon: A New Hash Function for Zero-Knowledge Proof Systems",
USENIX Security 2021 (eprint 2019/458). S-box x^5, eight full rounds, the partial rounds of the paper's table for 128
bits of security; constants from the Grain LFSR of its appendix E. They are those of circomlib.

What is hashed is anything that an `Algebra` works on: numbers, or the wires of a circuit. So the hash in a proof and
the one outside of it are the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Protocol, TypeVar

FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""The order of BN254's groups: numbers in a circuit are modulo this prime."""

FIELD_BITS = 254

FULL_ROUNDS = 8

PARTIAL_ROUNDS = (56, 57, 56, 60, 60, 63, 64, 63, 60, 66, 60, 65, 70, 60, 64, 68)
"""Of the widths 2 to 17."""

Wire = TypeVar("Wire")


class Algebra(Protocol[Wire]):
    """What a hash or a circuit is built of: linear combinations, which cost nothing in a circuit, and products."""

    def combine(self, terms: Sequence[tuple[int, Wire]], constant: int = 0) -> Wire:
        """The sum of coefficient times wire over `terms`, and `constant`."""
        ...

    def product(self, left: Wire, right: Wire) -> Wire: ...

    def settle(self, wire: Wire) -> Wire:
        """The same value as a wire of its own, where a long combination will be used often."""
        ...


class Numbers:
    """The algebra of plain numbers modulo `FIELD`."""

    def combine(self, terms: Sequence[tuple[int, int]], constant: int = 0) -> int:
        return (sum(coefficient * value for coefficient, value in terms) + constant) % FIELD

    def product(self, left: int, right: int) -> int:
        return left * right % FIELD

    def settle(self, wire: int) -> int:
        return wire


NUMBERS = Numbers()


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of one width: `rounds` constants a round, one for each element of the state, and the `mix` matrix."""

    rounds: tuple[tuple[int, ...], ...]
    mix: tuple[tuple[int, ...], ...]


def _grain(width: int, partial: int) -> Iterator[int]:
    """The bits that are left of the Grain LFSR, whose 80 bits of state begin with a description of the permutation."""
    described = ((1, 2), (0, 4), (FIELD_BITS, 12), (width, 12), (FULL_ROUNDS, 10), (partial, 10), ((1 << 30) - 1, 30))
    bits = [int(bit) for value, size in described for bit in f"{value:0{size}b}"]

    def step() -> int:
        new = bits[62] ^ bits[51] ^ bits[38] ^ bits[23] ^ bits[13] ^ bits[0]
        bits.append(new)
        del bits[0]
        return new

    for _ in range(160):
        step()
    while True:
        kept, bit = step(), step()
        if kept:
            yield bit


@cache
def parameters(width: int) -> Parameters:
    """The constants of a permutation of `width` elements, from 2 to 17."""
    partial = PARTIAL_ROUNDS[width - 2]
    bits = _grain(width, partial)

    def number() -> int:
        return int("".join(map(str, islice(bits, FIELD_BITS))), 2)

    def below_field() -> int:
        while (found := number()) >= FIELD:
            pass
        return found

    rounds = tuple(tuple(below_field() for _ in range(width)) for _ in range(FULL_ROUNDS + partial))
    points = [number() % FIELD for _ in range(2 * width)]  # those of the Cauchy matrix are not drawn again
    mix = tuple(tuple(pow(x + y, -1, FIELD) for y in points[width:]) for x in points[:width])
    return Parameters(rounds, mix)


def permute(algebra: Algebra[Wire], state: Sequence[Wire]) -> list[Wire]:
    """Poseidon of a state of 2 to 17 elements."""
    known = parameters(len(state))
    first_partial, last_partial = FULL_ROUNDS // 2, len(known.rounds) - FULL_ROUNDS // 2
    for number, constants in enumerate(known.rounds):
        shifted = [algebra.combine([(1, wire)], constant) for wire, constant in zip(state, constants, strict=True)]
        powered = 1 if first_partial <= number < last_partial else len(shifted)
        shifted[:powered] = [_fifth_power(algebra, wire) for wire in shifted[:powered]]
        state = [algebra.combine(list(zip(row, shifted, strict=True))) for row in known.mix]
    return list(state)


def _fifth_power(algebra: Algebra[Wire], wire: Wire) -> Wire:
    square = algebra.product(wire, wire)
    return algebra.product(algebra.product(square, square), wire)


def sponge(algebra: Algebra[Wire], header: Wire, elements: Sequence[Wire], *, width: int = 9) -> Wire:
    """One element that stands for all: absorbed `width - 1` at a time, beginning with `header` as the capacity.

    Collisions take 2^127 steps. The header has to tell the number of elements and what they are for: nothing is padded.
    """
    state = [header] + [algebra.combine([])] * (width - 1)
    for begin in range(0, len(elements), width - 1):
        for place, element in enumerate(elements[begin : begin + width - 1], 1):
            state[place] = algebra.combine([(1, state[place]), (1, element)])
        state = permute(algebra, [algebra.settle(wire) for wire in state])
    return state[0]
