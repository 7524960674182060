"""Root keys are the owner's alone, rotate without a pause, and are trusted no longer once they are retired."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, SecurityError
from chimera.security.biscuits import public_of
from chimera.security.capability_keys import MAX_KEYS, REREAD_S, KeyFolder, PublicKeys


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1.0)


@pytest.fixture
def keys(tmp_path: Path, clock: ManualClock) -> KeyFolder:
    return KeyFolder(tmp_path / "deep" / "keys", clock=clock)


def test_a_new_folder_holds_one_key_for_the_owner_alone(keys: KeyFolder) -> None:
    key_id, private = keys.signing_key()
    assert key_id == 1 and keys.public_key(1) == public_of(private)
    assert keys.path.stat().st_mode & 0o777 == 0o700
    assert [(file.name, file.stat().st_mode & 0o777) for file in keys.path.iterdir()] == [("capability-1.key", 0o600)]


def test_another_process_sees_new_and_retired_keys(keys: KeyFolder, clock: ManualClock) -> None:
    other = KeyFolder(keys.path, clock=clock)
    assert other.signing_key() == keys.signing_key()
    assert keys.rotate() == 2 and other.signing_key()[0] == 1
    clock.advance(REREAD_S)
    assert other.signing_key() == keys.signing_key() and other.public_key(1) == keys.public_key(1)
    keys.retire(1)
    assert keys.public_key(1) is None
    clock.advance(REREAD_S)
    assert other.public_key(1) is None and other.public_key(2) is not None


def test_an_id_is_never_used_twice_and_the_key_that_signs_stays(keys: KeyFolder) -> None:
    with pytest.raises(InputError, match="rotate first"):
        keys.retire(1)
    keys.rotate()
    keys.retire(1)
    assert keys.rotate() == 3
    with pytest.raises(InputError, match="unknown"):
        keys.retire(1)


def test_two_that_rotate_at_once_make_two_keys(keys: KeyFolder, clock: ManualClock) -> None:
    other = KeyFolder(keys.path, clock=clock)
    assert keys.rotate() == 2
    assert other._make(2) == 3  # as if it had not seen the other's
    assert sorted(file.name for file in keys.path.iterdir()) == [f"capability-{n}.key" for n in (1, 2, 3)]


def test_there_are_never_more_keys_than_the_limit(keys: KeyFolder) -> None:
    for _ in range(MAX_KEYS - 1):
        keys.rotate()
    with pytest.raises(SecurityError, match="retire"):
        keys.rotate()


@pytest.mark.parametrize(("name", "mode"), [("", 0o750), ("capability-1.key", 0o640), ("capability-1.key", 0o602)])
def test_what_others_can_read_or_write_is_refused(keys: KeyFolder, clock: ManualClock, name: str, mode: int) -> None:
    os.chmod(keys.path / name, mode)
    with pytest.raises(SecurityError, match="chmod"):
        KeyFolder(keys.path, clock=clock)


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_a_damaged_key_is_refused_by_name_and_without_its_text(keys: KeyFolder, clock: ManualClock, text: str) -> None:
    (keys.path / "capability-1.key").write_text(text)
    with pytest.raises(SecurityError, match=r"capability-1\.key holds no key") as refused:
        KeyFolder(keys.path, clock=clock)
    assert not text or text not in str(refused.value)


def test_secrets_are_in_no_repr_and_no_pickle(keys: KeyFolder) -> None:
    private = keys.signing_key()[1]
    assert private.hex() not in repr(keys) and repr(private) not in repr(keys)
    with pytest.raises(SecurityError, match="not sent about"):
        pickle.dumps(keys)
    public = pickle.loads(pickle.dumps(keys.public_keys()))
    assert public.public_key(1) == keys.public_key(1) and public.public_key(2) is None
    with pytest.raises(SecurityError, match="only public keys"):
        public.signing_key()
    with pytest.raises(InputError):
        PublicKeys({1: b"short"})


def test_without_biscuit_the_package_to_install_is_named() -> None:
    code = (
        "import sys; sys.modules['biscuit_auth'] = None\n"
        "from chimera.core.errors import MissingExtra\n"
        "from chimera.security.capabilities import CapabilityToken, contents\n"
        "try: contents(CapabilityToken('chcap1.x'))\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "biscuit-python is not installed: pip install 'chimera[security]'\n"
