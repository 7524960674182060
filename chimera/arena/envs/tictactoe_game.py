"""Tic-tac-toe solved: every legal board, and what it is worth to whoever is to move.

A board is nine characters, `X`, `O` or `.`, row by row; X moves first, so the board says whose move it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

EMPTY = "."
START = EMPTY * 9
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


def mover(board: str) -> str:
    """Whose move it is, `X` or `O`."""
    return "X" if board.count("X") == board.count("O") else "O"


def winner(board: str) -> str:
    """Who has three in a row, or nothing."""
    for one, two, three in LINES:
        if board[one] != EMPTY and board[one] == board[two] == board[three]:
            return board[one]
    return ""


def over(board: str) -> bool:
    """Whether nobody can move any more."""
    return EMPTY not in board or winner(board) != ""


def squares(board: str) -> list[int]:
    """The empty squares, 0..8."""
    return [square for square, mark in enumerate(board) if mark == EMPTY]


def played(board: str, square: int) -> str:
    """The board after the mover has taken this square."""
    return board[:square] + mover(board) + board[square + 1 :]


@cache
def values() -> Mapping[str, int]:
    """What each of the 5,478 legal boards is worth to its mover under perfect play: 1 a win, 0 a draw, -1 a loss.

    Who is to move on a board that is won has lost it.
    """
    found: dict[str, int] = {}

    def value(board: str) -> int:
        if board not in found:
            if over(board):
                found[board] = -1 if winner(board) else 0
            else:
                found[board] = max(-value(played(board, square)) for square in squares(board))
        return found[board]

    value(START)
    return MappingProxyType(found)


@cache
def positions(value: int) -> tuple[str, ...]:
    """The boards that are worth this to their mover and on which it can still move, sorted."""
    return tuple(sorted(board for board, worth in values().items() if worth == value and not over(board)))


@cache
def best_squares(board: str) -> tuple[int, ...]:
    """The moves that keep what the board is worth, at least one. The board is one of the 4,520 live ones."""
    worth = values()
    return tuple(square for square in squares(board) if -worth[played(board, square)] == worth[board])
