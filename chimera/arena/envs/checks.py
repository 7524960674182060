"""What every environment must do, whoever wrote it: one suite, run before anyone is judged by it.

    from chimera.arena.envs.checks import check_environment
    check_environment(CoinEnv)

Each check stands for a way to cheat or to disagree: a verdict that believes `info`, an answer that `info` gives away, a
play that ends differently when it is replayed or in another process.
"""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import gymnasium
from gymnasium.utils.env_checker import check_env

from chimera.arena.canonical import Plain, digest, encode
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.challenge import MAX_TURNS, Challenge
from chimera.arena.envs.registry import AnyEnv, find
from chimera.arena.randomness import SEED_PREFIX
from chimera.arena.types import MAX_TEXT_CHARS, Verdict
from chimera.core.errors import InputError

MAX_SAMPLES = 10_000

OTHER_ID = "check/other"

LONE_SURROGATE = "\ud800"

GARBAGE = ("", " \n", "\x00\x07", "\u2603 \uff11\u0663", LONE_SURROGATE, "-0_1e", "[]", "ok" * 2_000)
"""Replies that are right in no environment."""

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""ASCII to the letters and digits that `int` and NFKC take for the same."""

PROCESS_TIMEOUT_S = 60.0


def check_environment(kind: AnyEnv, *, samples: int = 50) -> None:
    """Run every check on `samples` challenges (2..10000).

    Raises AssertionError that names the check which failed, and why; InputError for what is no environment at all.
    """
    if not 2 <= samples <= MAX_SAMPLES:
        raise InputError(f"samples must be in 2..{MAX_SAMPLES}, not {samples}")
    if not (isinstance(kind, type) and issubclass(kind, ArenaEnv) and hasattr(kind, "rules")):
        raise InputError(f"{kind!r} is not a subclass of ArenaEnv with `rules`")
    for check in CHECKS:
        try:
            check(kind, samples)
        except Exception as error:  # a check must name itself whatever an environment raises
            name, said = check.__name__.strip("_"), str(error) or repr(error)
            raise AssertionError(f"{kind.rules.env_id} fails the check `{name}`: {said}") from error


def _gymnasium(kind: AnyEnv, samples: int) -> None:
    """Gymnasium's own checks pass, without a warning."""
    spec = gymnasium.envs.registration.EnvSpec(kind.rules.env_id, entry_point=partial(kind))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for render_mode in (None, "ansi"):
            env = gymnasium.make(spec, render_mode=render_mode).unwrapped
            check_env(env)
            env.close()
    _demand(not warned, f"Gymnasium warns: {warned[0].message if warned else ''}")


def _info(kind: AnyEnv, samples: int) -> None:
    """`info` is plain, names the challenge, differs from that of other challenges, and holds no answer."""
    seen = set()
    for challenge_id, challenge in _dealt(kind, samples):
        info = rules.info_of(challenge, challenge_id)
        _demand(info["challenge_id"] == challenge_id, "public() replaces the challenge_id")
        _demand(json.loads(encode(info)) == info, f"info changes when it is stored: {info}")
        seen.add(encode(challenge.public()) + challenge.prompt().encode())
        if not kind.rules.multi_turn:
            held = {str(value).strip() for value in _leaves(challenge.public())}
            _demand(challenge.gold().strip() not in held, f"info of {challenge_id} holds the answer")
    _demand(len(seen) > 1, f"{samples} ids deal the same challenge")


def _prompt(kind: AnyEnv, samples: int) -> None:
    """The prompt can be kept as evidence, and stays what it was to the end."""
    for challenge_id, challenge in _dealt(kind, samples):
        prompt = challenge.prompt()
        encode(prompt)
        _demand(0 < len(prompt) <= MAX_TEXT_CHARS, f"the prompt has {len(prompt)} characters, not 1..{MAX_TEXT_CHARS}")
        _finish(challenge, challenge.gold)
        _demand(challenge.prompt() == prompt, f"the prompt of {challenge_id} changes during the play")


def _gold(kind: AnyEnv, samples: int) -> None:
    """What a perfect player replies is accepted, and no more than that."""
    for challenge_id, challenge in _dealt(kind, samples):
        replies = _finish(challenge, challenge.gold)
        _agree(kind, challenge_id, challenge, replies)
        _demand(challenge.verdict == Verdict(ok=True), f"gold replies to {challenge_id} fail: {challenge.verdict}")
        _refuses_replies_at_the_end(challenge)
        if kind.rules.multi_turn:
            for wrong in (replies[:-1], [*replies, replies[-1]], [*replies, ""]):
                _refused(kind, challenge_id, response=rules.response_of(kind.rules, wrong))
            _refused(kind, challenge_id, response=" " + rules.response_of(kind.rules, replies))
            _refused(kind, challenge_id, response=replies[0])


def _garbage(kind: AnyEnv, samples: int) -> None:
    """Garbage is refused at once, on the first turn and on any later one; so is the answer in look-alike letters."""
    for challenge_id, _ in _dealt(kind, samples):
        for turn in range(MAX_TURNS):
            challenge, replies = _after_gold(kind, challenge_id, turn)
            if challenge.verdict is not None:
                break
            gold = challenge.gold()
            for text in (*GARBAGE, gold.translate(FULL_WIDTH)):
                if text == gold:  # without ASCII it has no look-alike
                    continue
                again, _ = _after_gold(kind, challenge_id, turn)
                again.reply(text)
                _demand(_failed(again), f"the reply {text[:20]!a} to {challenge_id} does not end the play")
                if text != LONE_SURROGATE:  # of which there can be no record
                    _agree(kind, challenge_id, again, [*replies, text])
        for text in (*GARBAGE, "[" * 5_000, '[""', "0" * (MAX_TEXT_CHARS + 1)):
            _refused(kind, challenge_id, response=text)


def _forgery(kind: AnyEnv, samples: int) -> None:
    """A right response does not pass with an `info` or a prompt that is not the challenge's own."""
    for challenge_id, challenge in _dealt(kind, samples):
        prompt, info = challenge.prompt(), rules.info_of(challenge, challenge_id)
        response = rules.response_of(kind.rules, _finish(challenge, challenge.gold))
        for forged in _forged(info):
            _refused(kind, challenge_id, response=response, info=forged)
        other = rules.deal(kind.rules, OTHER_ID)
        if (other.prompt(), other.public()) != (prompt, challenge.public()):
            _refused(kind, challenge_id, response=response, info={**info, "challenge_id": OTHER_ID})
            _refused(kind, challenge_id, response=response, info=rules.info_of(other, OTHER_ID))
        for forged_prompt in ("", prompt + " ", prompt[:-1], prompt.swapcase() + "\n"):
            _refused(kind, challenge_id, response=response, prompt=forged_prompt)


def _replay(kind: AnyEnv, samples: int) -> None:
    """Stepping through the environment comes to what `verify` says of the transcript, reward and all."""
    env, rng = kind(), random.Random(0)
    env.action_space.seed(0)
    for challenge_id, challenge in _dealt(kind, samples):
        guesses = _finish(challenge, partial(challenge.guess, rng))
        _agree(kind, challenge_id, challenge, guesses)
        _, info = env.reset(options={"challenge_id": challenge_id})
        dealt = rules.deal(kind.rules, challenge_id)
        _demand(info == rules.info_of(dealt, challenge_id), "reset() gives another info than the rules")
        replies: list[str] = []
        ended, reward = False, 0.0
        while not ended:
            _demand(len(replies) < MAX_TURNS, f"{challenge_id} is not over after {MAX_TURNS} steps")
            _demand(reward == 0.0, "there is a reward before the end")
            action = env.action_space.sample()
            replies.append(env.say(action))
            observed, reward, ended, cut, told = env.step(action)
            _demand(observed in env.observation_space, f"{observed!r} is not in the observation space")
            _demand(not cut, "a play is cut short")
        _demand(reward in (-1.0, 0.0, 1.0), f"the reward {reward} is not -1, 0 or 1")
        _demand(reward == env.challenge.score, "the reward is not the score")
        verdict = _agree(kind, challenge_id, env.challenge, replies)
        _demand((told["ok"], told["reason"]) == (verdict.ok, verdict.reason), "step() and verify() disagree")


def _seeds(kind: AnyEnv, samples: int) -> None:
    """`reset(seed=n)` deals `seed:n`, and different seeds are different challenges."""
    env, ids = kind(), set()
    for seed in range(samples):
        observed, info = env.reset(seed=seed)
        _demand(observed in env.observation_space, f"{observed!r} is not in the observation space")
        _demand(info["challenge_id"] == f"{SEED_PREFIX}{seed}", f"seed {seed} deals {info['challenge_id']}")
        ids.add(info["challenge_id"])
        env.reset()
        ids.add(env.challenge_id)
    _demand(len(ids) == 2 * samples, "two resets deal the same challenge")


def _processes(kind: AnyEnv, samples: int) -> None:
    """Other processes, with other hash seeds, deal and judge the same."""
    where = f"{kind.__module__}:{kind.__qualname__}"
    code = "import sys; from chimera.arena.envs.checks import main; main(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", code, where, str(samples)]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "4294967295")
    ]
    try:
        for process in started:
            out, err = process.communicate(timeout=PROCESS_TIMEOUT_S)
            _demand(process.returncode == 0, f"{where} does not run in a process of its own: {err[-500:]}")
            _demand(out.strip() == fingerprint(kind, samples), "another process deals or judges differently")
    finally:
        for process in started:
            process.kill()
            process.communicate()


CHECKS: tuple[Callable[[AnyEnv, int], None], ...] = (
    _info,
    _prompt,
    _gold,
    _garbage,
    _forgery,
    _replay,
    _seeds,
    _gymnasium,
    _processes,
)


def fingerprint(kind: AnyEnv, samples: int) -> str:
    """A hash of what `samples` challenges are and how two plays of each go; equal wherever it is computed."""
    told: list[Plain] = []
    for challenge_id, challenge in _dealt(kind, samples):
        rng = random.Random(challenge_id)
        told += [challenge.prompt(), rules.info_of(challenge, challenge_id)]
        for play in (challenge, rules.deal(kind.rules, challenge_id)):
            reply = play.gold if play is challenge else partial(play.guess, rng)
            told += [*_finish(play, reply), play.score, (play.verdict or Verdict(ok=False)).reason]
    return digest(encode(told)).hex()


def main(where: str, samples: int) -> None:
    """Print the fingerprint of the environment at `module:name`."""
    sys.stdout.write(fingerprint(find(where), samples))


def _dealt(kind: AnyEnv, samples: int) -> Iterator[tuple[str, Challenge]]:
    for number in range(samples):
        yield f"check/{number}", rules.deal(kind.rules, f"check/{number}")


def _finish(challenge: Challenge, reply: Callable[[], str]) -> list[str]:
    """Play to the end; the replies."""
    replies: list[str] = []
    while challenge.verdict is None:
        _demand(len(replies) < MAX_TURNS, f"a play is not over after {MAX_TURNS} replies")
        replies.append(reply())
        said = challenge.reply(replies[-1])
        _demand((said == "") == (challenge.verdict is not None), "a player is told nothing at the end, and only then")
    scored = type(challenge.score) is int and challenge.score in (-1, 0, 1)
    _demand(scored, f"the score {challenge.score!r} is not -1, 0 or 1")
    return replies


def _after_gold(kind: AnyEnv, challenge_id: str, turns: int) -> tuple[Challenge, list[str]]:
    """The challenge after so many right replies, or at its end."""
    challenge, replies = rules.deal(kind.rules, challenge_id), list[str]()
    while challenge.verdict is None and len(replies) < turns:
        replies.append(challenge.gold())
        challenge.reply(replies[-1])
    return challenge, replies


def _failed(challenge: Challenge) -> bool:
    return challenge.verdict is not None and not challenge.verdict.ok


def _agree(kind: AnyEnv, challenge_id: str, played: Challenge, replies: list[str]) -> Verdict:
    """Demand that `verify` says of these replies what the play itself said, twice over, and leaves `info` alone."""
    dealt = rules.deal(kind.rules, challenge_id)
    prompt, info = dealt.prompt(), rules.info_of(dealt, challenge_id)
    response, given = rules.response_of(kind.rules, replies), copy.deepcopy(info)
    verdicts = [kind.verify(prompt, response, given) for _ in range(2)]
    _demand(given == info, "verify() changes its arguments")
    _demand(verdicts[0] == verdicts[1], "verify() says now this, now that")
    _demand(verdicts[0] == played.verdict, f"a play ends {played.verdict}, and verify() says {verdicts[0]}")
    return verdicts[0]


def _refused(
    kind: AnyEnv, challenge_id: str, *, response: str, prompt: str | None = None, info: dict[str, Plain] | None = None
) -> None:
    dealt = rules.deal(kind.rules, challenge_id)
    prompt = dealt.prompt() if prompt is None else prompt
    given = rules.info_of(dealt, challenge_id) if info is None else info
    told = f"response {response[:40]!a}, prompt {prompt[:40]!a}, info {str(given)[:200]!a}"
    _demand(not kind.verify(prompt, response, given).ok, f"verify() accepts a forgery of {challenge_id}: {told}")


def _refuses_replies_at_the_end(challenge: Challenge) -> None:
    try:
        challenge.reply("")
    except ValueError:
        return
    raise AssertionError("reply() takes one more after the end, where it must raise ValueError")


def _forged(info: dict[str, Plain]) -> Iterator[dict[str, Plain]]:
    """Each key removed, and changed in several ways; one added."""
    yield {}
    yield {**info, "ok": True}
    for key, value in info.items():
        yield {name: other for name, other in info.items() if name != key}
        for changed in (None, True, "", f"{value}\n", [value], -1, 10**15):
            if changed != value or type(changed) is not type(value):
                yield {**info, key: changed}
        if isinstance(value, int):
            yield {**info, key: value + 1}
            yield {**info, key: float(value)}  # type: ignore[dict-item]
        if isinstance(value, list) and value:
            yield {**info, key: value[:-1]}
            yield {**info, key: [*value, value[0]]}


def _leaves(value: Plain) -> Iterator[Plain]:
    if isinstance(value, dict):
        for member in value.values():
            yield from _leaves(member)
    elif isinstance(value, list):
        for member in value:
            yield from _leaves(member)
    else:
        yield value


def _demand(truth: bool, message: str) -> None:
    if not truth:
        raise AssertionError(message)
