"""What a process does so that no other looks into it: as who it runs, and what the kernel keeps from others.

Sources: prctl(2), proc(5), ptrace(2): a process that is not dumpable can neither be traced nor have its memory read by
others of its own user, and leaves no core file.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal

from chimera.core.errors import InputError, SecurityError

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
STANDARD = 2
"""The last of the standard files."""


def become(user: str) -> None:
    """From here on this process is that user, for good. Raises InputError, and SecurityError unless root does it."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise InputError(f"there is no user {user!r:.60}: make one (useradd --system), or leave --user out") from None
    if os.geteuid() == entry.pw_uid == os.getuid():
        return
    if os.geteuid() != 0:
        raise SecurityError(f"only root can start the vault as {user}")
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if os.getresuid() != (entry.pw_uid,) * 3 or os.getresgid() != (entry.pw_gid,) * 3:
        raise SecurityError(f"this process could not become {user}")


def harden() -> None:
    """Nothing of this process is for others: its memory, its core, the files it makes, the files it was given."""
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.closerange(STANDARD + 1, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20))


def end_with(parent: int) -> None:
    """End when that process does, which started this one."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SecurityError(f"the process {parent}, with which this one was to end, has ended")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_ulong
    if libc.prctl(option, word(value), word(0), word(0), word(0)):
        raise SecurityError(f"prctl({option}): {os.strerror(ctypes.get_errno())}: the vault needs it to hide its key")
