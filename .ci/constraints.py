"""Writes and checks `constraints.txt`, the exact version of everything that `pip install -e '.[all]'` brings in.

The file names versions and nothing else (no index, no path, no local build such as `+cpu`), so that it serves every
mirror. Its header holds a digest of what `pyproject.toml` asks for: `check` needs neither a network nor pip.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "# pyproject: "
TIMEOUT_S = 900


def digest(pyproject: Path) -> str:
    """A digest of the tables that decide what is installed, whatever the order of names in a table."""
    project = tomllib.loads(pyproject.read_text())["project"]
    asked = {name: project.get(name) for name in ("requires-python", "dependencies", "optional-dependencies")}
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()


def clean(lines: list[str]) -> list[str]:
    """The `name==version` lines alone, without comments, options, this project's own path or a local version."""
    pins = [re.sub(r"\+[A-Za-z0-9.]+", "", line.partition("#")[0].strip()) for line in lines]
    return sorted(pin for pin in pins if "==" in pin)


def write(options: list[str]) -> int:
    """Resolves with pip-compile, keeping the pins there are unless `options` say `--upgrade`."""
    constraints = ROOT / "constraints.txt"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "constraints.txt"
        if constraints.exists():
            out.write_text(constraints.read_text())
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--extra=all", "--strip-extras"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--no-emit-trusted-host", f"--output-file={out}", *options, "pyproject.toml"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            sys.stderr.write(done.stderr)
            return done.returncode
        pins = clean(out.read_text().splitlines())
    header = [
        "# The versions that Chimera is tested with, for `pip install -c`. Written by `make lock`; do not edit.",
        f"{MARK}{digest(ROOT / 'pyproject.toml')}",
    ]
    constraints.write_text("\n".join([*header, *pins]) + "\n")
    print(f"constraints.txt: {len(pins)} packages")
    return 0


def check() -> int:
    """0 when constraints.txt was written for the pyproject.toml that stands beside it, else 1."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    if f"{MARK}{digest(ROOT / 'pyproject.toml')}" in lines:
        return 0
    sys.stderr.write("constraints.txt was made for another pyproject.toml: run `make lock`\n")
    return 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check"]:
            sys.exit(check())
        case ["write", *options]:
            sys.exit(write(options))
        case _:
            sys.exit("usage: constraints.py check | write [pip-compile options]")
