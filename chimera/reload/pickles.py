"""Pickles where classes have versions: by a class's name one gets the one in use, so no other may go in."""

from __future__ import annotations

import io
import pickle
from types import FunctionType, ModuleType
from typing import Any, Protocol

from chimera.core.errors import ReloadError
from chimera.reload.versions import ModuleVersion


class Versions(Protocol):
    """What has to be known of them."""

    def modules(self) -> tuple[str, ...]: ...

    def module(self, name: str) -> ModuleType: ...

    def version_of(self, thing: type | FunctionType) -> ModuleVersion | None: ...


def pickled(value: object, versions: Versions) -> bytes:
    """As `pickle.dumps`. Raises ReloadError for what is of a version that is not in use."""
    buffer = io.BytesIO()
    _Pickler(buffer, versions).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, versions: Versions) -> None:
        super().__init__(file)
        self._versions = versions

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, type | FunctionType) or obj.__module__ not in self._versions.modules():
            return NotImplemented
        if named(self._versions.module(obj.__module__), obj.__qualname__) is obj:
            return NotImplemented
        of = self._versions.version_of(obj)
        raise ReloadError(
            f"{obj.__module__}.{obj.__qualname__} is of {f'version {of.version}, which' if of else 'a version that'} "
            f"is not in use: take its data over with migrate(), or make it again, before it is pickled"
        )


def named(module: ModuleType, qualname: str) -> Any:
    """What a module has under a name with dots; None for nothing."""
    thing: Any = module
    for part in qualname.split("."):
        thing = vars(thing).get(part) if hasattr(thing, "__dict__") else None
    return thing
