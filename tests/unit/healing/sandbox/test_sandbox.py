"""What a sandbox is for: commands run as they would elsewhere, within what they are given."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from chimera.core.errors import InputError, SandboxUnavailable
from chimera.healing.sandbox import Limits, Sandbox, open_sandbox, opening
from chimera.healing.sandbox.bwrap import Bwrap
from chimera.healing.sandbox.disk import held, remove_tree
from chimera.healing.sandbox.landlock import Landlock
from chimera.healing.sandbox.seccomp import program

ROOT = Path(__file__).parents[4]


@pytest.fixture(params=[Bwrap, Landlock])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    try:
        made: Sandbox = request.param()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return made


async def test_what_goes_in_and_what_comes_out(sandbox: Sandbox, tmp_path: Path) -> None:
    code = """
import os, pathlib, sys, tempfile
text = sys.stdin.buffer.read()
pathlib.Path("sub").mkdir(); pathlib.Path("sub/out").write_bytes(text[:3]); pathlib.Path("sub/touched").touch()
tempfile.TemporaryFile().write(b"x")
print(len(text), os.environ["ASKED"], sorted(os.environ)); print("no", file=sys.stderr); sys.exit(7)
"""
    big = b"abc" * 100_000
    argv = [sys.executable, "-c", code]
    result = await sandbox.run(argv, folder=tmp_path, env={"ASKED": "yes"}, stdin=big)
    said = f"300000 yes {['ASKED', 'HOME', 'LANG', 'PATH', 'TMPDIR', 'USER']}\n"
    assert (result.exit_code, result.stdout.decode(), result.stderr) == (7, said, b"no\n")
    assert (result.signal, result.killed_for, result.timed_out, result.truncated) == (None, None, False, False)
    assert 0 < result.cpu_s < 20
    assert (tmp_path / "sub/out").read_bytes() == b"abc"
    assert (tmp_path / "sub/touched").stat().st_uid == os.getuid()


async def test_pytest_runs_in_it(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import asyncio, shutil, threading, subprocess, sys\n"
        "def test_loop(tmp_path):\n    assert asyncio.run(asyncio.sleep(0, 1)) == 1\n"
        "def test_copy(tmp_path):\n    shutil.copy2(__file__, tmp_path / 'x')\n"
        "def test_child():\n    assert subprocess.run([sys.executable, '-c', ''], check=True)\n"
        "def test_thread():\n    t = threading.Thread(target=print); t.start(); t.join()\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    result = await sandbox.run(argv, folder=tmp_path)
    assert result.exit_code == 0, result
    assert b"4 passed" in result.stdout


async def test_a_signal_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    result = await sandbox.run([sys.executable, "-c", code], folder=tmp_path)
    assert (result.exit_code, result.signal) == (None, signal.SIGTERM)


async def test_a_program_that_is_not_there_ends_with_127(sandbox: Sandbox, tmp_path: Path) -> None:
    result = await sandbox.run(["no-such-program"], folder=tmp_path)
    assert result.exit_code == 127
    assert b"no-such-program" in result.stderr


async def test_readable_is_read_and_not_written(sandbox: Sandbox, tmp_path: Path) -> None:
    extra, folder = tmp_path / "extra", tmp_path / "folder"
    extra.mkdir()
    folder.mkdir()
    (extra / "file").write_text("in")
    argv = ["/bin/sh", "-c", f"cat {extra}/file; echo out > {extra}/file"]
    without = await sandbox.run(argv, folder=folder)
    assert without.stdout == b""
    result = await sandbox.run(argv, folder=folder, readable=[extra])
    assert result.stdout == b"in"
    assert (extra / "file").read_text() == "in"


@pytest.mark.parametrize("wrong", ["/", "/etc", "/proc/self", "{home}", "{tmp}/none"])
async def test_what_must_stay_out_of_reach_is_refused(sandbox: Sandbox, tmp_path: Path, wrong: str) -> None:
    path = Path(wrong.format(home=Path.home(), tmp=tmp_path))
    with pytest.raises(InputError):
        await sandbox.run(["true"], folder=path)
    with pytest.raises(InputError):
        await sandbox.run(["true"], folder=tmp_path, readable=[path])


async def test_nothing_runs_when_the_walls_cannot_be_put_up(tmp_path: Path) -> None:
    try:
        sandbox = Bwrap()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    sandbox._bwrap = str(tmp_path / "bwrap")
    with pytest.raises(SandboxUnavailable, match="no namespaces here"):
        await sandbox.run(["/bin/sh", "-c", "touch ran"], folder=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["bwrap", "landlock"])
def test_a_sandbox_is_tried_before_it_is_given(name: str) -> None:
    try:
        found = open_sandbox(name)  # type: ignore[arg-type]
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert found.name == name


def test_walls_that_leak_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(Landlock):
        def __init__(self) -> None:
            super().__init__()
            self._program = program(())  # an empty filter: nothing is refused by number

    monkeypatch.setattr(opening, "KINDS", {"landlock": Leaky})
    with pytest.raises(SandboxUnavailable, match="landlock: "):
        open_sandbox()


def test_without_any_sandbox_each_cause_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(opening.KINDS, "landlock", lambda: Landlock(abi=2))
    with pytest.raises(
        SandboxUnavailable, match=r"bwrap: bwrap is not installed.*landlock: the kernel has no Landlock"
    ):
        open_sandbox()


AS_ANOTHER = """
import asyncio, sys, tempfile
from pathlib import Path
from chimera.healing.sandbox import Limits, open_sandbox
sandbox = open_sandbox(sys.argv[1])
forks = "import os, time\\nwhile True:\\n    os.write(1, b'x') if os.fork() else time.sleep(60)"
with tempfile.TemporaryDirectory() as folder:
    argv = [sys.executable, "-I", "-S", "-c", forks]
    print(len(asyncio.run(sandbox.run(argv, folder=Path(folder), limits=Limits(processes=20))).stdout))
"""


@pytest.mark.parametrize("name", ["bwrap", "landlock"])
def test_an_ordinary_user_has_them_too(name: str) -> None:
    """With the system's Python, as a user who owns nothing, and whose processes the kernel counts."""
    python = shutil.which("python3", path="/usr/bin")
    if os.getuid() != 0 or python is None:
        pytest.skip("needs root, to become another user, and the system's Python")
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c"]
    env = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}", "PATH": os.environ["PATH"]}
    if subprocess.run([*become, "import chimera.core.types"], env=env, capture_output=True, check=False).returncode:
        pytest.skip("that user cannot read these packages, or that Python cannot use them")
    done = subprocess.run([*become, AS_ANOTHER, name], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 10 <= int(done.stdout) <= 19


def test_a_hostile_tree_is_removed_whole(tmp_path: Path) -> None:
    kept, tree = tmp_path / "kept", tmp_path / "tree"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree.mkdir()
    (tree / "link").symlink_to(kept)
    top = here = os.open(tree, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        if here != top:
            os.close(here)
        here = below
    os.mkdir("locked", 0o000, dir_fd=here)
    os.close(here)
    os.close(top)
    assert held(tree) == float("inf"), "too deep to look through counts as full"
    remove_tree(tree)
    assert not tree.exists()
    assert (kept / "file").read_text() == "x"


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="memory_bytes"):
        Limits(memory_bytes=0)
