"""The arena's champions on this machine, and their use as models: `--model champion:ENV`.

One JSON file for each environment, `HOME/arena/champions/ENV.json`, written whole or not at all. The arena is an extra,
and so is imported only when a champion is asked for.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from chimera.arena import PACKAGES
from chimera.core.config import Settings
from chimera.core.errors import InputError, MissingExtra
from chimera.core.types import Frozen
from chimera.storage.whole_file import write_whole

PREFIX = "champion:"

MAX_RECORD_BYTES = 10_000

_ENV_ID = re.compile(r"[a-z][a-z0-9_]{0,47}-v[0-9]{1,4}")


class Champion(Frozen):
    """Who holds an environment's throne, by its address, and since when, in seconds since the epoch."""

    env_id: str
    miner_id: Annotated[str, Field(min_length=1, max_length=256)]
    since_s: Annotated[int, Field(ge=0, strict=True)]


def resolve_model(name: str, settings: Settings) -> str:
    """The model that `name` stands for: for `champion:ENV` the one behind ENV's champion, else `name` itself.

    Raises InputError where there is no champion, or it is no model.
    """
    if not name.startswith(PREFIX):
        return name
    try:
        from chimera.arena.miners.client import model_of
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise InputError(f"{name}: {MissingExtra(package, 'arena')}") from error
    env_id = name.removeprefix(PREFIX)
    champion = champion_of(env_id, settings)
    if champion is None:
        known = ", ".join(sorted(path.stem for path in _folder(settings).glob("*.json"))) or "none"
        raise InputError(
            f"{name}: {env_id} has no champion yet (those with one: {known}); "
            f"crown one: af duel CHAMPION CONTENDER --env {env_id} --crown"
        )
    try:
        return model_of(champion.miner_id)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def champion_of(env_id: str, settings: Settings) -> Champion | None:
    """The champion on record, if there is one. Raises InputError for a record that cannot be used."""
    path = _path(env_id, settings)
    try:
        data = _read(path)
        champion = Champion.model_validate_json(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"the champion of {env_id} cannot be read: {path}: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path} is no record of a champion; remove it, and crown one anew") from error
    if champion.env_id != env_id or len(data) > MAX_RECORD_BYTES:
        raise InputError(f"{path} is no record of {env_id}'s champion; remove it, and crown one anew")
    return champion


def record_champion(env_id: str, miner_id: str, settings: Settings, *, since_s: int) -> Champion:
    """Put `miner_id` on record as the champion of `env_id`. Whoever reads meanwhile sees the old record or this one.

    Raises InputError for what is no environment's id or no address, and where the record cannot be written.
    """
    path = _path(env_id, settings)
    try:
        champion = Champion(env_id=env_id, miner_id=miner_id, since_s=since_s)
    except ValidationError as error:
        why = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise InputError(f"{miner_id!a:.200} cannot be a champion: {why}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, champion.model_dump_json().encode())
    except OSError as error:
        raise InputError(
            f"the champion of {env_id} cannot be recorded in {path}: {error.strerror}; see CHIMERA_HOME"
        ) from error
    return champion


def _read(path: Path) -> bytes:
    """At most one byte more than a record has; nothing of what is no plain file: a pipe would be waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(handle, MAX_RECORD_BYTES + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    finally:
        os.close(handle)


def _folder(settings: Settings) -> Path:
    return settings.home / "arena" / "champions"


def _path(env_id: str, settings: Settings) -> Path:
    if not _ENV_ID.fullmatch(env_id):
        raise InputError(f"{env_id!a:.200} is not the id of an environment, such as mult8-v0")
    return _folder(settings) / f"{env_id}.json"
