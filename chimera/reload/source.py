"""The source of a version: found, read once, bounded, compiled. What is hashed is what is run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import os
import stat
import sys
import tokenize
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType

from chimera.core.errors import ReloadError
from chimera.reload.deadline import said

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
    _check_name(module)
    if isinstance(given, str | bytes):
        code = _encoded(module, given) if isinstance(given, str) else given
        source = Source(module, code, _file_of(module))
    else:
        path = str(given) if given is not None else _file_of(module)
        if not path.endswith(".py"):
            raise ReloadError(f"{module} has no source file: give the source, or the path of a .py file")
        try:
            source = Source(module, read_file(path, max_bytes + 1), str(Path(path).absolute()))
        except (OSError, ValueError) as error:
            raise ReloadError(f"{module}: {path} cannot be read: {error}") from error
    return checked(source, max_bytes)


def checked(source: Source, max_bytes: int = MAX_SOURCE_BYTES) -> Source:
    """`source`, if its name may be a module's and it is not too large. Nothing is looked for. Raises ReloadError."""
    _check_name(source.module)
    if len(source.code) > max_bytes:
        raise ReloadError(f"{source.module}: its source is larger than {max_bytes} bytes: split it")
    return source


def _check_name(module: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")) or len(module) > 256:
        raise ReloadError(f"{module!a:.100} is no module name: give it with dots, as in `import package.module`")
    if module in sys.builtin_module_names or module == "__main__":
        raise ReloadError(f"{module} is what this process runs on: it has no versions")


def read_file(path: str, max_bytes: int) -> bytes:
    """The first `max_bytes` of a regular file. Raises OSError: from a pipe one would read for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no file")
        return file.read(max_bytes)


def import_package(module: str) -> None:
    """Its package is there first, as it is for an import. Raises ReloadError if it raises; there may be none."""
    package = module.rpartition(".")[0]
    if not package or package in sys.modules:
        return
    try:
        importlib.import_module(package)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}."):
            return
        raise ReloadError(f"{module}: its package {package} cannot be imported: {said(error)}") from error


def _encoded(module: str, text: str) -> bytes:
    """In the encoding that the text says it is in, as Python reads it."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(text.encode("utf-8", "surrogatepass")).readline)
        return text.encode("utf-8" if encoding == "utf-8-sig" else encoding)  # the mark is in the text already
    except (SyntaxError, UnicodeEncodeError, LookupError) as error:
        raise ReloadError(f"{module}: its source is not in the encoding that it names: {error}") from error


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
    if loaded is None:
        import_package(module)
    try:
        spec = getattr(loaded, "__spec__", None) or importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):  # its package is not there, or cannot be imported
        spec = None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec and spec.has_location else None)
    return origin or ""
