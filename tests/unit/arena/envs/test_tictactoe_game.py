"""Tic-tac-toe by its published numbers, and its values by another solver that shares no line with the first."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from chimera.arena.envs import tictactoe_game as game

MAGIC = (2, 7, 6, 9, 5, 1, 4, 3, 8)
"""Three squares are a line if and only if their numbers in this magic square sum to 15."""


@cache
def has_line(squares: frozenset[int]) -> bool:
    numbers = [MAGIC[square] for square in squares]
    return any(a + b + c == 15 for a in numbers for b in numbers for c in numbers if a < b < c)


State = tuple[frozenset[int], frozenset[int]]
"""The squares of whoever is to move, and those of the other."""


def children(state: State) -> list[State]:
    own, other = state
    if has_line(other):
        return []
    return [(other, own | {square}) for square in sorted(set(range(9)) - own - other)]


def layers() -> list[set[State]]:
    """The states by how many marks are on them."""
    found: list[set[State]] = [{(frozenset(), frozenset())}]
    for _ in range(9):
        found.append({child for state in found[-1] for child in children(state)})
    return found


def solved() -> dict[State, int]:
    """Values from the end backwards."""
    values: dict[State, int] = {}
    for layer in reversed(layers()):
        for state in layer:
            after = [-values[child] for child in children(state)]
            values[state] = max(after) if after else -int(has_line(state[1]))
    return values


def state_of(board: str) -> State:
    own = game.mover(board)
    sides = {mark: frozenset(at for at, found in enumerate(board) if found == mark) for mark in "XO"}
    return sides[own], sides["O" if own == "X" else "X"]


def turned(board: str) -> set[str]:
    """The board and what it becomes when it is turned and mirrored."""
    found = set()
    for _ in range(4):
        board = "".join(board[6 - 3 * (at % 3) + at // 3] for at in range(9))
        found |= {board, "".join(board[at // 3 * 3 + 2 - at % 3] for at in range(9))}
    return found


def test_the_states_are_those_that_are_known() -> None:
    boards = set(game.values())
    assert len(boards) == 5_478
    assert {state_of(board) for board in boards} == set.union(*layers())
    ends = [board for board in boards if game.over(board)]
    assert len(ends) == 958
    assert Counter(game.winner(board) for board in ends) == {"X": 626, "O": 316, "": 16}
    assert len({min(turned(board)) for board in boards}) == 765


def test_the_games_are_those_that_are_known() -> None:
    @cache
    def games(board: str) -> Counter[str]:
        if game.over(board):
            return Counter([game.winner(board)])
        return sum((games(game.played(board, square)) for square in game.squares(board)), Counter[str]())

    found = games(game.START)
    assert found == {"X": 131_184, "O": 77_904, "": 46_080}
    assert found.total() == 255_168


def test_every_value_is_the_other_solver_s() -> None:
    other = solved()
    assert {board: other[state_of(board)] for board in game.values()} == dict(game.values())


def test_the_live_positions_fall_into_three_classes() -> None:
    classes = {value: game.positions(value) for value in (1, 0, -1)}
    assert {value: len(boards) for value, boards in classes.items()} == {1: 2_836, 0: 1_052, -1: 632}
    assert sum(map(len, classes.values())) == 4_520
    for value, boards in classes.items():
        assert list(boards) == sorted(set(boards))
        assert all(game.values()[board] == value and not game.over(board) for board in boards)


def test_best_moves_are_all_the_moves_that_keep_the_value_and_no_other() -> None:
    other = solved()
    for value in (1, 0, -1):
        for board in game.positions(value):
            kept = [square for square in game.squares(board) if -other[state_of(game.played(board, square))] == value]
            assert list(game.best_squares(board)) == kept != []


def test_the_values_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        game.values()[game.START] = 1  # type: ignore[index]
