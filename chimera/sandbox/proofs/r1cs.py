"""Rank-1 constraint systems, and the ways to run a circuit: for its constraints, and for a witness.

A circuit is a function over a `Builder`. A `Tracer` runs it once, with any values, and keeps the constraints: its
wires are linear combinations of variables. An `Evaluator` runs it with real values and keeps only those: its wires are
numbers, which takes a hundredth of the time. Both count the variables alike, since the circuit is one function.

A row says <a, z> <b, z> = <c, z> modulo the field, where z = (1, public inputs, private variables).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias, TypeVar

from chimera.sandbox.proofs.poseidon import FIELD, Algebra, Numbers

Combination: TypeAlias = dict[int, int]
"""Variable to coefficient; variable 0 is one."""

Row: TypeAlias = tuple[tuple[int, int], ...]

Wire = TypeVar("Wire")


@dataclass(frozen=True)
class Constraints:
    """The rows of a circuit. Variables are numbered from 0, which is one; the public inputs follow it."""

    a: tuple[Row, ...]
    b: tuple[Row, ...]
    c: tuple[Row, ...]
    public: int
    variables: int

    def __len__(self) -> int:
        return len(self.a)

    @cached_property
    def in_a(self) -> list[int]:
        """The variables that stand in any row of A."""
        return _variables(self.a)

    @cached_property
    def in_b(self) -> list[int]:
        return _variables(self.b)

    def evaluate(self, assignment: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """A z, B z and C z of an assignment z to all variables."""
        a, b, c = ([_dot(row, assignment) for row in rows] for rows in (self.a, self.b, self.c))
        return a, b, c

    def hold(self, assignment: Sequence[int]) -> bool:
        """Whether an assignment satisfies every row."""
        return all(a * b % FIELD == c for a, b, c in zip(*self.evaluate(assignment), strict=True))


def _variables(rows: tuple[Row, ...]) -> list[int]:
    return sorted({variable for row in rows for variable, _ in row})


def _dot(row: Row, assignment: Sequence[int]) -> int:
    return sum(coefficient * assignment[variable] for variable, coefficient in row) % FIELD


class Builder(Algebra[Wire], Protocol[Wire]):
    """What a circuit is written on. Public inputs are taken first, and in order."""

    def public(self, value: int) -> Wire: ...

    def private(self, value: int) -> Wire: ...

    def value(self, wire: Wire) -> int:
        """What a wire is worth, to compute other private values of; 0 where nobody knows it."""
        ...

    def constrain(self, left: Wire, right: Wire, result: Wire) -> None:
        """left times right is result."""
        ...


class Evaluator(Numbers):
    """Runs a circuit on real values, for its `assignment`. Nothing is checked."""

    def __init__(self) -> None:
        self.assignment = [1]

    def public(self, value: int) -> int:
        return self.private(value)

    def private(self, value: int) -> int:
        self.assignment.append(value % FIELD)
        return self.assignment[-1]

    def value(self, wire: int) -> int:
        return wire

    def product(self, left: int, right: int) -> int:
        return self.private(left * right)

    def settle(self, wire: int) -> int:
        return self.private(wire)

    def constrain(self, left: int, right: int, result: int) -> None:
        pass


class Counter:
    """Runs a circuit for the number of its `rows` only."""

    def __init__(self) -> None:
        self.rows = 1  # that of one, as the Tracer adds it

    def public(self, value: int) -> None:
        self.rows += 1

    def private(self, value: int) -> None:
        pass

    def value(self, wire: None) -> int:
        return 0

    def combine(self, terms: Sequence[tuple[int, None]], constant: int = 0) -> None:
        pass

    def product(self, left: None, right: None) -> None:
        self.rows += 1

    def settle(self, wire: None) -> None:
        self.rows += 1

    def constrain(self, left: None, right: None, result: None) -> None:
        self.rows += 1


class Tracer:
    """Runs a circuit for its constraints, whatever the values."""

    def __init__(self) -> None:
        self._rows: list[tuple[Combination, Combination, Combination]] = []
        self._public = 0
        self._variables = 1

    def public(self, value: int) -> Combination:
        self._public += 1
        return self.private(value)

    def private(self, value: int) -> Combination:
        self._variables += 1
        return {self._variables - 1: 1}

    def value(self, wire: Combination) -> int:
        return 0

    def combine(self, terms: Sequence[tuple[int, Combination]], constant: int = 0) -> Combination:
        total: Combination = {0: constant} if constant else {}
        for factor, wire in terms:
            for variable, coefficient in wire.items():
                total[variable] = total.get(variable, 0) + factor * coefficient
        return {variable: coefficient % FIELD for variable, coefficient in total.items()}

    def product(self, left: Combination, right: Combination) -> Combination:
        result = self.private(0)
        self.constrain(left, right, result)
        return result

    def settle(self, wire: Combination) -> Combination:
        return self.product(wire, {0: 1})

    def constrain(self, left: Combination, right: Combination, result: Combination) -> None:
        self._rows.append((left, right, result))

    def constraints(self) -> Constraints:
        """What was traced, and a row x * 0 = 0 for one and each public input.

        With those no two of them share their place in the A polynomials, so none can be traded for another (the input
        consistency of libsnark and snarkjs).
        """
        inputs = [({variable: 1}, dict[int, int](), dict[int, int]()) for variable in range(self._public + 1)]
        rows = self._rows + inputs
        a, b, c = (tuple(_row(triple[side]) for triple in rows) for side in range(3))
        return Constraints(a, b, c, self._public, self._variables)


def _row(combination: Combination) -> Row:
    return tuple((variable, coefficient) for variable, coefficient in combination.items() if coefficient)
