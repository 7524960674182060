"""A patch goes into the files and into the running process, and out of both again, as one.

A note of it lies in `probation.json` from before the first file is changed until it is kept or taken back. Whoever is
killed in between finds the note at the next start, and takes the patch back: nobody has watched it.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Mapping
from pathlib import Path

from chimera.core.errors import HealingError, InputError, MissionError
from chimera.healing.apply import Applied, apply, roll_back
from chimera.storage.whole_file import write_whole
from chimera.system.loading import Loading
from chimera.system.proposals import Proposal, read_proposal, remove


class Mending:
    """The patch that is on probation in `workspace`, one at most. `home` keeps its note and the log of changes."""

    def __init__(self, workspace: Path, home: Path, loading: Loading) -> None:
        self._workspace = workspace
        self._log = home / "changes.db"
        self._note = home / "probation.json"
        self._loading = loading
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
        await asyncio.to_thread(write_whole, self._note, proposal.model_dump_json().encode())
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
                file = self._file_of(module)
                version = await self._loading.in_use(module, file)
                if version is not None:
                    self._loaded.append((module, version))
                    await self._loading.load(module, file)
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
        back = [(module, await self._loading.go_back(module, version)) for module, version in reversed(self._loaded)]
        again = [module for module, is_back in back if not is_back]
        if self._applied is None:
            await asyncio.to_thread(self._give_files_back, proposal)
            again = _in_order(proposal.changes)
        else:
            await asyncio.to_thread(roll_back, self._applied)
        for module in again:
            file = self._file_of(module)
            if file.is_file() and await self._loading.in_use(module, file) is not None:
                await self._loading.load(module, file)
        await self.keep()
        return True

    def left(self) -> Proposal | None:
        """The patch whose probation nobody has ended. Raises InputError where the note is damaged."""
        return read_proposal(self._note)

    def _give_files_back(self, proposal: Proposal) -> None:
        """By what they hold: of a process that was killed, nobody knows how far it came."""
        old, new = _bytes(proposal.before), _bytes(proposal.changes)
        if all(_content(self._workspace / path) == text for path, text in old.items()):
            return
        apply(self._workspace, old, log=self._log, before=new)

    def _file_of(self, module: str) -> Path:
        package = self._workspace / module.replace(".", "/") / "__init__.py"
        return package if package.is_file() else package.parent.with_suffix(".py")


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
