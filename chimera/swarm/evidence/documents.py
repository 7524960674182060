"""A folder of documents: which files it holds, what stands in them, and how they are cut into shards.

Everything that a user's folder can do wrong is met here: links that lead out or round in circles, pipes, junk bytes,
locked PDFs. One bad file is named and skipped; only a folder with nothing to read is an error.
"""

from __future__ import annotations

import codecs
import importlib.util
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from chimera.core.errors import DocumentsError, UnreadableDocument
from chimera.swarm.evidence.formats import Line, html_lines, pdf_lines

TEXT_SUFFIXES = (".txt", ".md", ".rst")
HTML_SUFFIXES = (".html", ".htm")
SUFFIXES = (*TEXT_SUFFIXES, *HTML_SUFFIXES, ".pdf")

MAX_FILES = 100_000
MAX_ENTRIES = 1_000_000
MAX_FILE_BYTES = 50_000_000

_LINE_BREAK = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class DocumentRef:
    """A file that can be read: `path` is absolute, `name` is what citations show, relative to the folder."""

    path: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Document:
    """A file's text, line by line, with the line numbers of its source."""

    ref: DocumentRef
    lines: tuple[Line, ...]


def resolve_folder(docs: str) -> Path:
    """The folder that `docs` names: a path, or `package:NAME/SUBFOLDER` for files of an installed package.

    The package is looked up without importing it: naming a folder must not run code. Raises DocumentsError.
    """
    if docs.startswith("package:"):
        return _resolve_package(docs)
    try:
        folder = Path(docs).expanduser().resolve()
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise DocumentsError(f"no documents at {docs!r}: {error}") from error
    if not docs or not exists:
        raise DocumentsError(f"no such folder of documents: {docs!r}")
    if not is_folder:
        raise DocumentsError(f"documents must be a folder, and {docs!r} is a file")
    return folder


def _resolve_package(docs: str) -> Path:
    package, _, rest = docs.removeprefix("package:").partition("/")
    parts = PurePosixPath(rest).parts
    if not package.isidentifier() or ".." in parts or rest.startswith("/"):
        raise DocumentsError(f"{docs!r} is not of the form package:NAME/SUBFOLDER")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DocumentsError(f"no installed package {package!r} to read {docs!r} from")
    for location in spec.submodule_search_locations:
        folder = Path(location, *parts)
        if folder.is_dir():
            return folder.resolve()
    raise DocumentsError(f"package {package!r} has no folder {rest!r}")


def list_documents(docs: str) -> tuple[list[DocumentRef], list[UnreadableDocument]]:
    """Every readable file under `docs`, sorted by name, and those that had to be left out, with the cause.

    Hidden files and folders are passed over. A link to a folder is not followed; a link to a file counts only while
    its target stays inside. Raises DocumentsError when nothing can be read or a limit is passed.
    """
    root = resolve_folder(docs)
    candidates, left_out = _walk(root)
    taken = {os.path.join(root, name) for name in candidates}
    refs: list[DocumentRef] = []
    for name in sorted(candidates):
        ref = _examine(root, name, taken)
        if isinstance(ref, DocumentRef):
            refs.append(ref)
        elif ref is not None:
            left_out.append(ref)
    left_out.sort(key=lambda error: error.file)
    if not refs:
        kinds = ", ".join(SUFFIXES)
        why = f"; left out: {left_out[0]}" if left_out else ""
        raise DocumentsError(f"no documents in {docs!r}: it has no readable file of the kinds {kinds}{why}")
    return refs, left_out


def _walk(root: Path) -> tuple[list[str], list[UnreadableDocument]]:
    """Names of the files of our kinds, unsorted, and the folders that could not be listed."""
    names: list[str] = []
    errors: list[OSError] = []
    entries = 0
    for folder, subfolders, files in os.walk(root, onerror=errors.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        entries += len(subfolders) + len(files)
        relative = Path(folder).relative_to(root)
        names.extend(
            (relative / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        )
        if len(names) > MAX_FILES or entries > MAX_ENTRIES:
            raise DocumentsError(
                f"too many files under {str(root)!r}: at most {MAX_FILES} documents, {MAX_ENTRIES} entries"
            )
    unlisted = [UnreadableDocument(os.path.relpath(error.filename, root), _cause(error)) for error in errors]
    return names, unlisted


def _examine(root: Path, name: str, taken: set[str]) -> DocumentRef | UnreadableDocument | None:
    """A reference to one file, or why not; None for a link to a file that is listed anyway."""
    path = root / name
    try:
        name.encode()
        target = path.resolve()
        if not target.is_relative_to(root):
            return UnreadableDocument(name, "it is a link that leads out of the folder")
        if path.is_symlink() and str(target) in taken:
            return None
        status = target.stat()
    except UnicodeEncodeError:
        return UnreadableDocument(ascii(name), "its name is not valid text")
    except (OSError, RuntimeError) as error:
        return UnreadableDocument(name, _cause(error))
    if not stat.S_ISREG(status.st_mode):
        return UnreadableDocument(name, "it is not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        return UnreadableDocument(name, f"it is larger than {MAX_FILE_BYTES} bytes")
    return DocumentRef(path=str(target), name=name, size_bytes=status.st_size)


def read_document(ref: DocumentRef) -> Document:
    """The text of one file. Raises UnreadableDocument with the cause; never returns half a file."""
    try:
        with open(ref.path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableDocument(ref.name, _cause(error)) from error
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableDocument(ref.name, f"it is larger than {MAX_FILE_BYTES} bytes")
    suffix = Path(ref.name).suffix.lower()
    if suffix == ".pdf":
        return Document(ref, tuple(pdf_lines(ref.name, data)))
    text = _decode(ref.name, data)
    if suffix in HTML_SUFFIXES:
        return Document(ref, tuple(html_lines(text)))
    return Document(ref, tuple(Line(i, line) for i, line in enumerate(_LINE_BREAK.split(text), start=1)))


def _decode(name: str, data: bytes) -> str:
    """UTF-8, or UTF-16 with its mark, or else Windows-1252, which unlike Latin-1 has bytes that it refuses."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not utf16 and b"\0" in data:
        raise UnreadableDocument(name, "it is binary, not text")
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UnreadableDocument(name, "its bytes are in no encoding that is read here (UTF-8, UTF-16, Windows-1252)")


def shard_documents(refs: Sequence[DocumentRef], shard_bytes: int) -> list[list[DocumentRef]]:
    """`refs` in sorted order, cut into groups of at most `shard_bytes`; a larger file is a group of its own.

    Pure and deterministic, so that a mission that is run again asks the same tasks and finds the same cached indexes.
    """
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be positive, got {shard_bytes}")
    shards: list[list[DocumentRef]] = []
    room = 0
    for ref in sorted(refs, key=lambda ref: ref.name):
        if not shards or ref.size_bytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(ref)
        room -= ref.size_bytes
    return shards


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
