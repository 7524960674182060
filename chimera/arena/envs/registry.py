"""Which environments there are: those that ship, those of installed packages, those that a program registers.

A package adds one with an entry point in the group `chimera.environments`, named by the environment's id:

    [project.entry-points."chimera.environments"]
    "coin-v0" = "my_package.coin:Coin"

A package is imported when its environment is asked for, so one that is broken hides no other. To import this module
registers all of them with Gymnasium.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, metadata
from typing import Any, TypeAlias

import gymnasium
from pydantic import TypeAdapter, ValidationError

from chimera.arena.envs.base import ArenaEnv
from chimera.arena.types import EnvId
from chimera.core.errors import EnvironmentNotFound, InputError

AnyEnv: TypeAlias = type[ArenaEnv[Any, Any, Any]]

GROUP = "chimera.environments"

MAX_ENVIRONMENTS = 1_000

BUILT_IN = {
    "ledger-v0": "chimera.arena.envs.ledger:LedgerEnv",
    "mult8-v0": "chimera.arena.envs.mult8:Mult8Env",
    "subset-v0": "chimera.arena.envs.subset:SubsetEnv",
    "tictactoe-v0": "chimera.arena.envs.tictactoe:TicTacToeEnv",
}
"""Where the environments are that ship."""

_ENV_ID: TypeAdapter[str] = TypeAdapter(EnvId)


class Registry:
    """Environments by id. An id has one meaning: the second to claim it is refused, and no package can take ours."""

    def __init__(self, plugins: Iterable[metadata.EntryPoint] = ()) -> None:
        self._where = dict(BUILT_IN)
        self._loaded: dict[str, AnyEnv] = {}
        self._refused: dict[str, str] = {}
        claims: dict[str, set[tuple[str, str]]] = {}
        for plugin in plugins:
            claims.setdefault(plugin.name, set()).add((_package(plugin), plugin.value))
        for env_id in sorted(claims):
            self._admit(env_id, sorted(claims[env_id]))

    def environment(self, env_id: str) -> AnyEnv:
        """The environment of this id. Raises EnvironmentNotFound, and InputError when its package is broken."""
        if env_id in self._loaded:
            return self._loaded[env_id]
        if env_id not in self._where:
            if env_id in self._refused:
                raise InputError(self._refused[env_id])
            raise EnvironmentNotFound(
                f"no environment is called {env_id!r}; there are {', '.join(self.environments())}"
            )
        return self._loaded.setdefault(env_id, _load(env_id, self._where[env_id]))

    def environments(self) -> list[str]:
        """The ids, sorted. Nothing is imported for it, so an environment among them may turn out to be broken."""
        return sorted(self._where)

    def refused(self) -> dict[str, str]:
        """Which ids are claimed in vain, and why. One that ships is no worse for it."""
        return dict(self._refused)

    def faults(self) -> dict[str, str]:
        """What is wrong with which environment, after every package has been imported."""
        faults: dict[str, str] = {}
        for env_id in self.environments():
            try:
                self.environment(env_id)
            except InputError as error:
                faults[env_id] = str(error)
        return faults

    def register(self, kind: AnyEnv) -> AnyEnv:
        """Add an environment to this process; usable as a decorator. The same again is fine, another is refused.

        Other processes, such as Ray's workers, know only what is installed: make it an entry point for them. Raises
        InputError for an id that is not one, or is taken.
        """
        env_id, where = _checked(kind).rules.env_id, f"{kind.__module__}:{kind.__qualname__}"
        if self._where.get(env_id, where) != where:
            raise InputError(f"{env_id} is {self._where[env_id]} already: give {where} another id")
        _announce(env_id, where)
        self._where[env_id] = where
        self._loaded[env_id] = kind
        return kind

    def announce(self) -> None:
        """Tell Gymnasium, so that `gymnasium.make` finds all of them."""
        for env_id, where in self._where.items():
            _announce(env_id, where)

    def _admit(self, env_id: str, claims: list[tuple[str, str]]) -> None:
        """Take in an entry point, or note why not."""
        packages = " and ".join(package for package, _ in claims)
        if env_id in BUILT_IN:
            self._refused[env_id] = f"{env_id} ships with chimera: the one of {packages} is not used"
        elif len(claims) > 1:
            self._refused[env_id] = f"{env_id} is claimed by {packages}: uninstall all but one"
        elif not _is_env_id(env_id):
            self._refused[env_id] = f"{packages}: {env_id!r} is no environment's id; it must look like coin-v0"
        elif len(self._where) >= MAX_ENVIRONMENTS:
            self._refused[env_id] = f"{packages}: there are {MAX_ENVIRONMENTS} environments already"
        else:
            self._where[env_id] = claims[0][1]


def find(where: str) -> AnyEnv:
    """The environment at `module:name`, registered or not. Raises InputError when there is none that can be used."""
    module, _, name = where.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return _checked(found)
    except (Exception, SystemExit) as error:  # whatever a package raises when it is imported
        raise InputError(f"{where} cannot be used: {type(error).__name__}: {error}") from error


def _load(env_id: str, where: str) -> AnyEnv:
    kind = find(where)
    if kind.rules.env_id != env_id:
        raise InputError(f"{where} is meant to be {env_id}, and calls itself {kind.rules.env_id}")
    return kind


def _checked(kind: Any) -> AnyEnv:
    if not (isinstance(kind, type) and issubclass(kind, ArenaEnv)):
        raise InputError(f"{kind!r} is not a subclass of ArenaEnv")
    rules = getattr(kind, "rules", None)
    if rules is None or not _is_env_id(getattr(rules, "env_id", None)):
        raise InputError(f"{kind.__qualname__} needs `rules`, a Challenge with an `env_id` such as coin-v0")
    return kind


def _is_env_id(env_id: object) -> bool:
    try:
        _ENV_ID.validate_python(env_id, strict=True)
    except ValidationError:
        return False
    return True


def _package(plugin: metadata.EntryPoint) -> str:
    return f"package {plugin.dist.name}" if plugin.dist else plugin.value


def _announce(env_id: str, where: str) -> None:
    known = gymnasium.registry.get(env_id)
    if known is None:
        gymnasium.register(id=env_id, entry_point=where)
    elif known.entry_point != where:
        raise InputError(f"Gymnasium has another environment called {env_id}: {known.entry_point}")


_registry = Registry(metadata.entry_points(group=GROUP))
_registry.announce()

environment = _registry.environment
environments = _registry.environments
faults = _registry.faults
refused = _registry.refused
register = _registry.register
