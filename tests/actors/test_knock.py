"""Before Ray starts over TLS, its certificate is tried: Ray itself would try for minutes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from chimera.actors.knock import check_own_tls, keep_token_private
from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import ClusterError
from chimera.security.certificates import Certificate, make


@pytest.fixture(autouse=True)
def no_ray_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_USE_TLS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def use(monkeypatch: pytest.MonkeyPatch, certificate: Certificate, **changes: str) -> None:
    for name, value in {**certificate.environment(), **changes}.items():
        monkeypatch.setenv(name, value)


def test_a_good_certificate_passes_where_it_is_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_own_tls()  # no TLS, nothing to say
    use(monkeypatch, make(tmp_path, "node", ["10.0.1.5"], clock=SystemClock()))
    check_own_tls()
    check_own_tls("10.0.1.5")
    with pytest.raises(ClusterError, match=r"10\.0\.1\.6.*--renew"):
        check_own_tls("10.0.1.6")


def test_one_that_ended_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    past = ManualClock(SystemClock().now() - 3 * 86_400.0)
    use(monkeypatch, make(tmp_path, "node", [], clock=past, days=2))
    with pytest.raises(ClusterError, match=r"certificate has expired.*--renew"):
        check_own_tls()


def test_one_of_another_authority_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "node", [], clock=SystemClock())
    use(
        monkeypatch,
        make(tmp_path / "own", "node", [], clock=SystemClock()),
        RAY_TLS_CA_CERT=other.environment()["RAY_TLS_CA_CERT"],
    )
    with pytest.raises(ClusterError, match="--renew"):
        check_own_tls()


@pytest.mark.parametrize("name", ["RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"])
def test_a_file_that_is_missing_or_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    made = make(tmp_path, "node", [], clock=SystemClock())
    (tmp_path / "empty").touch()
    for path in (tmp_path / "nothing", tmp_path / "empty", tmp_path):
        use(monkeypatch, made, **{name: str(path)})
        with pytest.raises(ClusterError, match=f"{path}.*chimera certs make"):
            check_own_tls()
    monkeypatch.delenv(name)
    with pytest.raises(ClusterError, match=f"{name} is not set"):
        check_own_tls()


def test_the_token_of_an_own_ray_is_made_once_and_for_nobody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / ".ray" / "auth_token"
    for opted_out in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "t"}, {"RAY_AUTH_TOKEN_PATH": "/t"}):
        with monkeypatch.context() as patch:
            for name, value in opted_out.items():
                patch.setenv(name, value)
            keep_token_private()
    assert not path.exists()
    keep_token_private()
    made = path.read_text(encoding="ascii")
    assert len(made) == 64 and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)  # as Ray leaves it
    keep_token_private()
    assert (path.read_text(encoding="ascii"), stat.S_IMODE(path.stat().st_mode)) == (made, 0o600)
