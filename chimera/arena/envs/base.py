"""A challenge as a `gymnasium.Env`, so that whatever learns in Gymnasium can learn in the arena."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium

from chimera.arena.canonical import Plain
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.challenge import Challenge
from chimera.arena.randomness import MAX_SEED, SEED_PREFIX
from chimera.arena.types import Verdict
from chimera.core.errors import InputError

Observation = TypeVar("Observation")
Action = TypeVar("Action")
Rules = TypeVar("Rules", bound=Challenge)


class ArenaEnv(gymnasium.Env[Observation, Action], Generic[Observation, Action, Rules]):
    """An environment whose every challenge follows from its id, and whose verdicts anyone can compute again.

    A new environment is a `Challenge` (its rules, over text) and a subclass of this (its spaces). It must pass
    `chimera.arena.envs.checks.check_environment`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]
    rules: ClassVar[type[Challenge]]
    challenge: Rules

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, "ansi"):
            raise InputError(f"{self.rules.env_id} renders as 'ansi' or not at all, not as {render_mode!r}")
        self.render_mode = render_mode
        self.challenge_id = ""
        self._said = ""

    @abstractmethod
    def observe(self) -> Observation:
        """What the agent sees now."""

    @abstractmethod
    def say(self, action: Action) -> str:
        """The reply that an action stands for."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Plain]]:
        """Deal a challenge: that of `options["challenge_id"]`, else that of `seed`, else a new one.

        Raises InputError for a seed outside 0..2^63-1, and for what is no challenge's id.
        """
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise InputError(f"a seed is a number from 0 to 2^63-1, not {seed}")
        super().reset(seed=seed)
        chosen = (options or {}).get("challenge_id")
        if chosen is None:
            chosen = f"{SEED_PREFIX}{self.np_random.integers(MAX_SEED) if seed is None else seed}"
        self.challenge = rules.deal(self.rules, chosen)  # type: ignore[assignment]
        self.challenge_id = chosen
        self._said = self.challenge.prompt()
        return self.observe(), rules.info_of(self.challenge, self.challenge_id)

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Plain]]:
        """Reply to the challenge. The reward is +1, 0 or -1, at the end; a play is never cut short from outside.

        Raises gymnasium.error.ResetNeeded when the play is over or has not begun.
        """
        if not self.challenge_id or self.challenge.verdict:
            raise gymnasium.error.ResetNeeded("the play is over: call reset() first")
        self._said = self.challenge.reply(self.say(action))
        verdict: Verdict | None = self.challenge.verdict
        info: dict[str, Plain] = {"challenge_id": self.challenge_id}
        if verdict is None:
            return self.observe(), 0.0, False, False, info
        info |= {"ok": verdict.ok, "reason": verdict.reason}
        return self.observe(), float(self.challenge.score), True, False, info

    def render(self) -> str | None:
        """What a player was told last, where `render_mode` is `ansi`."""
        return self._said if self.render_mode == "ansi" else None

    @classmethod
    def verify(cls, prompt: str, response: str, info: dict[str, Plain]) -> Verdict:
        """The verdict on a response, computed anew from the challenge's id. Pure; of `info` only that is believed."""
        return rules.verify(cls.rules, prompt, response, info)
