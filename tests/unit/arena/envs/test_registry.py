"""A package adds an environment; one that is broken hides no other, and none takes another's id."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import gymnasium
import pytest

from chimera.arena.envs import registry
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.envs.mult8 import Mult8, Mult8Env
from chimera.arena.envs.registry import BUILT_IN, GROUP, Registry, environment, environments, find
from chimera.arena.envs.tictactoe import TicTacToeEnv
from chimera.core.errors import EnvironmentNotFound, InputError
from examples.arena.reverse import Reverse, ReverseEnv

ROOT = Path(__file__).parents[4]
REVERSE = "examples.arena.reverse:ReverseEnv"


class Coin(Reverse):
    env_id = "coin-v0"


class CoinEnv(ReverseEnv):
    rules = Coin


class OtherEnv(ReverseEnv):
    """Claims an id that another has."""

    rules = Coin


class StolenEnv(ReverseEnv):
    """Claims an id that ships."""

    class Stolen(Reverse):
        env_id = "mult8-v0"

    rules = Stolen


class NamelessEnv(ReverseEnv):
    class Nameless(Reverse):
        env_id = "No Such Id"

    rules = Nameless


def installed(tmp_path: Path, **packages: str) -> list[metadata.EntryPoint]:
    """Packages of these names, each with these lines of entry points, as a path of packages has them."""
    for name, lines in packages.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
    found = metadata.distributions(path=[str(tmp_path)])
    return [point for package in found for point in package.entry_points if point.group == GROUP]


def test_those_that_ship_are_there() -> None:
    assert environments() == sorted(BUILT_IN) == ["ledger-v0", "mult8-v0", "subset-v0", "tictactoe-v0"]
    assert environment("mult8-v0") is Mult8Env
    for env_id in environments():
        assert environment(env_id).rules.env_id == env_id
    assert registry.faults() == {}


@pytest.mark.parametrize("env_id", sorted(BUILT_IN))
def test_gymnasium_makes_them(env_id: str) -> None:
    env = gymnasium.make(env_id, render_mode="ansi")
    assert type(env.unwrapped) is environment(env_id)
    observed, info = env.reset(seed=1)
    assert observed in env.observation_space and info["challenge_id"] == "seed:1"


def test_gymnasium_makes_them_in_a_process_that_has_imported_nothing() -> None:
    code = "import gymnasium; print(gymnasium.make('chimera.arena.envs.registry:tictactoe-v0').reset(seed=1)[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(TicTacToeEnv().reset(seed=1)[1])


@pytest.mark.parametrize("env_id", ["nothing-v0", "", "mult8", "mult8-v1", "../mult8-v0"])
def test_an_unknown_one_is_refused_with_those_that_there_are(env_id: str) -> None:
    with pytest.raises(EnvironmentNotFound, match="ledger-v0, mult8-v0, subset-v0, tictactoe-v0"):
        environment(env_id)


def test_a_package_adds_one(tmp_path: Path) -> None:
    found = Registry(installed(tmp_path, mirrors=f"reverse-v0 = {REVERSE}"))
    assert found.environments() == sorted([*BUILT_IN, "reverse-v0"])
    assert found.environment("reverse-v0") is ReverseEnv


def test_an_installed_package_is_found_and_made_by_gymnasium(tmp_path: Path) -> None:
    installed(tmp_path, mirrors=f"reverse-v0 = {REVERSE}")
    code = (
        "import gymnasium, chimera.arena.envs.registry as r; print(*r.environments());"
        "print(gymnasium.make('reverse-v0').reset(seed=1)[1])"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    listed, made = done.stdout.splitlines()
    assert "reverse-v0" in listed.split()
    assert made == str(ReverseEnv().reset(seed=1)[1])


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("no_such_module:CoinEnv", "No module named"),
        ("examples.arena.reverse:NoSuchEnv", "NoSuchEnv"),
        ("examples.arena.reverse:Reverse", "not a subclass of ArenaEnv"),
        ("examples.arena.reverse:LETTERS", "not a subclass of ArenaEnv"),
        ("examples.arena.reverse", "cannot be used"),
        ("chimera.arena.envs.base:ArenaEnv", "needs `rules`"),
        (f"{__name__}:NamelessEnv", "needs `rules`"),
        ("examples.arena.reverse:ReverseEnv", "calls itself reverse-v0"),
        ("broken_package:CoinEnv", "ZeroDivisionError"),
        ("ending_package:CoinEnv", "SystemExit"),
    ],
)
def test_a_broken_package_says_why_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, why: str
) -> None:
    (tmp_path / "broken_package.py").write_text("1 / 0\n")
    (tmp_path / "ending_package.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = Registry(installed(tmp_path, broken=f"coin-v0 = {where}", mirrors=f"reverse-v0 = {REVERSE}"))
    with pytest.raises(InputError, match=why) as raised:
        found.environment("coin-v0")
    assert not isinstance(raised.value, EnvironmentNotFound)
    assert found.environment("reverse-v0") is ReverseEnv
    assert found.environment("mult8-v0") is Mult8Env
    assert list(found.faults()) == ["coin-v0"]


def test_no_package_takes_an_id_that_ships(tmp_path: Path) -> None:
    found = Registry(installed(tmp_path, thief=f"mult8-v0 = {__name__}:StolenEnv"))
    assert found.environment("mult8-v0").rules is Mult8
    assert found.faults() == {}, "it is no worse for the claim"
    assert found.refused() == {"mult8-v0": "mult8-v0 ships with chimera: the one of package thief is not used"}


def test_of_two_packages_with_one_id_neither_is_used(tmp_path: Path) -> None:
    claims = {"one": f"coin-v0 = {__name__}:CoinEnv", "two": f"coin-v0 = {__name__}:OtherEnv"}
    found = Registry(installed(tmp_path, **claims))
    assert found.environments() == sorted(BUILT_IN)
    with pytest.raises(InputError, match="package one and package two: uninstall all but one"):
        found.environment("coin-v0")


@pytest.mark.parametrize("env_id", ["Coin-v0", "coin", "coin-v", "coin-v12345"])
def test_an_entry_point_that_is_no_id_is_noted(tmp_path: Path, env_id: str) -> None:
    found = Registry(installed(tmp_path, odd=f"{env_id} = {REVERSE}"))
    assert found.environments() == sorted(BUILT_IN)
    assert "must look like coin-v0" in found.refused()[env_id]


def test_there_is_a_most(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "MAX_ENVIRONMENTS", len(BUILT_IN) + 1)
    found = Registry(installed(tmp_path, many="a-v0 = a:A\nb-v0 = b:B"))
    assert found.environments() == ["a-v0", *sorted(BUILT_IN)]
    assert "already" in found.refused()["b-v0"]


def test_a_program_registers_its_own() -> None:
    found = Registry()
    assert found.register(CoinEnv) is CoinEnv
    found.register(CoinEnv)
    assert found.environment("coin-v0") is CoinEnv
    assert isinstance(gymnasium.make("coin-v0").unwrapped, CoinEnv)
    with pytest.raises(InputError, match="already"):
        found.register(OtherEnv)
    with pytest.raises(InputError, match="already"):
        found.register(StolenEnv)
    with pytest.raises(InputError, match="Gymnasium has another"):
        Registry().register(OtherEnv)
    with pytest.raises(InputError, match="not a subclass"):
        found.register(Coin)  # type: ignore[arg-type]
    assert found.environment("coin-v0") is CoinEnv


def test_an_environment_is_found_by_its_place() -> None:
    kind: type[ArenaEnv[str, str, Reverse]] = find(REVERSE)
    assert kind is ReverseEnv
