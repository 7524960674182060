"""A hotkey is loaded as Bittensor's own tools wrote it, or not at all; what went wrong is said without a secret."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import bittensor_core
import pytest

from chimera.arena.validators.wallet import MAX_KEYFILE_BYTES, DevelopmentKey, open_hotkey
from chimera.core.errors import InputError
from tests.unit.arena.validators.fake_substrate import bittensor_home  # noqa: F401 - a fixture

SEED = "5d" * 32

KEYPAIR = bittensor_core.Keypair.create_from_seed(bytes.fromhex(SEED))

MNEMONIC = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"


ENCRYPTED = base64.b64decode(
    "JE5BQ0xQW2HGMbQ7ugruLXbve+RQ0hH56IAyNnylTNvfLZusEieGxXt3qlVB2xURJv6IyZCJrGW4I/m3pIfBZKv5+tdNAEv2mK628ppVRoTFgW"
    "K19GKVgHEQX9K3rpoZIkqbZjlS62P+sf/5VnrznQUrhYlzXc0/D4v4pTRzmHiNpRHltXnaQKPFLhqu86PtrxcbJCJi3ZpSVhMWdYj9SVNZWpa/"
    "VNMPvlKp9ucyO7+hz6AqgaBjgHI+0FvhxRT4zllJ7Ol31a96s7g/Z2xOWu8HNtREJyxEwuxr1+q/Z9Uc3178RvayR/zPx+ZTItpOEXUzuk7uLK"
    "yPAfkJ0kbP6wTM2eB8teZ4EyFC0G89wM9AtDLL/iwhIjo8f4s+gBjBODm18cJls2WV9coYQGoIvxZxlPsFerYyUHZFd5uL7UfrVB9ZjKnIpkX/"
    "pT8bFwBJJjK4HVs9sKU6RQYQzcdGcm4+Q1s1UG3XkXFOk+SFLSpyVcMWAyETx0XXP0KjrAXpAp2yfSOUSeT0Z/jel7PTpgsMHb4Ug0bSvU/2kV"
    "d75sN2mBUBBEapFcGqnTvTeKfiKMCr/hGjzQCcO7eoJ+luqH+jV5ZVE7xLzJ8rTftHytytCRU18lvrRtLRxI0Y+4s2fTHTvqRc7CB6BXbqADlJ"
    "viio8e0rbJiJkr+rTGxbKAnMG499"
)
"""KEYPAIR as bittensor 11 wrote it under the password `right`. Each opening takes seconds, by design."""


def keyfile(keypair: bittensor_core.Keypair) -> bytes:
    return bytes(bittensor_core.serialized_keypair_to_keyfile_data(keypair))


def put(folder: Path, data: bytes, name: str = "h1") -> Path:
    path = folder / "w1" / "hotkeys" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def signs(keypair: bittensor_core.Keypair) -> bool:
    return bool(KEYPAIR.verify(b"message", keypair.sign(b"message")))


@pytest.mark.parametrize("data", [keyfile(KEYPAIR), f"0x{SEED}".encode()])
def test_a_wallet_and_a_file_give_the_same_key(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / ".bittensor" / "wallets", data)
    monkeypatch.setenv("HOME", str(tmp_path))
    for keypair in (
        open_hotkey("w1/h1"),
        open_hotkey("w1/h1", wallets=tmp_path / ".bittensor" / "wallets"),
        open_hotkey(f"file:{path}"),
        open_hotkey("file:~/.bittensor/wallets/w1/hotkeys/h1"),
    ):
        assert keypair.ss58_address == KEYPAIR.ss58_address
        assert signs(keypair)


@pytest.mark.usefixtures("bittensor_home")
def test_what_bittensor_writes_is_read(tmp_path: Path) -> None:
    from bittensor.wallet import Wallet

    wallet = Wallet("cold name", "h.1", path=str(tmp_path))
    wallet.regenerate_hotkey(seed=SEED, suppress=True)
    assert signs(open_hotkey("cold name/h.1", wallets=tmp_path))


def test_an_encrypted_key_needs_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, ENCRYPTED)
    with pytest.raises(InputError, match="not its password") as wrong:
        open_hotkey(f"file:{path}", password="wr0ng")
    assert "wr0ng" not in str(wrong.value) and wrong.value.__suppress_context__
    with pytest.raises(InputError, match="is encrypted"):
        open_hotkey(f"file:{path}")

    variable = "BT_PW_" + str(path).replace("/", "_").replace(".", "_").upper()
    monkeypatch.setenv(variable, "right")
    with pytest.raises(InputError, match="save_password_to_environment"):
        open_hotkey(f"file:{path}")
    bittensor_core.save_password_to_environment(variable, "right")
    assert signs(open_hotkey(f"file:{path}"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a Bittensor keyfile"),
        (b"\xff\xfe\x00", "not a Bittensor keyfile"),
        (f"seed {SEED}".encode(), "not a Bittensor keyfile"),
        (b'{"secretSeed": "0x%s"}' % SEED[:-2].encode(), "not a Bittensor keyfile"),
        (b'{"secretPhrase": "%s walk"}' % MNEMONIC.encode(), "not a Bittensor keyfile"),
        (keyfile(bittensor_core.Keypair.create_from_seed(bytes.fromhex(SEED), 0)), "not an sr25519 key"),
        (keyfile(bittensor_core.Keypair(ss58_address=KEYPAIR.ss58_address)), "public key only"),
        (b" " * (MAX_KEYFILE_BYTES + 1), "too long"),
    ],
)
def test_what_is_no_hotkey_is_refused_without_its_content(tmp_path: Path, data: bytes, said: str) -> None:
    path = put(tmp_path, data)
    with pytest.raises(InputError, match=said) as refused:
        open_hotkey(f"file:{path}")
    told = str(refused.value)
    assert SEED[:16] not in told and "bottom drive" not in told
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "spec",
    [
        MNEMONIC,
        f"0x{SEED}",
        f"{MNEMONIC}//hard",
        "",
        "w1",
        "w1/",
        "/h1",
        "../w1/h1",
        "w1/../../x",
        "w1/.",
        "w\0/h1",
        "a/b/c",
    ],
)
def test_what_names_no_hotkey_is_refused_and_not_repeated(tmp_path: Path, spec: str) -> None:
    with pytest.raises(InputError, match="WALLET/HOTKEY") as refused:
        open_hotkey(spec, wallets=tmp_path)
    assert len(spec) < 8 or spec not in str(refused.value)


def test_a_missing_hotkey_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w1/hotkeys/h1"):
        open_hotkey("w1/h1", wallets=tmp_path)
    (tmp_path / "w1" / "hotkeys" / "h1").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        open_hotkey("w1/h1", wallets=tmp_path)


def test_a_development_key_warns() -> None:
    with pytest.warns(DevelopmentKey, match="anybody can sign"):
        alice = open_hotkey("//Alice")
    assert alice.ss58_address == "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    with pytest.warns(DevelopmentKey):
        assert open_hotkey("//Alice//stash").ss58_address == "5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY"


@pytest.mark.parametrize("uri", ["//", "///password", "//Alice///password", "//a b", "//a/b"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InputError, match="such as //Alice"):
        open_hotkey(uri)


def test_nothing_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, keyfile(KEYPAIR))
    before = sorted(os.walk(tmp_path))
    open_hotkey(f"file:{path}")
    assert sorted(os.walk(tmp_path)) == before
    assert capfd.readouterr() == ("", "")
