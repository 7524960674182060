"""A patch: what it changes, how it is read, and what the files are after it.

An edit names text that must stand in the file exactly once, not line numbers, which models get wrong: a patch that was
made for another version of a file does not fit, and says so, where a line number would hit the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from chimera.core.errors import PatchInvalid
from chimera.core.hashing import digest
from chimera.core.types import Frozen
from chimera.healing.paths import MAX_FILE_BYTES, check_path
from chimera.storage import strict_json

MAX_EDITS = 64
MAX_TESTS = 16
MAX_PATCH_BYTES = 4_000_000
_SHOWN_LINES = 8
_SEARCHED_LINES = 5_000
_LINE_CHARS = 200


def _bounded(text: str) -> str:
    size_of(text)
    return text


def size_of(text: str) -> int:
    """The bytes of `text` in UTF-8. Raises PatchInvalid if they are more than a file may have, or it is no UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise PatchInvalid("a text of the patch is no UTF-8: it has half a surrogate pair") from None
    if size > MAX_FILE_BYTES:
        raise PatchInvalid(f"a file of {size:,} bytes is too large: a patch handles files up to {MAX_FILE_BYTES:,}")
    return size


FilePath = Annotated[str, AfterValidator(check_path)]
FileText = Annotated[str, AfterValidator(_bounded)]


class Replace(Frozen):
    """Puts `replace` where `search` stands. `search` must stand in the file exactly once."""

    path: FilePath
    search: Annotated[FileText, Field(min_length=1)]
    replace: FileText

    @model_validator(mode="after")
    def _changes_something(self) -> Replace:
        if self.search == self.replace:
            raise PatchInvalid(f"{self.path}: search and replace are the same text, so the edit does nothing")
        return self


class Append(Frozen):
    """Puts `append` on lines of its own at the end of the file, which is made if there is none."""

    path: FilePath
    append: Annotated[FileText, Field(min_length=1)]


class Whole(Frozen):
    """Makes `whole` the text of the file, whether there is one or not."""

    path: FilePath
    whole: FileText


Edit = Replace | Append | Whole


class TestFile(Frozen):
    """A pytest file that comes with a patch, to show that it works. pytest must be able to find it by its name."""

    __test__: ClassVar[bool] = False

    path: FilePath
    text: Annotated[FileText, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_found_by_pytest(self) -> TestFile:
        if not is_test_path(self.path):
            raise PatchInvalid(f"{self.path}: a file of tests is called test_NAME.py")
        return self


class CodePatch(Frozen):
    """A change of the code, and who proposes it. `cost_usd` is what it cost to make; None is unknown, which is not 0.

    `tests` are its author's own: they are run with it, and no proof by themselves.
    """

    summary: str = Field(min_length=1, max_length=2_000)
    rationale: str = Field(default="", max_length=20_000)
    edits: tuple[Edit, ...] = Field(min_length=1, max_length=MAX_EDITS)
    tests: tuple[TestFile, ...] = Field(default=(), max_length=MAX_TESTS)
    provider: str = Field(default="", max_length=128)
    model: str = Field(default="", max_length=128)
    cost_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None

    @property
    def id(self) -> str:
        """32 hex digits that follow from what the patch does, whoever proposes it in whatever words."""
        return digest(self.model_dump(mode="json", include={"edits", "tests"}))

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that its edits touch, each once, sorted. Its tests are not among them."""
        return tuple(sorted({edit.path for edit in self.edits}))

    @model_validator(mode="after")
    def _fits_together(self) -> CodePatch:
        size = sum(len(text.encode()) for text in self._texts())
        if size > MAX_PATCH_BYTES:
            raise PatchInvalid(f"the patch has {size:,} bytes, and may have {MAX_PATCH_BYTES:,}")
        tests = [test.path for test in self.tests]
        if len(set(tests)) < len(tests) or set(tests) & set(self.paths):
            raise PatchInvalid("a file of tests must be given once, and must not be edited by the patch too")
        return self

    def _texts(self) -> Iterator[str]:
        for edit in self.edits:
            yield from (text for name, text in edit if name != "path")
        for test in self.tests:
            yield test.text


def is_test_path(path: str) -> bool:
    """Whether pytest collects tests from a file of this name."""
    name = path.rpartition("/")[2]
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def parse_patch(given: str | bytes | Mapping[str, JsonValue]) -> CodePatch:
    """The patch in JSON: `{"summary", "edits": [{"path", "search", "replace"} | {"path", "append"} | ...]}`.

    The other fields of CodePatch may be given too; who asked a model for it overwrites what it says of its own cost.
    Raises PatchInvalid that names the edit, counted from 1.
    """
    if isinstance(given, (str, bytes)):
        if len(given) > 2 * MAX_PATCH_BYTES:
            raise PatchInvalid(f"the patch is too large: it may have {MAX_PATCH_BYTES:,} bytes")
        try:
            given = strict_json.loads(given if isinstance(given, bytes) else given.encode())
        except (ValueError, RecursionError) as error:
            raise PatchInvalid(f"the patch is no JSON: {error}") from None
    if not isinstance(given, Mapping):
        raise PatchInvalid('a patch is an object: {"summary": ..., "edits": [...]}')
    data: dict[str, Any] = dict(given)
    edits = data.get("edits")
    if not isinstance(edits, (list, tuple)) or not 1 <= len(edits) <= MAX_EDITS:
        raise PatchInvalid(f'a patch has "edits": a list of 1 to {MAX_EDITS}')
    data["edits"] = tuple(_edit(edit, number) for number, edit in enumerate(edits, 1))
    try:
        return CodePatch(**data)
    except ValidationError as error:
        raise PatchInvalid(f"the patch has a wrong field: {_first_fault(error)}") from None
    except TypeError as error:
        raise PatchInvalid(f"the patch has a wrong field: {error}") from None


_FORMS: Mapping[frozenset[str], type[Replace] | type[Append] | type[Whole]] = {
    frozenset(kind.model_fields): kind for kind in (Replace, Append, Whole)
}


def _edit(given: object, number: int) -> Edit:
    """The edit that is the `number`th of its patch."""
    kind = _FORMS.get(frozenset(given)) if isinstance(given, Mapping) else None
    if kind is None:
        keys = ", ".join(sorted(map(str, given)))[:200] if isinstance(given, Mapping) else type(given).__name__
        raise PatchInvalid(f"edit {number} has {keys}: give path with search and replace, or append, or whole")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise PatchInvalid(f"edit {number} has a wrong field: {_first_fault(error)}") from None
    except PatchInvalid as error:
        raise PatchInvalid(f"edit {number}: {error}") from None


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"


def edited(files: Mapping[str, str], patch: CodePatch) -> dict[str, str]:
    """The files that the patch changes, path -> new text, edits taken in order. `files` stays as it is.

    A file that ends its lines with CRLF still does. Appending and whole texts keep whether the last line is ended.
    Raises PatchInvalid where a search text is not there exactly once, a file is not there, would become too large or a
    folder too, or is the same after all edits.
    """
    texts: dict[str, str] = {}
    for number, edit in enumerate(patch.edits, 1):
        old = texts.get(edit.path, files.get(edit.path))
        try:
            texts[edit.path] = _applied(old, edit)
            size_of(texts[edit.path])
        except PatchInvalid as error:
            raise PatchInvalid(f"edit {number} of {edit.path}: {error}") from None
    same = [path for path, text in texts.items() if text == files.get(path)]
    if same:
        raise PatchInvalid(f"{same[0]} is the same after the patch as before: leave it out, or change it")
    _check_folders(texts, files)
    return texts


def _check_folders(texts: Mapping[str, str], files: Mapping[str, str]) -> None:
    """No file is also the folder of another."""
    everything = files.keys() | texts.keys()
    folders = {path[:at] for path in everything for at, char in enumerate(path) if char == "/"}
    for path in texts:
        parents = (path[:at] for at, char in enumerate(path) if char == "/")
        if path in folders or any(parent in everything for parent in parents):
            raise PatchInvalid(f"{path}: a file cannot be the folder of another file")


def _applied(old: str | None, edit: Edit) -> str:
    crlf = old is not None and _ends_with_crlf(old)
    text = "" if old is None else old.replace("\r\n", "\n") if crlf else old
    # A mixed file is taken as it is: to guess which ends an edit means would change lines that nobody named.
    plain = crlf or ("\r\n" not in text and old is not None)
    match edit:
        case Replace(search=search, replace=replace):
            if old is None:
                raise PatchInvalid("there is no such file: give the whole text to make one")
            new = _replaced(text, _plain(search, plain), _plain(replace, plain))
        case Append(append=append):
            gap = "" if not text or text.endswith("\n") else "\n"
            new = _ended_like(text, text + gap + _plain(append, plain))
        case Whole(whole=whole):
            new = _ended_like(text, _plain(whole, plain))
    return new.replace("\n", "\r\n") if crlf else new


def _ends_with_crlf(text: str) -> bool:
    """Whether CRLF ends every line of the text."""
    return "\r\n" in text and not {"\r", "\n"} & set(text.replace("\r\n", ""))


def _plain(text: str, plain: bool) -> str:
    return text.replace("\r\n", "\n") if plain else text


def _ended_like(old: str, new: str) -> str:
    """`new`, its last line ended if that of `old` is. Where there was nothing or will be, there is nothing to keep."""
    if not old or not new or old.endswith("\n") == new.endswith("\n"):
        return new
    return new + "\n" if old.endswith("\n") else new.rstrip("\n")


def _replaced(text: str, search: str, replace: str) -> str:
    """`text` with `search` replaced. A whole last line is found too if the file does not end it."""
    if search == replace:
        raise PatchInvalid("search and replace differ in their line ends only, and the file keeps its own")
    found = _places(text, search)
    whole_lines = search.endswith("\n") and (not replace or replace.endswith("\n"))
    if not found and whole_lines and text.endswith(search[:-1]) and not text.endswith("\n"):
        return _replaced(text + "\n", search, replace).removesuffix("\n")
    if not found:
        raise PatchInvalid(f"the search text is not in the file{_nearest(text, search)}")
    if len(found) > 1:
        lines = " and ".join(str(text.count("\n", 0, at) + 1) for at in found)
        raise PatchInvalid(f"the search text is in the file more than once (lines {lines}): add lines around it")
    return text[: found[0]] + replace + text[found[0] + len(search) :]


def _places(text: str, search: str) -> Sequence[int]:
    """Where the first two occurrences begin. They may overlap, and then are two all the same."""
    first = text.find(search)
    second = text.find(search, first + 1) if first >= 0 else -1
    return [at for at in (first, second) if at >= 0]


def _nearest(text: str, search: str) -> str:
    """The lines that are most like the search text, numbered, to show what was meant; "" where none is like it."""
    wanted = search.splitlines()
    lines = [line[:_LINE_CHARS] for line in text.splitlines()[:_SEARCHED_LINES]]
    anchor = max(range(len(wanted)), key=lambda at: len(wanted[at].strip()))
    close = difflib.get_close_matches(wanted[anchor][:_LINE_CHARS], lines, n=1, cutoff=0.6)
    if not close:
        return ": read the file again"
    start = max(0, lines.index(close[0]) - anchor)
    shown = lines[start : start + min(len(wanted), _SHOWN_LINES)]
    numbered = "\n".join(f"{start + at + 1:5}  {line}" for at, line in enumerate(shown))
    return f". Nearest to it, and to be copied exactly:\n{numbered}"
