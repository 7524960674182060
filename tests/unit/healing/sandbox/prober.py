"""What an attacker would try from inside: `prober.py look JSON` tells what each attempt got, others wreak havoc.

Standard library only, as it runs where nothing else can be read.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
IS_ARM = os.uname().machine == "aarch64"


def number(x86: int, arm: int) -> int:
    return arm if IS_ARM else x86


def syscall(nr: int, *arguments: Any) -> int:
    got = int(LIBC.syscall(ctypes.c_long(nr), *arguments))
    if got < 0:
        raise OSError(ctypes.get_errno(), f"call {nr}")
    return got


class Looking:
    """Attempts that must get nothing. Each returns what it got, or raises OSError."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.outside = Path(asked["outside"])  # a folder, with `secret` in it
        self.marker: str = asked["marker"]
        self.victim: int = asked["victim"]
        self.port: int = asked["port"]
        self.path: str = asked["path"]
        self.datagrams: str = asked["datagrams"]
        self.abstract: str = asked["abstract"]
        self.inherited = [fd for fd in range(3, 1024) if self._there(fd)]

    def environment_of_the_parent(self) -> object:
        return [name for name in os.environ if self.marker in os.environ[name]]

    def environment_of_process_1(self) -> object:
        return Path("/proc/1/environ").read_bytes().strip(b"\0").decode(errors="replace")

    def environment_of_others(self) -> object:
        return self._proc("environ")

    def command_lines_of_others(self) -> object:
        return self._proc("cmdline")

    def _proc(self, file: str) -> list[str]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                data = Path(f"/proc/{pid}/{file}").read_bytes()
            except OSError:
                continue
            if self.marker.encode() in data and int(pid) not in (os.getpid(), os.getppid()):
                found.append(pid)
        return found

    def memory_of_another(self) -> object:
        return os.open(f"/proc/{self.victim}/mem", os.O_RDONLY)

    def folder_of_another(self) -> object:
        return os.listdir(f"/proc/{self.victim}/cwd")

    def secret_file(self) -> object:
        return (self.outside / "secret").read_text()

    def home(self) -> object:
        import pwd

        return os.listdir(pwd.getpwuid(os.getuid()).pw_dir) if Path("/etc/passwd").exists() else []

    def password_hashes(self) -> object:
        return Path("/etc/shadow").read_text()

    def host_configuration(self) -> object:
        return Path("/etc/passwd").read_text()

    def network_here(self) -> object:
        return socket.create_connection(("127.0.0.1", self.port), 2.0).fileno()

    def network_elsewhere(self) -> object:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(("192.0.2.1", 9)) == 0

    def raw_and_netlink_sockets(self) -> object:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno()

    def unix_socket(self) -> object:
        socket.socket(socket.AF_UNIX).connect(self.path)
        return True

    def abstract_unix_socket(self) -> object:
        socket.socket(socket.AF_UNIX).connect(self.abstract)
        return True

    def unix_socket_through_a_pair(self) -> object:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", self.datagrams)

    def signal_to_another(self) -> object:
        os.kill(self.victim, signal.SIGCONT)
        return True

    def signal_through_a_pidfd(self) -> object:
        signal.pidfd_send_signal(os.pidfd_open(self.victim), signal.SIGCONT)
        return True

    def ptrace(self) -> object:
        syscall(number(101, 117), 0x4206, self.victim, 0, 0)  # PTRACE_SEIZE
        return syscall(number(101, 117), 17, self.victim, 0, 0) == 0

    def read_memory_across(self) -> object:
        local = ctypes.create_string_buffer(8)
        vector = struct.pack("=QQ", ctypes.addressof(local), 8)
        return syscall(number(310, 270), self.victim, vector, 1, vector, 1, 0) or True

    def limits_of_another(self) -> object:
        return resource.prlimit(self.victim, resource.RLIMIT_NOFILE, resource.prlimit(self.victim, 7))

    def priority_of_another(self) -> object:
        os.setpriority(os.PRIO_PROCESS, self.victim, 5)
        return True

    def processors_of_another(self) -> object:
        os.sched_setaffinity(self.victim, os.sched_getaffinity(self.victim))
        return True

    def symbolic_link_out(self) -> object:
        os.symlink(self.outside / "secret", "soft")
        return Path("soft").read_text()

    def hard_link_out(self) -> object:
        os.link(self.outside / "secret", "hard")
        return Path("hard").read_text()

    def rename_out_and_in(self) -> object:
        Path("mine").touch()
        os.rename("mine", self.outside / "mine")
        return True

    def write_to_a_secret(self) -> object:
        return os.open(self.outside / "secret", os.O_WRONLY | os.O_APPEND)

    def truncate_a_secret(self) -> object:
        os.truncate(self.outside / "secret", 40)
        return True

    def delete_a_secret(self) -> object:
        (self.outside / "spare").unlink()
        return True

    def write_to_the_interpreter(self) -> object:
        return os.open(sys.executable, os.O_WRONLY)

    def extended_attribute(self) -> object:
        os.setxattr(self.outside / "secret", "user.x", b"x")
        return True

    def device_node(self) -> object:
        os.mknod("disk", 0o600 | 0o060000, os.makedev(254, 0))
        return os.open("disk", os.O_RDONLY)

    def devices(self) -> object:
        return [name for name in ("mem", "kmsg", "vda", "sda", "fuse", "kvm", "tty") if self._opens(f"/dev/{name}")]

    def _opens(self, path: str) -> bool:
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            return False
        return True

    def setuid_file(self) -> object:
        Path("tool").touch()
        os.chmod("tool", 0o4755)
        return bool(os.stat("tool").st_mode & 0o4000)

    def setuid_file_made_so(self) -> object:
        os.open("tool2", os.O_CREAT | os.O_WRONLY, 0o4755)
        return bool(os.stat("tool2").st_mode & 0o4000)

    def privileges_to_gain(self) -> object:
        return LIBC.prctl(39, 0, 0, 0, 0) == 0  # PR_GET_NO_NEW_PRIVS

    def capabilities(self) -> object:
        data = ctypes.create_string_buffer(24)
        LIBC.capget(struct.pack("=Ii", 0x20080522, 0), data)
        return any(data.raw)

    def inherited_descriptors(self) -> object:
        return self.inherited

    def _there(self, fd: int) -> bool:
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True

    def mount(self) -> object:
        return syscall(number(165, 40), b"none", b"/", b"tmpfs", 0x1000, None) == 0  # MS_BIND of nothing

    def user_namespace(self) -> object:
        return syscall(number(272, 97), 0x10000000) == 0

    def user_namespace_by_clone(self) -> object:
        pid = syscall(number(56, 220), 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)[0] == pid

    def keyring(self) -> object:
        return syscall(number(248, 217), b"user", b"chimera-probe", b"x", ctypes.c_size_t(1), -3)

    def kernel_programs(self) -> object:
        return syscall(number(321, 280), 0, ctypes.create_string_buffer(72), 72)

    def ring(self) -> object:
        return syscall(425, 4, ctypes.create_string_buffer(120))

    def fault_handler(self) -> object:
        return syscall(number(323, 282), 1)

    def personality(self) -> object:
        return syscall(number(135, 92), 0xFFFFFFFF) == 0

    def call_of_x32(self) -> object:
        return syscall(0x40000000 | 39) > 0

    def call_too_new(self) -> object:
        return syscall(469, -1) or True

    def kernel_settings(self) -> object:
        return os.open("/proc/sys/kernel/hostname", os.O_WRONLY)

    def control_groups(self) -> object:
        return os.listdir("/sys/fs/cgroup")

    def names_of_files(self) -> object:
        return os.listdir(self.outside)

    def watch_of_files(self) -> object:
        watch = LIBC.inotify_init()
        return LIBC.inotify_add_watch(watch, str(self.outside).encode(), 0x100) >= 0

    def hide_from_watch(self) -> object:
        return LIBC.prctl(4, 0, 0, 0, 0) == 0


def leave_traces(asked: dict[str, Any]) -> None:
    """What may seem to work, and must have no effect outside: whoever runs this looks there."""
    secret = Path(asked["outside"]) / "secret"
    for attempt in (
        lambda: os.chmod(secret, 0o777),
        lambda: os.utime(secret, (1, 1)),
        lambda: secret.with_name("new").write_text("x"),
        lambda: Path("/dev/shm", asked["marker"]).write_text("x"),
        lambda: Path("/tmp", asked["marker"]).write_text("x"),
        lambda: Path("/var/tmp", asked["marker"]).write_text("x"),
        lambda: syscall(number(29, 194), asked["key"], ctypes.c_size_t(4096), 0o1600),
        lambda: syscall(number(240, 180), asked["marker"].encode(), 0o102, 0o600, None),
    ):
        try:
            attempt()
        except OSError:
            continue


def look(asked: dict[str, Any]) -> dict[str, Any]:
    attempts = Looking(asked)
    names = [name for name in vars(Looking) if not name.startswith("_")]
    got: dict[str, Any] = {}
    for name in names:
        try:
            got[name] = getattr(attempts, name)()
        except (OSError, AttributeError, KeyError) as error:
            got[name] = None
            sys.stderr.write(f"{name}: {error}\n")
    return got


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fork_bomb(_: dict[str, Any]) -> None:
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


def count_forks(_: dict[str, Any]) -> None:
    """How many children may live at a time, up to 100."""
    count = 0
    try:
        while count < 100:
            if os.fork() == 0:
                time.sleep(60)
            count += 1
    except OSError:
        pass
    say(str(count))


def memory_bomb(_: dict[str, Any]) -> None:
    held = []
    while True:
        held.append(bytearray(b"x") * (8 << 20))


def memory_bomb_of_many(_: dict[str, Any]) -> None:
    for _child in range(6):
        if os.fork() == 0:
            held = bytearray(b"x") * (40 << 20)
            time.sleep(60)
            del held
    time.sleep(60)


def disk_fill(_: dict[str, Any]) -> None:
    block = b"x" * (1 << 20)
    for serial in range(10_000):
        with open(f"f{serial}", "wb", buffering=0) as file:
            for _block in range(4):
                file.write(block)


def disk_fill_without_names(_: dict[str, Any]) -> None:
    block = b"x" * (1 << 20)
    held: list[int] = []
    while True:
        held.append(os.memfd_create("x") if len(held) % 2 else os.open("f", os.O_CREAT | os.O_RDWR))
        if len(held) % 2:
            os.unlink("f")
        for _block in range(4):
            os.write(held[-1], block)


def many_files(_: dict[str, Any]) -> None:
    for serial in range(10_000_000):
        os.close(os.open(f"f{serial}", os.O_CREAT | os.O_WRONLY))


def deep_folders(_: dict[str, Any]) -> None:
    for _level in range(10_000_000):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
        Path("f").write_bytes(b"x" * 10_000)


def open_files(_: dict[str, Any]) -> None:
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        say(str(len(held)))


def output_flood(_: dict[str, Any]) -> None:
    while True:
        os.write(1, b"x" * 65_536)


def sleep(_: dict[str, Any]) -> None:
    Path("started").touch()
    time.sleep(600)


def spin(_: dict[str, Any]) -> None:
    while True:
        pass


def spin_many(_: dict[str, Any]) -> None:
    """Processor time in pieces, each of a process that is gone before its own limit."""
    while True:
        if (pid := os.fork()) == 0:
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass
            os._exit(0)
        os.waitpid(pid, 0)


def daemon(_: dict[str, Any]) -> None:
    """A process that leaves its session, its parent, its terminal and its output, and hears nothing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number_ in range(1, 32):
                if number_ not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number_, signal.SIG_IGN)
            os.closerange(0, 3)
            time.sleep(600)
        os._exit(0)
    os.wait()
    say("left")


def daemon_that_holds_the_output(asked: dict[str, Any]) -> None:
    if os.fork() == 0:
        os.setsid()
        subprocess.run([sys.executable, "-I", "-S", __file__, "sleep", json.dumps(asked)], check=False)
    say("left")


def map_shared(_: dict[str, Any]) -> None:
    """Memory that belongs to no process alone."""
    held = mmap.mmap(-1, 400 << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(60)


def main() -> None:
    asked = json.loads(sys.argv[2])
    if sys.argv[1] in ("look", "all"):
        say(json.dumps(look(asked)))
        if sys.argv[1] == "all":
            leave_traces(asked)
        return
    havoc: Callable[[dict[str, Any]], None] = globals()[sys.argv[1]]
    havoc(asked)


if __name__ == "__main__":
    main()
