"""The opponent never errs, and a verdict is what came of the play: over every transcript, not over some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.canonical import encode
from chimera.arena.envs import challenge as rules
from chimera.arena.envs import tictactoe_game as game
from chimera.arena.envs.tictactoe import TicTacToe, TicTacToeEnv
from chimera.arena.randomness import Stream
from chimera.arena.types import Verdict

LIVE = [board for value in (1, 0, -1) for board in game.positions(value)]


def after(board: str, replies: tuple[str, ...]) -> TicTacToe:
    play = TicTacToe(board, Stream("tictactoe-v0", 1))
    for reply in replies:
        play.reply(reply)
    return play


def legal_plays(board: str, replies: tuple[str, ...] = ()) -> Iterator[TicTacToe]:
    """Every play that the player can make of this start."""
    play = after(board, replies)
    if play.verdict is not None:
        yield play
        return
    for square in game.squares(play.board):
        yield from legal_plays(board, (*replies, str(square + 1)))


def all_transcripts(challenge_id: str, replies: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every sequence of the replies 1..9 up to the end of the play, the illegal ones too."""
    play = rules.deal(TicTacToe, challenge_id)
    for reply in replies:
        play.reply(reply)
    if play.verdict is not None:
        yield replies
        return
    for number in range(1, 10):
        yield from all_transcripts(challenge_id, (*replies, str(number)))


def test_from_every_live_position_the_opponent_gives_nothing_away() -> None:
    """Whatever the player does in all 4,520, it gets at most what the start is worth, and right is who gets it."""
    assert len(LIVE) == 4_520
    for board in LIVE:
        worth = game.values()[board]
        scores = []
        for play in legal_plays(board):
            assert play.verdict is not None
            assert play.score <= worth
            assert play.verdict.ok == (play.score == worth)
            scores.append(play.score)
        assert worth in scores


def test_every_answer_of_the_opponent_is_among_its_best() -> None:
    """In all 4,519 live positions in which it can have to move."""
    answered = set()
    for board in LIVE:
        for square in game.squares(board):
            play = after(board, (str(square + 1),))
            mine = game.played(board, square)
            if not game.over(mine):
                assert play.board in {game.played(mine, best) for best in game.best_squares(mine)}
                answered.add(mine)
    assert answered == set(LIVE) - {game.START}


def test_who_plays_gold_gets_what_the_start_is_worth() -> None:
    for board in LIVE:
        play = TicTacToe(board, Stream("tictactoe-v0", 2))
        while play.verdict is None:
            play.reply(play.gold())
        assert play.verdict == Verdict(ok=True)
        assert play.score == game.values()[board]


def test_openings_vary_with_the_seed_and_with_nothing_else() -> None:
    def boards() -> list[str]:
        plays = [TicTacToe(game.START, Stream("tictactoe-v0", seed)) for seed in range(50)]
        for play in plays:
            play.reply("5")
        return [play.board for play in plays]

    assert boards() == boards()
    assert len(set(boards())) == 4  # the corners: an edge would lose


def scored(env: TicTacToeEnv) -> float:
    """What the last board means for the player: a draw, a win, or that it lost or broke the rules."""
    won = game.winner(env.challenge.board)
    if not won and game.EMPTY not in env.challenge.board:
        return 0.0
    return 1.0 if won == env.challenge.player else -1.0


def test_verify_equals_stepping_over_every_transcript() -> None:
    env = TicTacToeEnv()
    seen: Counter[bool] = Counter()
    for seed in range(40):
        challenge_id = f"seed:{seed}"
        for replies in all_transcripts(challenge_id):
            _, info = env.reset(options={"challenge_id": challenge_id})
            prompt = env.challenge.prompt()
            reward, ended = 0.0, False
            for reply in replies:
                assert not ended
                _, reward, ended, _, told = env.step(int(reply) - 1)  # type: ignore[arg-type]
            assert ended
            verdict = TicTacToeEnv.verify(prompt, encode(list(replies)).decode(), info)
            assert (verdict.ok, verdict.reason) == (told["ok"], told["reason"])
            assert reward == scored(env)
            shorter = TicTacToeEnv.verify(prompt, encode(list(replies[:-1])).decode(), info)
            assert shorter == Verdict(ok=False, reason="the response ends before the play does")
            seen[verdict.ok] += 1
    assert seen[True] > 100 and seen[False] > 1_000


replies_of_any_kind = st.lists(st.sampled_from("123456789") | st.text(max_size=6), max_size=7)


@given(st.integers(0, 10_000), replies_of_any_kind)
def test_verify_equals_replaying_whatever_is_said(seed: int, replies: list[str]) -> None:
    challenge_id = f"seed:{seed}"
    play = rules.deal(TicTacToe, challenge_id)
    prompt, info, used = play.prompt(), rules.info_of(play, challenge_id), 0
    while play.verdict is None and used < len(replies):
        play.reply(replies[used])
        used += 1
    verdict = TicTacToeEnv.verify(prompt, encode(replies).decode(), info)
    if play.verdict is not None and used == len(replies):
        assert verdict == play.verdict
    else:
        assert not verdict.ok


texts = st.text(max_size=12) | st.sampled_from(["0", "10", "01", "+1", "1.", "５", "1 2", "", "\n", "1", "5", " 9\n"])


@given(st.integers(0, 10_000), texts)
def test_whatever_is_not_the_number_of_an_empty_square_loses(seed: int, text: str) -> None:
    play = rules.deal(TicTacToe, f"seed:{seed}")
    assert isinstance(play, TicTacToe)
    legal = {str(square + 1) for square in game.squares(play.board)}
    play.reply(text)
    if text.strip(" \t\r\n") not in legal:
        assert play.verdict is not None and not play.verdict.ok
        assert play.score == -1
    else:
        assert play.verdict is None or "square" not in play.verdict.reason


def test_the_classes_come_in_the_shares_that_are_documented() -> None:
    dealt = [rules.deal(TicTacToe, f"share/{number}") for number in range(8_000)]
    boards = [play.start for play in dealt if isinstance(play, TicTacToe)]
    found = Counter(game.values()[board] for board in boards)
    for value, expected in ((1, 4_000), (0, 3_000), (-1, 1_000)):
        assert abs(found[value] - expected) < 4 * (expected * (8_000 - expected) / 8_000) ** 0.5
    movers = Counter(game.mover(board) for board in boards)
    assert min(movers.values()) > 2_000
    assert len(set(boards)) > 3_000


def test_the_player_sees_its_own_marks_as_ones() -> None:
    env = TicTacToeEnv()
    seed = next(seed for seed in range(100) if env.reset(seed=seed)[1]["player"] == "O")
    observed, info = env.reset(seed=seed)
    marks = {"O": 1, "X": -1, ".": 0}
    assert observed.flatten().tolist() == [marks[mark] for mark in str(info["board"])]


def test_the_prompt_says_all_that_info_says() -> None:
    """So to know the id, and with it the opponent's draws, tells a player nothing about what a move is worth."""
    for seed in range(50):
        play = rules.deal(TicTacToe, f"seed:{seed}")
        assert isinstance(play, TicTacToe)
        grid = play.prompt().split("\n\n")[1]
        cells = [cell.strip() for row in grid.split("\n---+---+---\n") for cell in row.split("|")]
        assert [cell if cell in "XO" else "." for cell in cells] == list(play.start)
        assert all(cell in ("X", "O", str(at + 1)) for at, cell in enumerate(cells))
        assert f"You are {play.player}" in play.prompt()


def test_nothing_is_taken_after_the_end() -> None:
    play = after(LIVE[0], ("x",))
    with pytest.raises(ValueError, match="over"):
        play.reply("1")
