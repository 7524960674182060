"""Real servers for tests: a Redis and a PostgreSQL of their own, on free ports of 127.0.0.1, ended by their pid.

A machine without them skips the tests that need them; `.ci/run` installs them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

START_S = 30.0
PASSWORD = "s3cret/p@ss word"
ESCAPED_PASSWORD = "s3cret%2Fp%40ss%20word"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process with a folder and a port that outlive it: it can be killed and started again."""

    END = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="chs"))  # short: sockets have at most 107 characters
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def user(self) -> str | None:
        """Who it must run as, if not as we do."""
        return None

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, more than once if the one that was killed has not let go of everything yet."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                with (self.folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self.user(), cwd="/"
                    )
            if self.answers():
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.command()[0]} does not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """kill -9, as a crash would end it: with its children, as PostgreSQL's answer for a moment without it."""
        children = self._children()
        self.signal(signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _children(self) -> list[int]:
        if self._process is None:
            return []
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> None:
        self.signal(self.END)
        shutil.rmtree(self.folder, ignore_errors=True)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_S)


class RedisServer(Server):
    """Durable unless `options` say otherwise, with a password."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options or ("--appendonly", "yes", "--appendfsync", "always")

    def url(self, database: int = 0) -> str:
        return f"redis://:{ESCAPED_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        return [
            find("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""),
            *("--requirepass", PASSWORD, *self._options),
        ]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%b\r\nPING\r\n" % (len(PASSWORD), PASSWORD.encode()))
                answer = b""
                while answer.count(b"\r\n") < 2 and (part := connection.recv(100)):
                    answer += part
                return b"+PONG" in answer  # while it reads its files it says -LOADING
        except OSError:
            return False


class PostgresServer(Server):
    """A cluster with one superuser, `chimera`, and a password. It survives kill -9; no power cut, to be faster."""

    END = signal.SIGQUIT  # without a last checkpoint

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self._binaries = str(binaries[-1]) if binaries else None
        find("initdb", self._binaries)
        super().__init__()
        data, secret = self.folder / "data", self.folder / "secret"
        secret.write_text(PASSWORD)
        if user := self.user():
            for path in (self.folder, secret):
                shutil.chown(path, user)
        command = [find("initdb", self._binaries), "--no-sync", "-D", str(data), "-U", "chimera", "-E", "UTF8"]
        command += ["--locale=C", "-A", "scram-sha-256", "--pwfile", str(secret)]
        subprocess.run(command, check=True, capture_output=True, user=self.user(), cwd="/")

    def url(self, schema: str = "public") -> str:
        """The database, in which `schema` stands for a database of its own."""
        base = f"postgresql://chimera:{ESCAPED_PASSWORD}@127.0.0.1:{self.port}/postgres"
        return f"{base}?options=-csearch_path%3D{schema}"

    def new_url(self, schema: str) -> str:
        """That of a schema which is made for it."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return self.url(schema)

    def user(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None  # PostgreSQL does not run as root

    def command(self) -> list[str]:
        data = str(self.folder / "data")
        options = ["-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder), "-c", "fsync=off"]
        return [find("postgres", self._binaries), "-D", data, *options]

    def answers(self) -> bool:
        asked = [find("pg_isready", self._binaries), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0


def find(program: str, folder: str | None = None) -> str:
    """Where `program` is; the test is skipped if it is nowhere."""
    path = shutil.which(program, path=folder) or shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed (apt-get install redis-server postgresql)")
    return path
