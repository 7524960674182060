"""A file of accounts says who answers for each, and what it cannot say is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from chimera.content.accounts import channels, load_accounts, load_credentials
from chimera.core.errors import Forbidden, InputError

ONE = """
  - name: acme.bluesky
    platform: bluesky
    server: https://bsky.social
    handle: acme.example
    operator: {name: Acme GmbH, contact: press@acme.example}
    brand: Acme
    automated: true
    disclosure: KI-generiert.
    quiet: {begins: "22:00", ends: "07:00"}
    time_zone: Europe/Berlin
    credentials: bluesky.json
"""


def load(folder: Path, text: str) -> dict[str, object]:
    path = folder / "accounts.yaml"
    path.write_text("accounts:" + text)
    return dict(load_accounts(path))


def test_a_file_is_read_with_its_paths_beside_it(tmp_path: Path) -> None:
    load(tmp_path, ONE)
    account = load_accounts(tmp_path / "accounts.yaml")["acme.bluesky"]
    assert account.credentials == tmp_path / "bluesky.json"
    assert account.identity == "bluesky:bsky.social:acme.example"
    (channel,) = channels([account]).values()
    assert channel.disclosure is not None and channel.disclosure.words == "KI-generiert." and channel.max_chars == 300


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("automated: true", "automated: false"),
        ("    automated: true\n", ""),
        ("KI-generiert.", "Enjoy."),
        ("KI-generiert.", '""'),
        ("    operator: {name: Acme GmbH, contact: press@acme.example}\n", ""),
        ("contact: press@acme.example", "contact: nowhere"),
        ("brand: Acme", "brand: Acme\n    caps: {per_hour: 13}"),
        ("brand: Acme", "brand: Acme\n    disclose: false"),
        ("brand: Acme", "brand: Acme\n    handle: other.example"),
        ("Europe/Berlin", "Europe/Atlantis"),
        ("Europe/Berlin", "../etc/passwd"),
        ("name: acme.bluesky", "name: ../acme"),
        ('"07:00"', '"22:00"'),
        ("    credentials: bluesky.json\n", ""),
    ],
)
def test_what_a_file_cannot_say(tmp_path: Path, old: str, new: str) -> None:
    assert old in ONE
    with pytest.raises(InputError):
        load(tmp_path, ONE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("acme.bluesky", "acme.second"),
        ("handle: acme.example", 'handle: "@ACME.example"'),
        ("handle: acme.example", "handle: other.example"),
    ],
    ids=["another name, the same handle", "the same handle, spelt otherwise", "the same credentials"],
)
def test_two_accounts_do_not_share_an_identity(tmp_path: Path, old: str, new: str) -> None:
    second = ONE.replace("acme.bluesky", "acme.second").replace(old, new)
    with pytest.raises(Forbidden):
        load(tmp_path, ONE + second)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_credentials_are_their_owner_s_alone(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret.json"
    path.write_text('{"secret": "abc"}')
    path.chmod(mode)
    with pytest.raises(Forbidden, match="chmod 600"):
        load_credentials(path)
    path.chmod(0o600)
    assert load_credentials(path).secret.get_secret_value() == "abc"
    path.write_text('{"secret": 5, "hidden-word": 1}')
    with pytest.raises(InputError) as told:
        load_credentials(path)
    assert "hidden-word" not in str(told.value)
