"""Certificates for mutual TLS: what OpenSSL lets in, for how long, and what is never overwritten."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import InputError, SecurityError
from chimera.security.certificates import LOOPBACK, MAX_ADDRESSES, check, make

CLOCK = SystemClock()

DAY_S = 86_400.0


def shake(client: Path, server: Path, host: str) -> None:
    """A handshake of two nodes' folders, each of which asks for the other's certificate. Raises SSLError."""
    sides = []
    for folder, protocol in ((client, ssl.PROTOCOL_TLS_CLIENT), (server, ssl.PROTOCOL_TLS_SERVER)):
        context = ssl.SSLContext(protocol)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        sides.append(context)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = sides[0].wrap_bio(down, up, server_hostname=host)
    answers = sides[1].wrap_bio(up, down, server_side=True)
    for side in (asks, answers, asks, answers):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert asks.version() == answers.version() == "TLSv1.3"


def test_nodes_of_one_authority_let_one_another_in(tmp_path: Path) -> None:
    make(tmp_path, "head", ["10.0.1.5", "head.example"], clock=CLOCK)
    make(tmp_path, "workers", ["10.0.2.0/28"], clock=CLOCK)
    head, workers = tmp_path / "head", tmp_path / "workers"
    for host in ("10.0.1.5", "head.example", *LOOPBACK):
        shake(workers, head, host)
    for host in ("10.0.2.0", "10.0.2.7", "10.0.2.15"):
        shake(head, workers, host)
    for host in ("10.0.2.16", "10.0.1.5"):
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            shake(head, workers, host)


def test_a_certificate_of_another_authority_is_refused_by_both(tmp_path: Path) -> None:
    for home in ("ours", "theirs"):
        make(tmp_path / home, "node", [], clock=CLOCK)
    ours, theirs = tmp_path / "ours" / "node", tmp_path / "theirs" / "node"
    with pytest.raises(ssl.SSLError, match="verify failed"):
        shake(ours, theirs, "127.0.0.1")
    (theirs / "ca.pem").write_bytes((ours / "ca.pem").read_bytes())  # they believe us; we do not believe them
    with pytest.raises(ssl.SSLError, match="verify failed"):
        shake(theirs, ours, "127.0.0.1")


def test_a_node_is_no_authority(tmp_path: Path) -> None:
    """What a node's key signs is worth nothing: whoever steals it cannot make others."""
    from cryptography import x509

    made = make(tmp_path, "node", [], clock=CLOCK)
    node, authority = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (made.path, tmp_path / "ca.pem"))
    limits = [one.extensions.get_extension_for_class(x509.BasicConstraints).value for one in (node, authority)]
    assert [(limit.ca, limit.path_length) for limit in limits] == [(False, None), (True, 0)]
    uses = [one.extensions.get_extension_for_class(x509.KeyUsage).value for one in (node, authority)]
    assert [(use.digital_signature, use.key_cert_sign) for use in uses] == [(True, False), (False, True)]


def test_keys_are_private_and_the_authoritys_stays(tmp_path: Path) -> None:
    made = make(tmp_path / "certs", "node", [], clock=CLOCK)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "certs").rglob("*key.pem")}
    assert modes == {"ca-key.pem": 0o600, "key.pem": 0o600}
    assert {p.name for p in made.path.parent.iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
    assert (tmp_path / "certs").stat().st_mode & 0o777 == 0o700


def test_nothing_is_overwritten_without_renew(tmp_path: Path) -> None:
    make(tmp_path, "node", ["10.0.1.5"], clock=CLOCK)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    with pytest.raises(InputError, match="--renew"):
        make(tmp_path, "node", [], clock=CLOCK)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pem")} == before
    renewed = make(tmp_path, "node", [], clock=CLOCK, renew=True)
    changed = {path.name for path, data in before.items() if path.read_bytes() != data}
    assert changed == {"cert.pem", "key.pem"} and renewed.addresses == 1 + len(LOOPBACK)
    shake(tmp_path / "node", tmp_path / "node", "10.0.1.5")
    assert make(tmp_path, "node", ["10.0.1.6", "10.0.1.7"], clock=CLOCK, renew=True).addresses == 2 + len(LOOPBACK)


def test_they_end_and_it_is_said_when(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    make(tmp_path, "short", [], clock=clock, days=2)
    make(tmp_path, "long", [], clock=clock, days=3_650)
    clock.advance(3 * DAY_S)
    make(tmp_path, "later", [], clock=clock, days=3_650)
    found = {one.node: one.days_left(clock) for one in check(tmp_path)}
    assert list(found) == ["short", "", "later", "long"]
    assert found["short"] == pytest.approx(-1) and found[""] == pytest.approx(3_647)
    assert found["later"] == found[""], "none outlives its authority"
    clock.advance(3_650 * DAY_S)
    with pytest.raises(InputError, match="another folder"):
        make(tmp_path, "too-late", [], clock=clock)


def test_a_stray_certificate_or_key_is_found(tmp_path: Path) -> None:
    for home, node in (("ours", "a"), ("ours", "b"), ("ours", "c"), ("theirs", "x")):
        make(tmp_path / home, node, [], clock=CLOCK)
    ours = tmp_path / "ours"
    (ours / "b" / "cert.pem").write_bytes((tmp_path / "theirs" / "x" / "cert.pem").read_bytes())
    (ours / "c" / "key.pem").write_bytes((ours / "a" / "key.pem").read_bytes())
    assert {one.node: one.trusted for one in check(ours)} == {"": True, "a": True, "b": False, "c": False}
    (ours / "a" / "key.pem").unlink()  # it has been moved to its node
    assert {one.node: one.trusted for one in check(ours)}["a"] is True


@pytest.mark.parametrize("node", ["", "Head", "../x", "a/b", ".", "ca.pem", "x" * 64, "-a", "é"])
def test_a_node_has_a_plain_name(tmp_path: Path, node: str) -> None:
    with pytest.raises(InputError, match="--node"):
        make(tmp_path, node, [], clock=CLOCK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address", ["", "10.0.0.256", "10.0.1.5/24", "10.0.0.0/8", "2001:db8::/64", "a b", "a..b", "*.example", "1.2.3"]
)
def test_addresses_that_are_none_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="--address"):
        make(tmp_path, "node", [address], clock=CLOCK)
    assert list(tmp_path.iterdir()) == []


def test_one_certificate_has_so_many_addresses_at_most(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most"):
        make(tmp_path, "node", [f"10.0.{n}.0/21" for n in range(0, 24, 8)], clock=CLOCK)
    assert make(tmp_path, "node", ["10.0.0.0/20"], clock=CLOCK).addresses == MAX_ADDRESSES + len(LOOPBACK)


def test_an_authority_that_others_read_or_that_is_half_there_signs_nothing(tmp_path: Path) -> None:
    make(tmp_path, "node", [], clock=CLOCK)
    (tmp_path / "ca-key.pem").chmod(0o640)
    with pytest.raises(SecurityError, match="other users"):
        make(tmp_path, "more", [], clock=CLOCK)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(InputError, match="authority's key"):
        make(tmp_path, "more", [], clock=CLOCK)
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InputError, match=r"ca\.pem"):
        check(tmp_path)
    with pytest.raises(InputError, match="chimera certs make"):
        check(tmp_path / "nowhere")
