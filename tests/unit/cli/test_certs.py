"""`chimera certs`: what it prints is what Ray needs, and its exit code says whether something ends."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from typer.testing import CliRunner, Result

from chimera.cli.main import app


def chimera(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_it_prints_what_a_shell_and_ray_need(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    done = chimera("certs", "make", "--home", str(home), "--node", "head", "--address", "10.0.1.5")
    assert done.exit_code == 0, done.output
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [word for word, _ in words] == ["export"] * 4
    environment = dict(pair.split("=", 1) for _, pair in words)
    assert environment.pop("RAY_USE_TLS") == "1"
    for name, path in environment.items():
        kind = "PRIVATE KEY" if name == "RAY_TLS_SERVER_KEY" else "CERTIFICATE"
        assert f"BEGIN {kind}" in Path(path).read_text(encoding="ascii")
        assert Path(path).parent == home / "certs" / "head"
    assert "PRIVATE" not in done.output


def test_the_default_home_is_the_settings(home: Path) -> None:
    done = chimera("certs", "make", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert Path(told["path"]) == home / "certs" / "node" / "cert.pem" and told["addresses"] == 3
    assert set(told["environment"]) == {
        "RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"
    }  # fmt: skip
    again = chimera("certs", "make", "--json")
    assert again.exit_code == 2 and "--renew" in again.output
    assert chimera("certs", "make", "--renew").exit_code == 0


def test_the_exit_code_says_whether_one_ends(home: Path) -> None:
    nothing = chimera("certs", "check")
    assert nothing.exit_code == 2 and "chimera certs make" in nothing.output
    assert chimera("certs", "make", "--node", "head", "--days", "40").exit_code == 0
    good = chimera("certs", "check")
    assert good.exit_code == 0, good.output
    assert [line.split()[0] for line in good.stdout.splitlines()] == ["head", "authority"]
    ending = chimera("certs", "check", "--days", "41", "--json")
    assert ending.exit_code == 1
    said = [json.loads(line) for line in ending.stdout.splitlines()]
    assert [(one["node"], one["says"]) for one in said] == [("head", "ends soon"), ("", "good")]


def test_a_stray_certificate_is_named(home: Path) -> None:
    assert chimera("certs", "make", "--node", "a").exit_code == 0
    assert chimera("certs", "make", "--node", "b", "--home", str(home / "other")).exit_code == 0
    stray = (home / "other" / "certs" / "b" / "cert.pem").read_bytes()
    (home / "certs" / "a" / "cert.pem").write_bytes(stray)
    done = chimera("certs", "check")
    assert done.exit_code == 1 and "not of this authority" in done.stdout
