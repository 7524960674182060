"""How many samples a second one core verifies: each dealt again from its id, its prompt, info and response compared.

    python -m bench.verify [--seconds 2] [--json]

Half of the responses are a perfect player's, half those of one that guesses within the rules. The bars are 20,000
samples a second of mult8-v0 and 2,000 transcripts a second of tictactoe-v0. The exit code is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable

from chimera.arena.canonical import Plain
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.challenge import Challenge
from chimera.arena.envs.registry import environment, environments

BARS = {"mult8-v0": 20_000, "tictactoe-v0": 2_000}
"""Samples a second, at least."""

SAMPLES = 2_000
"""Different ones; they are verified over and over."""


def samples(kind: type[Challenge], count: int) -> list[tuple[str, str, dict[str, Plain], bool]]:
    """Prompt, response, info, and whether it is right."""
    rng, made = random.Random(0), []
    for number in range(count):
        challenge_id = f"bench/{number}"
        challenge = rules.deal(kind, challenge_id)
        prompt, info = challenge.prompt(), rules.info_of(challenge, challenge_id)
        replies: list[str] = []
        while challenge.verdict is None:
            replies.append(challenge.guess(rng) if number % 2 else challenge.gold())
            challenge.reply(replies[-1])
        made.append((prompt, rules.response_of(kind, replies), info, challenge.verdict.ok))
    return made


def rate(env_id: str, seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Samples of an environment verified in a second of CPU time."""
    kind = environment(env_id)
    known = samples(kind.rules, SAMPLES)
    verified, began_s = 0, clock()
    while (took_s := clock() - began_s) < seconds:
        for prompt, response, info, ok in known:
            if kind.verify(prompt, response, info).ok is not ok:
                raise AssertionError(f"{env_id}: the verdict on {info} is not what the play came to")
        verified += len(known)
    return verified / took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time for each environment")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    rates = {env_id: round(rate(env_id, options.seconds)) for env_id in environments()}
    if options.json:
        print(json.dumps({env_id: {"per_s": found, "bar": BARS.get(env_id)} for env_id, found in rates.items()}))
    else:
        print(f"{'environment':14} {'samples/s':>10} {'bar':>7}")
        for env_id, found in rates.items():
            print(f"{env_id:14} {found:10,} {BARS.get(env_id, '-'):>7}")
    sys.exit(any(rates[env_id] < bar for env_id, bar in BARS.items()))


if __name__ == "__main__":
    main()
