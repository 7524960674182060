"""The program between a sandbox and what runs in it, started with `python -I -S` and nothing of Chimera at hand.

Within bubblewrap it sets the limits, closes what it inherited and becomes the command. Without namespaces it puts up
the walls first (Landlock, seccomp, no capabilities), and a process of it stays behind as the keeper: the command's
orphans come to it, and when the command ends, or Chimera does, it ends them all.

The keeper lives in an outer Landlock domain, the command in one nested within it. Signals go inwards only, so that
`kill(-1)` reaches every process of the run, all at once, and nothing else; forks cannot outrun it.

Sources: landlock(7), linux/landlock.h (ABI 1 to 7), capabilities(7), prctl(2).
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import _socket
import ctypes
import marshal
import os
import resource
import select
import struct
import sys
from contextlib import suppress

TYPE_CHECKING = False  # each import here is paid for by every run: `typing`, `json`, `signal` cost more than the walls
if TYPE_CHECKING:
    from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 22, 24, 28
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
NOROOT_AND_LOCKED = 0x3
SECCOMP_MODE_FILTER = 2
SET_MODE_FILTER, NEW_LISTENER = 1, 8
NICE = 2  # who watches goes first, however many processes there are
CAPABILITY_VERSION_3 = 0x20080522

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
RULE_PATH_BENEATH = 1
SCOPES = 6  # the first ABI that keeps signals and abstract sockets in
NET_AND_SCOPES = {"bind": 1, "connect": 2, "abstract": 1, "signal": 2}
EXECUTE, WRITE, READ, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
MAKE_DEVICES = 1 << 6 | 1 << 11
OF_A_FILE = EXECUTE | WRITE | READ | TRUNCATE | IOCTL_DEV
LAST_RIGHT = {3: 14, 4: 14}  # the number of the last right that an ABI knows; 15 since ABI 5

LIBC = ctypes.CDLL(None, use_errno=True)


class WallError(Exception):
    """A wall could not be put up."""


def main() -> NoReturn:
    with os.fdopen(int(sys.argv[1]), "rb") as given:
        spec = marshal.load(given)
    try:
        if spec["landlock"] is None:
            become(spec)
        keep(spec)
    except (WallError, OSError, ValueError) as error:
        os.write(spec["status_fd"], str(error).encode()[:500] or b"unknown")
        os._exit(125)


def become(spec: dict[str, Any]) -> NoReturn:
    """Turn into the command, with its limits, and no file but the three."""
    limits = dict(spec["limits"])
    for name, most in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        grace = 1 if name == "RLIMIT_CPU" and most != hard else 0
        resource.setrlimit(kind, (most, most + grace))
    os.nice(NICE)
    os.chdir(spec["cwd"])
    _have_births_asked(spec)
    status = spec["status_fd"]
    os.set_inheritable(status, False)
    os.closerange(3, status)
    os.closerange(status + 1, 1 << 20)
    if spec["seccomp"] is not None:
        _filter(spec["seccomp"])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.write(status, b"ok")
    try:
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        os.write(2, f"{spec['argv'][0]}: {error.strerror}\n".encode())
    os._exit(127)


def keep(spec: dict[str, Any]) -> NoReturn:
    """Put up the walls, start the command behind them, wait for its end or Chimera's, end what is left of it."""
    rules = spec["landlock"]
    scoped = rules["abi"] >= SCOPES
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _drop_capabilities()
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if scoped:
        _contain_signals()
    keeper = os.getpid()
    command = os.fork()
    if command == 0:
        try:
            os.close(spec["leash_fd"])
            os.setsid()
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:
                os._exit(125)
            spec["limits"]["RLIMIT_NPROC"] += _tasks_of(os.getuid()) - 1  # this process is among both
            _restrict(rules)
            become(spec)
        except BaseException as error:
            os.write(spec["status_fd"], str(error).encode()[:500] or b"unknown")
            os._exit(125)
    os.close(spec["status_fd"])
    code = _wait(command, spec["leash_fd"])
    _end_all(scoped)
    os._exit(code)


def _wait(command: int, leash: int) -> int:
    """The command's exit code (128 + its signal), or 137 if Chimera let go of the leash."""
    poll = select.poll()
    poll.register(leash, select.POLLHUP)
    poll.register(os.pidfd_open(command), select.POLLIN)
    while True:
        let_go = any(fd == leash for fd, _ in poll.poll(50))
        for pid, status in _ended():
            if pid == command:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        if let_go:
            return 128 + int(signal.SIGKILL)


def _ended() -> list[tuple[int, int]]:
    """Children that have ended, with how."""
    found = []
    with suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


def _end_all(scoped: bool) -> None:
    """SIGKILL to every process of the run, until there is none."""
    while True:
        with suppress(OSError):
            if scoped:
                os.kill(-1, signal.SIGKILL)
            else:
                for pid in _descendants():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                select.select([], [], [], 0.002)
        except ChildProcessError:
            return


def _descendants() -> list[int]:
    parents: dict[int, list[int]] = {}
    for pid, fields in _stats():
        parents.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    look = [os.getpid()]
    while look:
        children = parents.get(look.pop(), [])
        found += children
        look += children
    return found


def _tasks_of(uid: int) -> int:
    """How many threads the user has: RLIMIT_NPROC counts them all."""
    total = 0
    for pid, fields in _stats():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == uid:
                total += int(fields[17])
    return total


def _stats() -> list[tuple[int, list[str]]]:
    """Of each process: its number, and what stands after its name in /proc/PID/stat (state, parent, ...)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                found.append((int(name), file.read().rpartition(")")[2].split()))
    return found


def _contain_signals() -> None:
    """Enter a Landlock domain that signals do not leave, and try it: `kill(-1)` without it would end the machine."""
    _enter(_ruleset(struct.pack("=QQQ", 0, 0, NET_AND_SCOPES["signal"])))
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return
    raise WallError("signals leave the Landlock domain, though this kernel says that they cannot")


def _restrict(rules: dict[str, Any]) -> None:
    """Enter the domain of the command: reads here, writes there, no TCP, no signals or abstract sockets outwards."""
    abi = rules["abi"]
    handled = (1 << LAST_RIGHT.get(abi, 15) + 1) - 1
    words = [handled]
    if abi >= 4:
        words.append(NET_AND_SCOPES["bind"] | NET_AND_SCOPES["connect"])
    if abi >= SCOPES:
        words.append(NET_AND_SCOPES["abstract"] | NET_AND_SCOPES["signal"])
    ruleset = _ruleset(struct.pack(f"={len(words)}Q", *words))
    grants = {
        "read": EXECUTE | READ | READ_DIR,
        "write": handled & ~MAKE_DEVICES & ~IOCTL_DEV,
        "devices": READ | WRITE | TRUNCATE,
    }
    for group, rights in grants.items():
        for path in rules[group]:
            _allow(ruleset, path, rights & handled)
    _enter(ruleset)


def _ruleset(attributes: bytes) -> int:
    fd = int(LIBC.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if fd < 0:
        raise WallError(f"a Landlock ruleset could not be made: {_reason()}")
    return fd


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= OF_A_FILE
    rule = struct.pack("=Qi", rights, fd)
    if LIBC.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0):
        raise WallError(f"Landlock does not take a rule for {path}: {_reason()}")
    os.close(fd)


def _enter(ruleset: int) -> None:
    if LIBC.syscall(RESTRICT_SELF, ruleset, 0):
        raise WallError(f"a Landlock domain could not be entered: {_reason()}")
    os.close(ruleset)


def _drop_capabilities() -> None:
    """None held, and none to be had by running a program as root."""
    with suppress(WallError):
        for capability in range(64):
            _prctl(PR_CAPBSET_DROP, capability)
    with suppress(WallError):
        _prctl(PR_SET_SECUREBITS, NOROOT_AND_LOCKED)
    if LIBC.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)):
        raise WallError(f"capabilities could not be dropped: {_reason()}")


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _have_births_asked(spec: dict[str, Any]) -> None:
    """Hand Chimera the listener of a filter that asks it about every new process and thread of the run."""
    program = spec["births"]
    loaded = Program(len(program) // 8, program)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    listener = LIBC.syscall(spec["seccomp_call"], SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(loaded))
    if listener < 0:
        if spec["root"]:
            raise WallError(f"the number of root's processes cannot be limited here ({_reason()}): use another user")
        return  # the kernel counts this user's
    chimera = _socket.socket(fileno=spec["births_fd"])
    chimera.sendmsg([b"!"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=i", listener))])
    chimera.close()


def _filter(program: bytes) -> None:
    loaded = Program(len(program) // 8, program)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(loaded))


def _prctl(option: int, value: int, more: int = 0) -> None:
    word = ctypes.c_ulong
    if LIBC.prctl(option, word(value), word(more), word(0), word(0)):
        raise WallError(f"prctl({option}): {_reason()}")


def _reason() -> str:
    return os.strerror(ctypes.get_errno())


if __name__ == "__main__":
    main()
