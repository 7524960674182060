"""A tree of files, held by one process at a time and never left through a link.

Every folder is opened by its name within the folder above it (openat with O_NOFOLLOW), and files are reached through
these handles only: a link that somebody puts in the way in between is refused, not followed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from chimera.core.errors import HealingError, PatchInvalid, TreeBusy
from chimera.healing.paths import MAX_FILE_BYTES, check_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was read. `data` is None where there is none, and then nothing else is known."""

    data: bytes | None
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0

    @property
    def sha256(self) -> str:
        return sha256(self.data)


def sha256(data: bytes | None) -> str:
    """The SHA-256 of the bytes in hex; "" for no file."""
    return "" if data is None else hashlib.sha256(data).hexdigest()


class Tree:
    """The folder `root` with its files, locked (flock on the folder itself) while it is open, whoever else opens it.

    Raises TreeBusy if another has it, and HealingError if there is no such folder, or for any OSError on the way.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._folders: dict[str, int] = {}

    def __enter__(self) -> Tree:
        try:
            self._folders[""] = handle = os.open(self.root, _FOLDER)
        except OSError as error:
            raise HealingError(f"{self.root} cannot be opened as a folder: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise TreeBusy(f"{self.root} is being changed by another process: try again when it is done") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()
        if isinstance(error, OSError):
            raise HealingError(f"{self.root} cannot be changed ({error}): mend that, then call recover") from error

    def read(self, path: str) -> Seen:
        """The file as it is. Raises PatchInvalid for what is no plain file, is too large, or is behind a link."""
        check_path(path)
        folder, _, name = path.rpartition("/")
        try:
            at = self._folder(folder)
            # To open a pipe would wait for a writer.
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        except FileNotFoundError:
            return Seen(None)
        except OSError as error:
            raise _refused(path, error) from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise PatchInvalid(f"{path} is no plain file: a patch changes only those")
            with open(handle, "rb", closefd=False) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(handle)
        if len(data) > MAX_FILE_BYTES:
            raise PatchInvalid(f"{path} is too large: a patch handles files up to {MAX_FILE_BYTES:,} bytes")
        return Seen(data, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)

    def check_writable(self, path: str, seen: Seen) -> None:
        """Raises PatchInvalid if the file is read-only or the first folder of its path that exists is."""
        folder, _, name = path.rpartition("/")
        if seen.data is not None and not (seen.mode & 0o222 and self._allows(os.W_OK, name, folder)):
            raise PatchInvalid(f"{path} is read-only: make it writable (chmod u+w), or leave it out of the patch")
        while folder and not self._exists(folder):
            folder = folder.rpartition("/")[0]
        if not self._allows(os.W_OK | os.X_OK, ".", folder):
            raise PatchInvalid(f"the folder of {path} is read-only: make it writable (chmod u+w), or leave it out")

    def missing_folders(self, path: str) -> list[str]:
        """The folders that must be made for the file, outermost first."""
        parts = path.split("/")[:-1]
        folders = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        return [folder for folder in folders if not self._exists(folder)]

    def make_folder(self, folder: str) -> None:
        above, _, name = folder.rpartition("/")
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=self._folder(above))

    def stage(self, path: str, temp: str, data: bytes, like: Seen) -> None:
        """Write the bytes, durably, to a file `temp` beside `path`, with the mode and owner of `like`.

        It is later than `like` by whole seconds, since Python believes compiled code that is as old as its source, to
        the second, and as large.
        """
        at = self._folder(path.rpartition("/")[0])
        handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            status = os.fstat(handle)
            if like.data is not None and (status.st_uid, status.st_gid) != (like.uid, like.gid):
                os.fchown(handle, like.uid, like.gid)
            os.fchmod(handle, like.mode)  # after fchown, which takes the setuid bit away
            second = like.mtime_ns // _SECOND_NS + 1
            if status.st_mtime_ns // _SECOND_NS < second:
                os.utime(handle, ns=(status.st_atime_ns, second * _SECOND_NS))
            os.fsync(handle)

    def swap(self, path: str, temp: str) -> None:
        """Put what was staged in the place of the file, in one step."""
        folder, _, name = path.rpartition("/")
        at = self._folder(folder)
        os.replace(temp, name, src_dir_fd=at, dst_dir_fd=at)

    def remove(self, path: str) -> None:
        """Remove the file if it is there."""
        folder, _, name = path.rpartition("/")
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder(folder))

    def remove_folder(self, folder: str) -> None:
        """Remove the folder if nothing is left in it but compiled code, which would keep it importable."""
        above, _, name = folder.rpartition("/")
        with suppress(FileNotFoundError):
            at = self._folder(folder)
            if os.listdir(at) == ["__pycache__"]:
                cache = self._folder(f"{folder}/__pycache__")
                if all(entry.endswith(".pyc") for entry in os.listdir(cache)):
                    for entry in os.listdir(cache):
                        os.unlink(entry, dir_fd=cache)
                    os.rmdir("__pycache__", dir_fd=at)
            try:
                os.rmdir(name, dir_fd=self._folder(above))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def sync(self) -> None:
        """Make what was swapped, made and removed durable."""
        for handle in self._folders.values():
            os.fsync(handle)

    def _folder(self, folder: str) -> int:
        """A handle on the folder, opened from the root down and kept open."""
        handle = self._folders.get(folder)
        if handle is None:
            above, _, name = folder.rpartition("/")
            handle = self._folders[folder] = os.open(name, _FOLDER, dir_fd=self._folder(above))
        return handle

    def _exists(self, folder: str) -> bool:
        try:
            self._folder(folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _refused(folder, error) from None
        return True

    def _allows(self, access: int, name: str, folder: str) -> bool:
        return os.access(name, access, dir_fd=self._folder(folder), effective_ids=True)

    def _close(self) -> None:
        for handle in self._folders.values():
            os.close(handle)
        self._folders.clear()


def _refused(path: str, error: OSError) -> HealingError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return PatchInvalid(f"{path}: a name in it is a link, which is not followed, or no folder")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PatchInvalid(f"{path} may not be read: check who may")
    return HealingError(f"{path} cannot be read: {error.strerror}")
