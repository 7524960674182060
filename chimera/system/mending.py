"""A patch goes into the files and into the running process, and out of both again, as one.

A note of it lies in `probation.json` from before the first file is changed until it is kept or taken back. Whoever is
killed in between finds the note at the next start, and takes the patch back: nobody has watched it.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from chimera.core.errors import ChimeraError, HealingError, InputError, MissionError
from chimera.healing.apply import Applied, apply, roll_back
from chimera.reload.manager import HotReloadManager
from chimera.system.proposals import Proposal, read_proposal, remove, write_whole

_log = logging.getLogger(__name__)


class Mending:
    """The patch that is on probation in `workspace`, one at most. `home` keeps its note and the log of changes."""

    def __init__(self, workspace: Path, home: Path, reload: HotReloadManager) -> None:
        self._workspace = workspace
        self._log = home / "changes.db"
        self._note = home / "probation.json"
        self._reload = reload
        self._applied: Applied | None = None
        self._loaded: list[tuple[str, int]] = []
        """Modules in the order in which they were loaded, each with the version that was in use before."""

    async def apply(self, proposal: Proposal) -> None:
        """The files changed and the modules loaded anew, or everything as before.

        Raises PatchConflict where a file is not what it was when the patch was tried, and what `apply` and `reload`
        raise, HealingError while an earlier patch could not be taken back.
        """
        if self._note.exists():
            raise HealingError(f"the patch before could not be taken back: look at {self._note}, and start again")
        await asyncio.to_thread(write_whole, self._note, proposal.model_dump_json())
        changes: dict[str, bytes | None] = {path: text.encode() for path, text in proposal.changes.items()}
        try:
            self._applied = await asyncio.to_thread(
                apply, self._workspace, changes, log=self._log, before=_bytes(proposal.before)
            )
        except BaseException:
            await self.keep()  # nothing was changed
            raise
        try:
            for module in _in_order(proposal.changes):
                if self._is_loaded(module):
                    self._loaded.append((module, self._reload.reloader.current(module).version))
                    await self._reload.reload(module, self._file_of(module))
        except BaseException:
            await self.take_back(proposal)
            raise

    async def keep(self) -> None:
        """Its probation is over. The note goes first: it alone says that it is not."""
        await asyncio.to_thread(remove, self._note)
        self._applied, self._loaded = None, []

    async def take_back(self, proposal: Proposal) -> bool:
        """The version before runs again at once; its files follow. Whether there was anything to take back.

        Raises PatchConflict if somebody changed the files since, and then leaves them alone.
        """
        if not self._note.exists():
            return False
        again = [module for module, version in reversed(self._loaded) if not await self._switched_back(module, version)]
        if self._applied is None:
            await asyncio.to_thread(self._give_files_back, proposal)
            again = [module for module in _in_order(proposal.changes) if self._is_loaded(module)]
        else:
            await asyncio.to_thread(roll_back, self._applied)
        for module in again:
            if self._is_loaded(module) and self._file_of(module).is_file():
                await self._reload.reload(module, self._file_of(module))
        await self.keep()
        return True

    def left(self) -> Proposal | None:
        """The patch whose probation nobody has ended. Raises InputError where the note is damaged."""
        return read_proposal(self._note)

    async def _switched_back(self, module: str, version: int) -> bool:
        """Whether `version` is in use again, states kept where they can be. If not, it has to come from its file."""
        for lossy in (False, True):
            loaded = [each.version for each in self._reload.reloader.versions(module)]
            if loaded[-1] == version:
                return True
            if loaded[-2:-1] != [version]:
                return False
            try:
                await self._reload.roll_back(module, lossy=lossy)
            except ChimeraError as error:
                _log.warning("%s cannot go back to version %d: %s", module, version, error)
            else:
                return True
        return False

    def _give_files_back(self, proposal: Proposal) -> None:
        """By what they hold: of a process that was killed, nobody knows how far it came."""
        old, new = _bytes(proposal.before), _bytes(proposal.changes)
        if all(_content(self._workspace / path) == text for path, text in old.items()):
            return
        apply(self._workspace, old, log=self._log, before=new)

    def _file_of(self, module: str) -> Path:
        package = self._workspace / module.replace(".", "/") / "__init__.py"
        return package if package.is_file() else package.parent.with_suffix(".py")

    def _is_loaded(self, module: str) -> bool:
        """Whether it runs in this process; if not, its next import takes the new file. Raises MissionError."""
        loaded = sys.modules.get(module)
        if loaded is None:
            return False
        file = getattr(loaded, "__file__", None) or ""
        if os.path.realpath(file) != os.path.realpath(self._file_of(module)):
            raise MissionError(f"{module} runs here from {file or 'no file'}, not from {self._file_of(module)}")
        return True


def module_file(workspace: Path, module: str) -> str:
    """The file of a module, relative to the workspace. Raises MissionError where there is none."""
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        if (workspace / path).is_file():
            return path
    raise MissionError(f"{module!r} is no module of {workspace}: name another owner for the metric")


def _bytes(texts: Mapping[str, str | None]) -> dict[str, bytes | None]:
    return {path: None if text is None else text.encode() for path, text in texts.items()}


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _in_order(changes: Mapping[str, str]) -> list[str]:
    """The modules among the changed files, each after those that it imports: it takes their new versions then."""
    texts = {_module(path): text for path, text in changes.items() if path.endswith(".py")}
    order: list[str] = []

    def visit(module: str, above: tuple[str, ...]) -> None:
        for other in sorted(_imported(module, texts[module])):
            if other in texts and other not in (*above, module, *order):
                visit(other, (*above, module))
        if module not in order:
            order.append(module)

    for module in sorted(texts):
        visit(module, ())
    return order


def _module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _imported(module: str, text: str) -> set[str]:
    found: set[str] = set()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # whoever loads it says so
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.rsplit(".", node.level)[0] + "." if node.level else ""
            name = f"{package}{node.module or ''}".rstrip(".")
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return found
