"""Where blocks are: a folder, an object store, a file. What lies there was put there by strangers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chimera.arena.types import MAX_BLOCK_BYTES
from chimera.arena.validators.blocks import index_of
from chimera.core.errors import InputError
from chimera.storage.objects import ObjectStore, open_objects

_HOTKEY = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,50}")


@dataclass(frozen=True, slots=True)
class Place:
    """A store of blocks, and whose chains are looked at in it."""

    name: str
    store: ObjectStore
    hotkeys: tuple[str, ...]


@asynccontextmanager
async def opened(where: str, wanted: Sequence[str] = ()) -> AsyncIterator[Place]:
    """The store at a path or URL, and its validators: those `wanted`, else all that there are.

    A path is a folder of validators' folders, or one of these. A plain web server has no listing, so there they have to
    be named. Raises InputError for a place that cannot be one, or where there is nothing.
    """
    for hotkey in wanted:
        if not _HOTKEY.fullmatch(hotkey):
            raise InputError(f"{hotkey!a:.100} is not a hotkey's SS58 address")
    url, hotkeys = _url(where, wanted)
    store = open_objects(url)
    try:
        if not hotkeys and url.startswith(("http:", "https:")):
            raise InputError(f"{where} is a web server, which lists nothing: name the validators with --hotkey")
        found = hotkeys or await _validators(store)
        if not found:
            raise InputError(f"there are no blocks in {where}: they are called HOTKEY/000000000000.json and so on")
        yield Place(where, store, found)
    finally:
        await store.close()


def block_file(where: str) -> Path | None:
    """The file, where a place is one block and not a folder of them."""
    return Path(where) if "://" not in where and Path(where).is_file() else None


def read_file(path: Path) -> bytes:
    """A file's bytes, at most one more than a block has. Raises InputError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BLOCK_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _url(where: str, wanted: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The URL of the store, and the validators that are meant. Raises InputError for a folder that is not there."""
    if "://" in where:
        return where, tuple(wanted)
    if not where:
        raise InputError("an empty text names no place: give a folder of blocks or its URL, and . for this folder")
    folder = Path(where).absolute()
    if not folder.is_dir():
        raise InputError(f"{where} is not there" if not folder.exists() else f"{where} is not a folder of blocks")
    if _HOTKEY.fullmatch(folder.name):
        if wanted and set(wanted) != {folder.name}:
            raise InputError(f"{where} is the folder of another validator than --hotkey names")
        return folder.parent.as_uri(), (folder.name,)
    return folder.as_uri(), tuple(wanted)


async def _validators(store: ObjectStore) -> tuple[str, ...]:
    keys = await store.list()
    names = {hotkey for key in keys if index_of(key, hotkey := key.partition("/")[0]) is not None}
    return tuple(sorted(names))
