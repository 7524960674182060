"""The suite passes what ships and the example, and names what is wrong with each broken environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chimera.arena.envs.checks import CHECKS, check_environment, fingerprint
from chimera.arena.envs.mult8 import Mult8
from chimera.arena.envs.registry import environment, environments
from chimera.core.errors import InputError
from examples.arena.reverse import ReverseEnv
from tests.unit.arena.envs import broken_environments as broken

ROOT = Path(__file__).parents[4]

FAULTS: dict[str, tuple[Any, ...]] = {
    "info": (
        *(broken.TellsTheAnswer, broken.FloatsInInfo, broken.TuplesInInfo),
        *(broken.RenamesTheChallenge, broken.AlwaysTheSame),
    ),
    "prompt": (broken.NoPrompt, broken.PromptThatChanges, broken.NeverEnds, broken.TalksAtTheEnd, broken.ScoresTwo),
    "gold": (
        *(broken.GoldThatIsNot, broken.GoesOnAfterTheEnd, broken.DealsAtRandom),
        *(broken.ChangesInfo, broken.SaysNowThisNowThat),
    ),
    "garbage": (
        *(broken.AcceptsNothing, broken.AcceptsAnyDigits, broken.LetsGarbagePass),
        *(broken.SaysYes, broken.BelievesInfo),
    ),
    "forgery": (broken.BelievesThePrompt, broken.ComparesLoosely),
    "replay": (broken.RewardsMore, broken.SeesMoreThanItsSpace),
    "seeds": (broken.IgnoresTheSeed,),
    "gymnasium": (broken.RendersInColour,),
    "processes": (broken.DependsOnTheHashSeed, broken.GuessesFromItsMemory),
}


@pytest.mark.parametrize("env_id", environments())
def test_what_ships_passes(env_id: str) -> None:
    check_environment(environment(env_id))


def test_the_example_passes() -> None:
    check_environment(ReverseEnv)


@pytest.mark.parametrize(("check", "kind"), [(check, kind) for check, kinds in FAULTS.items() for kind in kinds])
def test_what_is_broken_is_named(check: str, kind: Any) -> None:
    with pytest.raises(AssertionError, match=rf"^(reverse|ledger)-v0 fails the check `{check}`: ."):
        check_environment(kind, samples=6)


def test_each_check_has_caught_something() -> None:
    assert sorted(FAULTS) == sorted(check.__name__.strip("_") for check in CHECKS)


@pytest.mark.parametrize("samples", [1, 10_001])
def test_samples_have_a_least_and_a_most(samples: int) -> None:
    with pytest.raises(InputError, match="samples"):
        check_environment(ReverseEnv, samples=samples)


@pytest.mark.parametrize("kind", [Mult8, object, 7, "mult8-v0"])
def test_what_is_no_environment_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="not a subclass of ArenaEnv"):
        check_environment(kind)


def test_challenges_are_what_they_have_always_been() -> None:
    """To change these is to change every challenge there ever was: give such an environment a new version."""
    prints = {env_id: fingerprint(environment(env_id), 20)[:16] for env_id in environments()}
    assert prints == {
        "ledger-v0": "2a906630c3c25cb0",
        "mult8-v0": "cc8c926041d33218",
        "subset-v0": "3e0179ab5710bd24",
        "tictactoe-v0": "f998aca71267e875",
    }


def test_the_manual_holds_the_example_word_for_word() -> None:
    manual, example = (ROOT / name for name in ("docs/environments.md", "examples/arena/reverse.py"))
    assert f"```python\n{example.read_text()}```\n" in manual.read_text()


def test_the_manual_lists_what_ships_and_every_check() -> None:
    manual = (ROOT / "docs/environments.md").read_text()
    for name in (*environments(), *FAULTS):
        assert f"\n| `{name}` |" in manual
