"""A privacy ledger on disk: a release is written down, durably, before it happens, so that no crash forgets it.

The file is append-only lines of JSON. The first says delta and the budget, each other one a release. A writer that is
killed between the line and the release has paid for what it did not do; the other way round cannot be.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, ValidationError

from chimera.core.errors import InputError, StorageError
from chimera.core.types import Frozen
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release

MAX_FILE_BYTES = 256 * 2**20

MAX_LINE_BYTES = 4_096

_WITHOUT_NAME = re.compile(rb'\{"noise_multiplier":([-+.0-9e]+),"sample_rate":([-+.0-9e]+),"steps":([0-9]+),')
"""The start of a release's line: its numbers come first, so that they are there even if its end is not."""


class _Head(Frozen):
    """The first line. No budget is no limit."""

    delta: float
    budget: Annotated[FiniteFloat, Field(gt=0.0)] | None
    version: Annotated[int, Field(ge=1, le=1)] = 1


class KeptLedger(PrivacyLedger):
    """A `PrivacyLedger` in the file `path`, made if it is not there; opened again, it has the same releases.

    There is one writer at a time (flock). `delta` and `budget` must be the file's. Raises InputError if they are not,
    StorageError if another process has the file, or if it cannot be read whole.
    """

    def __init__(self, path: Path, *, delta: float, budget: float = math.inf) -> None:
        super().__init__(delta=delta, budget=budget)
        self._path = path
        self._file = _open(path)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def reserve(self, release: Release) -> None:
        """`add`: when this returns the release is on disk, and may be made. Raises StorageError besides."""
        self.add(release)

    def close(self) -> None:
        """Let another process have the file. Closing twice does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, release: Release) -> None:
        self._append(_line(release))

    def _append(self, line: bytes) -> None:
        if self._file < 0:
            raise StorageError(f"{self._path}: this ledger is closed: open it again")
        if len(line) > MAX_LINE_BYTES:
            raise StorageError(f"{self._path}: a line of {len(line)} bytes is too long: a shorter name will do")
        try:
            if os.fstat(self._file).st_size + len(line) > MAX_FILE_BYTES:
                raise StorageError(f"{self._path} is full: release more steps at a time")
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
            os.fsync(self._file)
        except OSError as error:
            self.close()  # what is on disk now is not known: whoever opens it reads it again
            raise StorageError(f"{self._path} cannot be written ({error}): nothing may be released") from error

    def _read(self) -> None:
        data = _contents(self._path, self._file)
        head = _Head(delta=self.delta, budget=None if math.isinf(self.budget) else self.budget)
        first = head.model_dump_json().encode() + b"\n"
        if b"\n" not in data and first.startswith(data):  # new, or killed at its very first line
            os.ftruncate(self._file, 0)
            self._append(first)
            _sync_folder(self._path)
            return
        *lines, torn = data.split(b"\n")
        self._check(head, lines[0] if lines else torn)
        for number, line in enumerate(lines[1:], start=2):
            try:
                self._count(Release.model_validate_json(line))
            except ValidationError:
                raise StorageError(
                    f"{self._path}, line {number} is no release: the file is damaged. Restore a copy; without one, the"
                    " data it counts for can be released no more, as nobody knows what was spent"
                ) from None
        if torn:
            self._mend(torn, whole=len(data) - len(torn))

    def _check(self, head: _Head, line: bytes) -> None:
        try:
            found = _Head.model_validate_json(line)
        except ValidationError:
            raise StorageError(f"{self._path} is no privacy ledger: name another file, or restore a copy") from None
        if found != head:
            raise InputError(
                f"{self._path} counts for delta {found.delta:g} and a budget of {found.budget or math.inf:g}, not for"
                f" delta {self.delta:g} and {self.budget:g}: use its own, or a new file for data never released before"
            )

    def _mend(self, torn: bytes, *, whole: int) -> None:
        """The last line was not finished: it counts as spent, if its numbers are there."""
        if not (numbers := _WITHOUT_NAME.match(torn)):
            raise StorageError(
                f"{self._path} ends within a line that cannot be read. A release waits for its whole line, so this one"
                f" was not made if the power failed then: cut it off with `truncate -s {whole} {self._path}`. If the"
                " file may have been damaged in another way, restore a copy"
            )
        try:
            noise_multiplier, sample_rate, steps = (json.loads(number) for number in numbers.groups())
            name = json.loads(torn).get("what", "unfinished") if torn.endswith(b"}") else "unfinished"
            release = Release(what=name, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
        except (ValueError, ValidationError):
            raise StorageError(f"{self._path} ends with a line that is no release: restore a copy") from None
        os.ftruncate(self._file, whole)
        self._append(_line(release))
        self._count(release)


def _line(release: Release) -> bytes:
    numbers = release.model_dump(include={"noise_multiplier", "sample_rate", "steps"})
    ordered = {name: numbers[name] for name in ("noise_multiplier", "sample_rate", "steps")} | {"what": release.what}
    return json.dumps(ordered, separators=(",", ":")).encode() + b"\n"


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, flags, 0o600)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise StorageError(f"{path}: another process writes this privacy ledger: stop it, or wait for it") from None
    return file


def _contents(path: Path, file: int) -> bytes:
    size = os.fstat(file).st_size
    if size > MAX_FILE_BYTES:
        raise StorageError(f"{path} has {size} bytes, and a privacy ledger at most {MAX_FILE_BYTES}: name another file")
    with open(file, "rb", closefd=False) as reading:
        reading.seek(0)
        return reading.read(MAX_FILE_BYTES)


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
