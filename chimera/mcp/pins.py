"""Which tools a person has approved, as they were then: a definition that changes afterwards is refused.

A server may describe a harmless tool, be approved, and describe another one tomorrow (a "rug pull"). So an approval is
of a definition's hash: name, title, description, schemas and annotations. Nothing is approved at first sight by itself.
One file a server, `FOLDER/SERVER.json`, written whole; several processes may share the folder, and what one approves
the others see at their next call.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from chimera.core.clock import Clock
from chimera.core.errors import InputError, NotThere, StorageError
from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen, Name
from chimera.mcp.poison import signs_of_poison
from chimera.mcp.shown import segment, shown
from chimera.mcp.types import MAX_TOOLS, ToolDefinition
from chimera.security.gateway.gateway import SecurityGateway
from chimera.storage.whole_file import write_whole

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_DIFF_LINES: Final = 400
MAX_LINE_CHARS: Final = 2_000
"""Of a line when it is shown, with what cannot be seen in it written out."""
LINE_CHARS: Final = 100
MAX_SHOWN_LINES: Final = 1_000

CUT: Final = "... and more"
"""The last line of a difference that is longer than what is shown."""

Standing = Literal["new", "approved", "changed", "gone"]


class Pin(Frozen):
    """An approval: the definition as it was, its hash, who approved it and when (seconds since the epoch).

    `despite` are the signs of poison that it was approved in spite of.
    """

    definition: ToolDefinition
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    by: Name
    at_s: Annotated[float, Field(allow_inf_nan=False)]
    despite: tuple[str, ...] = ()


class _Pins(Frozen):
    server: Name
    pins: Annotated[tuple[Pin, ...], Field(max_length=MAX_TOOLS)] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A tool that was not approved, and the signs that speak against it."""

    tool: str
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approval:
    """What came of an approval: the tools that are approved now, and those that look poisoned and are not."""

    approved: tuple[str, ...]
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class ToolStanding:
    """A tool and how it stands; for a changed one, what has changed, as lines of a unified diff."""

    tool: str
    standing: Standing
    difference: tuple[str, ...] = ()


def hash_of(definition: ToolDefinition) -> str:
    """SHA-256 of the definition's canonical JSON, with its server's name. Raises InputError for what is no JSON."""
    try:
        return hashlib.sha256(canonical_json(definition.model_dump(mode="json")).encode()).hexdigest()
    except (ValueError, RecursionError):
        raise InputError(f"the definition of {shown(definition.name)} is not JSON: it cannot be approved") from None


class Pins:
    """The approvals in `folder`. Blocks for as long as a small file takes; any thread may use it.

    Raises StorageError where the folder cannot be used or a file in it is damaged: then nothing is approved.
    """

    def __init__(self, folder: Path, *, clock: Clock, gateway: SecurityGateway) -> None:
        self.folder = folder
        self._clock = clock
        self._gateway = gateway
        self._read: dict[str, tuple[tuple[int, int, int], dict[str, Pin]]] = {}

    def approve(
        self,
        server: str,
        definitions: Iterable[ToolDefinition],
        *,
        by: str,
        only: Iterable[str] | None = None,
        despite: bool = False,
    ) -> Approval:
        """Approve what a server offers now, or `only` some of it, in the name of a person.

        Give the definitions that the person has seen, and not those of a later listing. A tool that looks poisoned is
        held back unless `despite`. Raises NotThere for a tool that is not offered, InputError for two of one name.
        """
        offered = _by_name(server, definitions)
        wanted = tuple(offered) if only is None else tuple(dict.fromkeys(only))
        if absent := [shown(tool) for tool in wanted if tool not in offered]:
            raise NotThere(f"{shown(server)} offers no tool {', '.join(absent[:8])}")
        made: list[Pin] = []
        held: list[Held] = []
        for definition in (offered[tool] for tool in wanted):
            signs = signs_of_poison(definition, self._gateway)
            if signs and not despite:
                held.append(Held(definition.name, signs))
                continue
            try:
                pin_hash = hash_of(definition)
            except InputError as error:
                held.append(Held(definition.name, (*signs, error.message)))
                continue
            made.append(Pin(definition=definition, hash=pin_hash, by=by, at_s=self._clock.now(), despite=signs))
        if made:
            with self._locked():
                self._write(server, self._of(server) | {pin.definition.name: pin for pin in made})
        return Approval(tuple(pin.definition.name for pin in made), tuple(held))

    def revoke(self, server: str, tools: Iterable[str] | None = None) -> tuple[str, ...]:
        """Take approvals back, of all of a server's tools unless some are named. Returns those that had one."""
        with self._locked():
            pins = self._of(server)
            taken = tuple(tool for tool in (pins if tools is None else tools) if tool in pins)
            if taken:
                self._write(server, {tool: pin for tool, pin in pins.items() if tool not in taken})
        return taken

    def standing(self, definition: ToolDefinition) -> Standing:
        """Whether a definition, as a server gives it now, is approved."""
        pin = self._of(definition.server).get(definition.name)
        if pin is None:
            return "new"
        try:
            return "approved" if pin.hash == hash_of(definition) else "changed"
        except InputError:
            return "changed"

    def approved(self, definitions: Iterable[ToolDefinition]) -> tuple[ToolDefinition, ...]:
        """Those that are approved and unchanged: all that a catalog or a planner may ever see.

        Of two that share a server and a name neither is: a call could not say which it means.
        """
        given = tuple(definitions)
        named = Counter((each.server, each.name) for each in given)
        return tuple(each for each in given if named[each.server, each.name] == 1 and self.standing(each) == "approved")

    def standings(self, server: str, definitions: Iterable[ToolDefinition]) -> tuple[ToolStanding, ...]:
        """All tools that a server offers now or had approved, by name, with what has changed."""
        offered = _by_name(server, definitions)
        pins = self._of(server)
        found = []
        for tool in sorted({*offered, *pins}):
            if tool not in offered:
                found.append(ToolStanding(tool, "gone"))
                continue
            standing = self.standing(offered[tool])
            changed = difference(pins[tool].definition, offered[tool]) if standing == "changed" else ()
            found.append(ToolStanding(tool, standing, changed))
        return tuple(found)

    def stamp(self, servers: Iterable[str]) -> tuple[tuple[int, int, int] | None, ...]:
        """Changes when an approval of one of these servers does, in whatever process."""
        return tuple(_stamp_of(self._path(server)) for server in servers)

    def pins(self, server: str) -> tuple[Pin, ...]:
        """A server's approvals, by tool."""
        return tuple(pin for _, pin in sorted(self._of(server).items()))

    def _of(self, server: str) -> dict[str, Pin]:
        path = self._path(server)
        try:
            with path.open("rb") as file:
                about = os.fstat(file.fileno())
                stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
                known = self._read.get(server)
                if known is not None and known[0] == stamp:
                    return known[1]
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"the approvals in {path} cannot be read: {error.strerror}") from error
        self._read[server] = stamp, _parsed(path, server, data)
        return self._read[server][1]

    def _write(self, server: str, pins: dict[str, Pin]) -> None:
        if len(pins) > MAX_TOOLS:
            raise InputError(f"at most {MAX_TOOLS} tools of a server are approved: revoke those that are gone first")
        ordered = tuple(pin for _, pin in sorted(pins.items()))
        data = _Pins(server=server, pins=ordered).model_dump_json(indent=1).encode()
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"the approvals of {server} would pass {MAX_FILE_BYTES} bytes: approve fewer of its tools")
        try:
            write_whole(self._path(server), data)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error.strerror}") from error

    def _path(self, server: str) -> Path:
        return self.folder / f"{segment(server)}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process changes approvals at a time. The kernel gives the lock back where one dies."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        about = path.stat()
    except OSError:  # there is none, or `_of` will say what is wrong
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def difference(before: ToolDefinition, now: ToolDefinition) -> tuple[str, ...]:
    """What has changed in a definition, as a unified diff for a terminal: bounded, with nothing hidden in it."""
    lines = difflib.unified_diff(_lines(before), _lines(now), "approved", "now", n=1, lineterm="")
    found = [shown(line, MAX_LINE_CHARS) for line, _ in zip(lines, range(MAX_DIFF_LINES + 1), strict=False)]
    return tuple(found) if len(found) <= MAX_DIFF_LINES else (*found[:MAX_DIFF_LINES], CUT)


def _lines(definition: ToolDefinition) -> list[str]:
    """All of a definition, in lines that are short enough for a change in the middle of one to be seen."""
    fields = definition.model_dump(mode="json")
    described = fields.pop("description").split("\n")
    lines = [*json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False).split("\n"), "description:", *described]
    return [line[at : at + LINE_CHARS] for line in lines for at in range(0, max(1, len(line)), LINE_CHARS)]


def whole(definition: ToolDefinition) -> tuple[str, ...] | None:
    """All that a model would read of a tool, for a person to read first; None if it is more than anybody would."""
    lines = _lines(definition)
    return tuple(shown(line, MAX_LINE_CHARS) for line in lines) if len(lines) <= MAX_SHOWN_LINES else None


def _by_name(server: str, definitions: Iterable[ToolDefinition]) -> dict[str, ToolDefinition]:
    found: dict[str, ToolDefinition] = {}
    for each in definitions:
        if each.server != server:
            raise InputError(f"a tool of {shown(each.server)} was given as one of {shown(server)}")
        if each.name in found:
            raise InputError(f"{shown(server)} offers two tools called {shown(each.name)}: it cannot be used like that")
        found[each.name] = each
    return found


def _parsed(path: Path, server: str, data: bytes) -> dict[str, Pin]:
    try:
        if len(data) > MAX_FILE_BYTES:
            raise ValueError("it is too large")
        file = _Pins.model_validate_json(data)
    except ValidationError as error:
        raise StorageError(f"the approvals in {path} are damaged ({error.error_count()} faults): {_MEND}") from None
    except ValueError as error:
        raise StorageError(f"the approvals in {path} are damaged ({error}): {_MEND}") from None
    if file.server != server:
        raise StorageError(f"the approvals in {path} are those of another server: {_MEND}")
    return {pin.definition.name: pin for pin in file.pins}


_MEND: Final = "remove the file and approve again"
