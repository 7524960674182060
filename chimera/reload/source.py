"""The source of a version: found, read once, bounded, compiled. What is hashed is what is run."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType

from chimera.core.errors import ReloadError

MAX_SOURCE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """`path` is the file that it was read from, or would be in; it may be empty."""

    module: str
    code: bytes
    path: str = ""

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.code).hexdigest()

    @property
    def is_package(self) -> bool:
        return Path(self.path).name == "__init__.py"


def read_source(module: str, given: str | bytes | Path | None = None, *, max_bytes: int = MAX_SOURCE_BYTES) -> Source:
    """`given` is source text, its bytes or a file; None means the file that the module is imported from.

    Raises ReloadError where there is none, or it is larger than `max_bytes`.
    """
    if not all(part.isidentifier() for part in module.split(".")) or len(module) > 256:
        raise ReloadError(f"{module!a:.100} is no module name: give it with dots, as in `import package.module`")
    if isinstance(given, str | bytes):
        code = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
        source = Source(module, code, _file_of(module))
    else:
        path = str(given) if given is not None else _file_of(module)
        if not path.endswith(".py"):
            raise ReloadError(f"{module} has no source file: give the source, or the path of a .py file")
        try:
            with open(path, "rb") as file:
                source = Source(module, file.read(max_bytes + 1), str(Path(path).absolute()))
        except (OSError, ValueError) as error:
            raise ReloadError(f"{module}: {path} cannot be read: {error}") from error
    if len(source.code) > max_bytes:
        raise ReloadError(f"{module}: its source is larger than {max_bytes} bytes: split it")
    return source


def compiled(source: Source) -> CodeType:
    """Raises ReloadError with the line of a syntax error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return compile(source.code, source.path or f"<{source.module}>", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ReloadError(f"{source.module}, line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise ReloadError(f"{source.module} cannot be compiled: {error}") from error


def _file_of(module: str) -> str:
    loaded = sys.modules.get(module)
    try:
        spec = getattr(loaded, "__spec__", None) or importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):  # its package is not there, or cannot be imported
        spec = None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec and spec.has_location else None)
    return origin or ""
