"""The system calls that code behind walls may not make, as a classic BPF program put together here.

A list of refusals, as Docker's and systemd's are in effect: what reaches other processes, mounts, namespaces, keys, the
kernel's less trodden parts, the network. Calls newer than the list are answered ENOSYS, so that a new kernel opens no
door. A filter cannot follow pointers: only numbers among the arguments are looked at.

Sources: seccomp(2), the kernel's Documentation/userspace-api/seccomp_filter.rst, linux/bpf_common.h, linux/audit.h.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox.syscalls import ARCHITECTURES, NEWEST, NUMBERS, Architecture

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, ASK, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets within struct seccomp_data
X32 = 0x40000000

NEW_NAMESPACE = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
SETUID_OR_SETGID = 0o6000
O_CREAT = 0o100
AF_UNIX, SOCK_STREAM, SOCK_TYPE = 1, 1, 0xF
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Argument:
    """A test of the low 32 bits of an argument: `(argument & mask) == value`, or its opposite."""

    index: int
    value: int
    mask: int = 0xFFFFFFFF
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that is answered with `errno` (0: as if it had been done) if all of `tests` hold."""

    call: str
    errno: int = errno.EPERM
    tests: tuple[Argument, ...] = ()


def _all(names: str, code: int = errno.EPERM) -> list[Refusal]:
    return [Refusal(name, code) for name in names.split()]


def _any_bit(call: str, index: int, bits: int, *also: Argument) -> Refusal:
    return Refusal(call, errno.EPERM, (*also, Argument(index, 0, bits, differs=True)))


_OTHERS = """ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp move_pages
    migrate_pages"""
_MOUNTS = """mount umount2 pivot_root chroot unshare setns fsopen fsconfig fsmount fspick move_mount open_tree
    mount_setattr name_to_handle_at open_by_handle_at fanotify_init fanotify_mark statmount listmount"""
_KERNEL = """keyctl add_key request_key bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff settimeofday clock_settime
    clock_adjtime adjtimex acct quotactl quotactl_fd personality syslog sethostname setdomainname iopl ioperm modify_ldt
    vhangup lookup_dcookie memfd_secret nfsservctl sysfs uselib ustat _sysctl lsm_set_self_attr"""

EVERYWHERE: tuple[Refusal, ...] = (
    *_all(_OTHERS),
    *_all(_MOUNTS),
    *_all(_KERNEL),
    *_all("clone3 openat2", errno.ENOSYS),  # their flags lie behind a pointer; callers fall back
    _any_bit("clone", 0, NEW_NAMESPACE),
    Refusal("socket", errno.EPERM, (Argument(0, AF_UNIX, differs=True),)),
    # the limits, the place in the queue of another process
    *(
        Refusal(call, errno.EPERM, (Argument(0, 0, differs=True),))
        for call in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
    ),
    Refusal("setpriority", errno.EPERM, (Argument(1, 0, differs=True),)),
    Refusal("ioprio_set", errno.EPERM, (Argument(1, 0, differs=True),)),
    # a program left behind that would run as the folder's owner
    *(_any_bit(call, 1, SETUID_OR_SETGID) for call in ("chmod", "fchmod", "mkdir", "mknod", "creat")),
    *(_any_bit(call, 2, SETUID_OR_SETGID) for call in ("fchmodat", "fchmodat2", "mkdirat", "mknodat")),
    _any_bit("open", 2, SETUID_OR_SETGID, Argument(1, 0, O_CREAT, differs=True)),
    _any_bit("openat", 3, SETUID_OR_SETGID, Argument(2, 0, O_CREAT, differs=True)),
    Refusal("prctl", errno.EPERM, (Argument(0, PR_SET_DUMPABLE),)),  # would hide what a process holds from the watch
    *(Refusal("ioctl", errno.EPERM, (Argument(1, request),)) for request in (TIOCSTI, TIOCLINUX)),
    *_all("inotify_init inotify_init1 inotify_add_watch"),  # would tell which files of /usr other people open
)
"""Refused in every sandbox."""

WITHOUT_NAMESPACES: tuple[Refusal, ...] = (
    # Landlock does not stop a connection to a Unix socket; a datagram pair could still be pointed at one
    *_all("socket connect bind listen accept accept4"),
    Refusal("socketpair", errno.EPERM, (Argument(0, AF_UNIX, differs=True),)),
    Refusal("socketpair", errno.EPERM, (Argument(1, SOCK_STREAM, SOCK_TYPE, differs=True),)),
    # what would stay in the kernel after the run
    *_all("shmget msgget semget mq_open mq_unlink shmctl msgctl semctl"),
    # Landlock does not guard what a file's owner may do to it by name: times and modes stay as they are, and as every
    # copy of a file sets them, callers are told it was done
    Refusal("utimensat", errno.EPERM, (Argument(2, 0),)),  # "now": `touch` then opens the file, and makes it if need be
    *_all("fchmod chmod fchmodat fchmodat2 utime utimes futimesat utimensat", 0),
    *_all("chown fchown lchown fchownat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr"),
)
"""Refused besides where only Landlock stands between the code and the machine."""

WITHOUT_SCOPES: tuple[Refusal, ...] = tuple(
    _all("kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal")
)
"""Refused besides where Landlock cannot keep signals in (before ABI 6)."""


def program(refusals: Iterable[Refusal], machine: str | None = None) -> bytes:
    """The filter as the kernel takes it: `struct sock_filter`s of 8 bytes each, for this machine or the one named.

    Raises SandboxUnavailable on a machine whose calls are not known here.
    """
    arch = _architecture(machine)
    code = [
        _step(LOAD, ARCH),
        _step(EQUAL, arch.audit, 1, 0),
        _step(RETURN, KILL_PROCESS),
        _step(LOAD, NUMBER),
        _step(AT_LEAST, NEWEST + 1, 0, 1),  # the calls of x32 among them
        _step(RETURN, ERRNO | errno.ENOSYS),
    ]
    for refusal in refusals:
        code += _refuse(refusal, arch)
    code.append(_step(RETURN, ALLOW))
    return b"".join(code)


def births(machine: str | None = None) -> tuple[bytes, int]:
    """A filter that has a listener asked whether a process or thread may begin, and the number of seccomp(2).

    The kernel counts processes for each user, and for root not at all; the listener counts those of one run. It is
    only ever asked about calls that no refusal of another filter answers. Raises SandboxUnavailable, as `program`.
    """
    arch = _architecture(machine)
    numbers = [number for call in ("clone", "fork", "vfork") if (number := NUMBERS[call][arch.column]) is not None]
    code = [_step(LOAD, NUMBER)]
    code += [_step(EQUAL, number, len(numbers) - at, 0) for at, number in enumerate(numbers)]
    code += [_step(RETURN, ALLOW), _step(RETURN, ASK)]
    seccomp = NUMBERS["seccomp"][arch.column]
    assert seccomp is not None
    return b"".join(code), seccomp


def _architecture(machine: str | None) -> Architecture:
    machine = machine or platform.machine()
    arch = ARCHITECTURES.get(machine)
    if arch is None:
        known = " and ".join(ARCHITECTURES)
        raise SandboxUnavailable(f"system calls of {machine} are not known: a sandbox needs {known}")
    return arch


def _refuse(refusal: Refusal, arch: Architecture) -> list[bytes]:
    number = NUMBERS[refusal.call][arch.column]
    if number is None:
        return []
    tests: list[bytes] = []
    after = 1 if not refusal.tests else 2  # what stands behind the tests: the answer, and the number loaded again
    for at, test in enumerate(refusal.tests):
        left = 3 * (len(refusal.tests) - at - 1) + 1  # from here to the number loaded again
        hit, miss = (left, 0) if test.differs else (0, left)
        tests += [
            _step(LOAD, ARGUMENTS + 8 * test.index),
            _step(AND, test.mask),
            _step(EQUAL, test.value, hit, miss),
        ]
    block = [*tests, _step(RETURN, ERRNO | refusal.errno)]
    if after == 2:
        block.append(_step(LOAD, NUMBER))
    return [_step(EQUAL, number, 0, len(block)), *block]


def _step(code: int, value: int, hit: int = 0, miss: int = 0) -> bytes:
    return struct.pack("=HBBI", code, hit, miss, value)
