"""Keys stay where they are and whose they are: files that others can read, words that others signed, copies."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError, SecurityError
from chimera.treasury.keys import FileKey, Keyring, approve, public_key, signed
from chimera.treasury.types import NANO, Approval, CfoDecision, PaymentRequest, Signed

REQUEST = PaymentRequest(
    id="r1", debit="cash", credit="acme", amount=NANO, category="any", requester="worker-1", expires_at=2**53
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def decision(key: FileKey, **fields: object) -> CfoDecision:
    told = {"request_id": "r1", "request_digest": REQUEST.digest(), "at": 5, "verdict": "approved", "risk": 0.25}
    return signed(CfoDecision.model_validate({**told, **fields}), key)


def approval(key: FileKey, who: str) -> Approval:
    return approve(REQUEST, approver=who, key=key, at=5, expires_at=10)


def test_a_key_comes_back_from_its_file_and_its_file_is_for_nobody_else(folder: Path) -> None:
    key = FileKey.create(folder / "cfo-1.pem", "cfo-1")
    again = FileKey.open(folder / "cfo-1.pem")
    assert (again.key_id, again.public) == ("cfo-1", key.public)
    assert again.sign(b"x") == key.sign(b"x") and len(key.sign(b"x")) == 64
    assert (folder / "cfo-1.pem").stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(InputError, match="never written over"):
        FileKey.create(folder / "cfo-1.pem", "cfo-2")
    assert FileKey.open(folder / "cfo-1.pem").public == key.public


def test_a_passphrase_is_asked_for(folder: Path) -> None:
    key = FileKey.create(folder / "k.pem", "cfo-1", "open sesame")
    assert FileKey.open(folder / "k.pem", "open sesame").public == key.public
    for wrong in ("", "sesame"):
        with pytest.raises(SecurityError, match="passphrase"):
            FileKey.open(folder / "k.pem", wrong)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_or_a_folder_that_others_can_open_is_refused(folder: Path, mode: int) -> None:
    file = folder / "k.pem"
    FileKey.create(file, "cfo-1")
    file.chmod(mode)
    with pytest.raises(SecurityError, match="can be read by others"):
        FileKey.open(file)
    file.chmod(0o600)
    folder.chmod(mode | 0o100)
    with pytest.raises(SecurityError, match="can be read by others"):
        FileKey.open(file)
    with pytest.raises(SecurityError, match="can be read by others"):
        FileKey.create(folder / "other.pem", "cfo-2")
    folder.chmod(0o700)
    assert FileKey.open(file).key_id == "cfo-1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_file_is_refused(folder: Path) -> None:
    FileKey.create(folder / "k.pem", "cfo-1")
    os.chown(folder / "k.pem", 12345, 12345)
    with pytest.raises(SecurityError, match="another user's"):
        FileKey.open(folder / "k.pem")


def test_what_is_no_key_is_refused(folder: Path) -> None:
    key = FileKey.create(folder / "k.pem", "cfo-1")
    text = (folder / "k.pem").read_text()
    for bad in (
        "",
        text.replace("key-id", "id"),
        text[: len(text) // 2],
        "key-id: x\n" * 2_000,
        "key-id: a b\n" + text,
    ):
        (folder / "k.pem").write_text(bad)
        with pytest.raises((SecurityError, InputError)):
            FileKey.open(folder / "k.pem")
    (folder / "k.pem").unlink()
    (folder / "k.pem").symlink_to(folder / "elsewhere.pem")
    (folder / "elsewhere.pem").write_text(text)
    with pytest.raises(SecurityError):
        FileKey.open(folder / "k.pem")
    assert key.public


def test_a_key_is_not_pickled_copied_or_shown(folder: Path) -> None:
    key = FileKey.create(folder / "k.pem", "cfo-1")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SecurityError, match="stays in its process"):
            attempt(key)
    secret = key._private.private_bytes_raw()
    assert secret.hex() not in repr(key) and key.public.hex() in repr(key)
    assert secret not in (folder / "k.pem").read_bytes()


def test_a_decision_is_the_cfos_and_an_approval_its_approvers(folder: Path) -> None:
    cfo, ann, bob, old = (FileKey.create(folder / f"{name}.pem", f"{name}-1") for name in ("cfo", "ann", "bob", "old"))
    ring = Keyring(
        cfo={"cfo-1": cfo.public, "old-1": old.public},
        people={"ann": {"ann-1": ann.public}, "bob": {"bob-1": bob.public}},
    )
    assert ring.verify(decision(cfo)) and ring.verify(approval(ann, "ann")) and ring.verify(approval(bob, "bob"))
    assert ring.verify(decision(old)), "what an old key has signed stays good"
    for word in (
        decision(ann),
        decision(cfo).model_copy(update={"key_id": "old-1"}),
        decision(cfo).model_copy(update={"risk": 0.5}),
        decision(cfo).model_copy(update={"signature": ""}),
        decision(cfo).model_copy(update={"signature": "0" * 128}),
        approval(cfo, "ann"),
        approval(ann, "bob"),
        approval(ann, "cho"),
        approval(ann, "ann").model_copy(update={"verdict": "refused"}),
        approval(ann, "ann").model_copy(update={"approver": "bob"}),
    ):
        assert not ring.verify(word), word
        assert not ring.verify(word), "nor the second time"


def test_a_signature_of_one_kind_of_word_is_none_of_another(folder: Path) -> None:
    key = FileKey.create(folder / "k.pem", "k-1")
    ring = Keyring(cfo={"k-1": key.public})
    bare = signed(Signed(request_id="r1", request_digest=REQUEST.digest(), at=5), key)
    assert not ring.verify(bare)
    assert not ring.verify(decision(key).model_copy(update={"signature": bare.signature}))


@given(st.data())
def test_no_changed_word_is_good(data: st.DataObject) -> None:
    key = FILE_KEY
    ring = Keyring(cfo={key.key_id: key.public})
    word = decision(key)
    assert ring.verify(word)
    field = data.draw(st.sampled_from(["request_id", "request_digest", "at", "verdict", "risk", "signature"]))
    other = {
        "request_id": st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
        "request_digest": st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        "at": st.integers(0, 2**53),
        "verdict": st.sampled_from(["approved", "ask", "refused"]),
        "risk": st.floats(0, 1),
        "signature": st.from_regex(r"[0-9a-f]{128}", fullmatch=True),
    }[field]
    changed = word.model_copy(update={field: data.draw(other)})
    assert ring.verify(changed) == (changed == word)


def test_one_key_is_not_two_people(folder: Path) -> None:
    key = FileKey.create(folder / "k.pem", "k-1")
    with pytest.raises(InputError, match="the same key"):
        Keyring(cfo={"k-1": key.public}, people={"ann": {"a": key.public}})
    with pytest.raises(InputError, match="the same key"):
        Keyring(cfo={}, people={"ann": {"a": key.public}, "bob": {"b": key.public}})
    Keyring(cfo={}, people={"ann": {"a": key.public, "b": key.public}})


def test_what_is_no_public_key_is_refused() -> None:
    for text in ("", "00", "zz" * 32, "00" * 33):
        with pytest.raises(InputError, match="32 bytes in hex"):
            public_key(text)
    with pytest.raises(InputError, match="32 bytes"):
        Keyring(cfo={"a": b"short"})


def _made() -> FileKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return FileKey("cfo-1", Ed25519PrivateKey.from_private_bytes(b"k" * 32))


FILE_KEY = _made()
