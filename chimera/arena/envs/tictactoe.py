"""`tictactoe-v0`: one side of tic-tac-toe, from any position, against an opponent that never errs.

From the empty board nobody beats such an opponent, so the start is drawn by what it is worth to the player: in half of
the challenges a win can be forced, in three eighths a draw can, and in one eighth the game is lost and has only to be
played to its end by the rules. Within a class every position is as likely: 2,836 wins, 1,052 draws, 632 losses.
"""

from __future__ import annotations

import random
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from chimera.arena.canonical import Plain
from chimera.arena.envs import tictactoe_game as game
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.challenge import Challenge
from chimera.arena.envs.numerals import whole_number
from chimera.arena.randomness import Stream
from chimera.arena.types import Verdict

CLASSES = (1, 1, 1, 1, 0, 0, 0, -1)
"""What the start is worth to the player, each as likely."""

_REASONS = {0: "a draw, where a win could be forced", -1: "lost, where more could be had"}


class TicTacToe(Challenge):
    """Get at least what the start is worth. An illegal move loses, and is never right.

    `board` is as `tictactoe_game` has it; whoever moves first on it is the player. The opponent draws among its best
    moves from the same stream as the start, so the seed settles the whole game tree.
    """

    env_id = "tictactoe-v0"
    multi_turn = True

    def __init__(self, board: str, stream: Stream) -> None:
        self.start = self.board = board
        self.player = game.mover(board)
        self._stream = stream
        self._verdict: Verdict | None = None
        self._score = 0

    @classmethod
    def deal(cls, stream: Stream) -> Self:
        return cls(stream.choice(game.positions(stream.choice(CLASSES))), stream)

    def prompt(self) -> str:
        opponent = "O" if self.player == "X" else "X"
        return (
            f"Tic-tac-toe. You are {self.player}, your opponent is {opponent} and plays perfectly. "
            "Three of your marks in a row, column or diagonal win. "
            "Get the best result that the position allows. Empty squares are shown by their number:\n\n"
            f"{drawn(self.start)}\n\n"
            "It is your move. Each time, reply with the number of an empty square and nothing else. "
            "Any other reply loses."
        )

    def public(self) -> dict[str, Plain]:
        return {"board": self.start, "player": self.player}

    def reply(self, text: str) -> str:
        if self._verdict is not None:
            raise ValueError("the play is over")
        number = whole_number(text, 1)
        if number is None or number == 0:
            return self._end(-1, "the reply is not the number of a square")
        if self.board[number - 1] != game.EMPTY:
            return self._end(-1, "the square is taken")
        self.board = game.played(self.board, number - 1)
        if game.over(self.board):
            return self._finish()
        answer = self._stream.choice(game.best_squares(self.board))
        self.board = game.played(self.board, answer)
        if game.over(self.board):
            return self._finish()
        return f"Your opponent takes {answer + 1}:\n\n{drawn(self.board)}\n\nIt is your move."

    @property
    def verdict(self) -> Verdict | None:
        return self._verdict

    @property
    def score(self) -> int:
        return self._score

    def gold(self) -> str:
        return str(game.best_squares(self.board)[0] + 1)

    def guess(self, rng: random.Random) -> str:
        return str(rng.choice(game.squares(self.board)) + 1)

    def _finish(self) -> str:
        won = game.winner(self.board)
        score = 0 if not won else 1 if won == self.player else -1
        return self._end(score, "" if score >= game.values()[self.start] else _REASONS[score])

    def _end(self, score: int, fault: str) -> str:
        self._score = score
        self._verdict = Verdict(ok=not fault, reason=fault)
        return ""


def drawn(board: str) -> str:
    """The board as people draw it, empty squares by their number, 1..9."""
    cells = [mark if mark != game.EMPTY else str(square + 1) for square, mark in enumerate(board)]
    return "\n---+---+---\n".join(" " + " | ".join(cells[row : row + 3]) for row in (0, 3, 6))


class TicTacToeEnv(ArenaEnv[NDArray[np.int8], np.int64, TicTacToe]):
    """Observed: the board, int8 of shape (3, 3): own marks 1, the opponent's -1. An action: a square, 0..8 by rows."""

    rules = TicTacToe

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = spaces.Box(-1, 1, (3, 3), np.int8)
        self.action_space: spaces.Space[Any] = spaces.Discrete(9)

    def observe(self) -> NDArray[np.int8]:
        own = self.challenge.player
        marks = [0 if mark == game.EMPTY else 1 if mark == own else -1 for mark in self.challenge.board]
        return np.array(marks, np.int8).reshape(3, 3)

    def say(self, action: np.int64) -> str:
        return str(int(action) + 1)
