"""Patches as models write them: SEARCH/REPLACE blocks and fenced whole files, each under a line with its path.

Prose around them is welcome; JSON makes models escape code, which they do badly.
Source of the block format: aider's "diff" edit format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from chimera.core.errors import PatchInvalid
from chimera.healing.patch import MAX_PATCH_BYTES, CodePatch, is_test_path, parse_patch

SEARCH, DIVIDER, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*[\w+.#-]*[ \t]*")
_FILE_NAME = re.compile(r"\S+\.\w{1,10}")
_DECORATION = "`*#:'\" \t"


def parse_blocks(text: str) -> CodePatch:
    """The patch in a model's answer. Its first line of prose is the summary, the rest of the prose the rationale.

    A fenced file whose name is that of a test is a test of the patch; a fence under no path is prose. Several blocks
    may follow one path. Raises PatchInvalid where a block is cut off or ambiguous, with its number, or there is none.
    """
    if len(text) > 2 * MAX_PATCH_BYTES:
        raise PatchInvalid(f"the answer is too long: a patch has at most {MAX_PATCH_BYTES:,} bytes")
    reader = _Reader(text)
    reader.read()
    if not reader.edits:
        raise PatchInvalid(f"there is no edit: write a path on a line of its own, then a block from {SEARCH} on")
    prose = [line for line in map(str.strip, reader.prose) if line]
    summary = prose[0] if prose else "A patch without a word about it"
    rationale = "\n".join(prose[1:])[:20_000]
    return parse_patch(
        {"summary": summary[:2_000], "rationale": rationale, "edits": reader.edits, "tests": reader.tests}
    )


class _Reader:
    """Goes through an answer line by line."""

    def __init__(self, text: str) -> None:
        self.edits: list[JsonValue] = []
        self.tests: list[JsonValue] = []
        self.prose: list[str] = []
        self._lines: Iterator[str] = iter(text.replace("\r\n", "\n").split("\n"))
        self._path = ""
        self._fence = ""

    def read(self) -> None:
        for line in self._lines:
            opened = _FENCE.fullmatch(line)
            if line.rstrip() == SEARCH:
                self._take_block()
            elif self._fence and _closes(line, self._fence):
                self._fence = ""
            elif opened:
                self._take_fence(opened[1])
            else:
                self.prose.append(line)

    def _take_block(self) -> None:
        where = f"block {len(self.edits) + 1}"
        path = self._named_path() or self._path
        if not path:
            raise PatchInvalid(f"{where} has no path: write it on the line before")
        search = self._until(DIVIDER, where)
        replace = self._until(REPLACE, where)
        if any(line.rstrip() in (SEARCH, DIVIDER) for line in search + replace):
            raise PatchInvalid(f"{where} has a line {DIVIDER} or {SEARCH} too many: give the whole file instead")
        self._path = path
        self.edits.append({"path": path, "search": _joined(search), "replace": _joined(replace)})

    def _take_fence(self, fence: str) -> None:
        """A whole file, a fence around blocks, or an example among the prose."""
        where = f"the fenced text {len(self.edits) + len(self.tests) + 1}"
        name = self._named_path()
        first = next(self._lines, None)
        if first is not None and first.rstrip() == SEARCH:
            self._fence = fence
            self._path = name or self._path
            self._take_block()
            return
        body: list[str] = []
        line = first
        while line is not None and not _closes(line, fence):
            body.append(line)
            line = next(self._lines, None)
        if line is None:
            raise PatchInvalid(f"{where} has no end: the answer was cut off, or a longer fence is needed around it")
        if not _FILE_NAME.fullmatch(name):
            self.prose += body
            return
        if is_test_path(name):
            self.tests.append({"path": name, "text": _joined(body)})
        else:
            self.edits.append({"path": name, "whole": _joined(body)})
        self._path = ""

    def _until(self, end: str, where: str) -> list[str]:
        lines: list[str] = []
        for line in self._lines:
            if line.rstrip() == end:
                return lines
            lines.append(line)
        raise PatchInvalid(f"{where} has no line {end}: the answer was cut off")

    def _named_path(self) -> str:
        """The path on the line just read, which then is no prose; "" if that line is a sentence or empty."""
        while self.prose and not self.prose[-1].strip():
            self.prose.pop()
        name = self.prose[-1].strip().removeprefix("File:").strip(_DECORATION) if self.prose else ""
        if not name or any(char.isspace() for char in name) or not re.search(r"[./\\]", name):
            return ""
        self.prose.pop()
        return name


def _closes(line: str, fence: str) -> bool:
    line = line.rstrip()
    return len(line) >= len(fence) and set(line) == {fence[0]}


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
