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
    language: de
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
    assert account.identity == "bluesky:acme.example"
    (channel,) = channels([account]).values()
    assert channel.disclosure is not None and channel.disclosure.words == "KI-generiert." and channel.max_chars == 300


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("automated: true", "automated: false"),
        ("    automated: true\n", ""),
        ("KI-generiert.", "Enjoy."),
        ("KI-generiert.", '""'),
        ("KI-generiert.", "AIによる生成。"),
        ("language: de", "language: en"),
        ("language: de", "language: fr-CA"),
        ("language: de", "language: da"),
        ("https://bsky.social", "https://bsky.social:99999"),
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


@pytest.mark.parametrize("language", ["de", "de-AT", "da", "fr"])
def test_everybody_is_taken_to_read_english(tmp_path: Path, language: str) -> None:
    text = ONE.replace("KI-generiert.", "AI-generated.").replace("language: de", f"language: {language}")
    assert load(tmp_path, text)


@pytest.mark.parametrize(
    ("platform", "server", "handle"),
    [
        ("bluesky", "https://bsky.social", "acme.example."),
        ("bluesky", "https://amanita.us-east.host.bsky.network", "acme.example"),
        ("mastodon", "https://BÜCHER.example", "acme"),
        ("mastodon", "https://xn--bcher-kva.example:443/", "acme"),
        ("mastodon", "https://bücher.example.", "@ACME"),
        ("mastodon", "http://bücher.example:80", "acme"),
        ("mastodon", "https://xn--bcher-kva.example", "acme@xn--bcher-kva.example."),
    ],
)
def test_an_account_is_the_same_by_whatever_address(tmp_path: Path, platform: str, server: str, handle: str) -> None:
    usual = "https://bsky.social" if platform == "bluesky" else "https://bücher.example"
    name = "acme.example" if platform == "bluesky" else "acme"
    first = ONE.replace("platform: bluesky", f"platform: {platform}").replace("https://bsky.social", usual)
    first = first.replace("handle: acme.example", f"handle: {name}")
    second = first.replace("acme.bluesky", "acme.second").replace("bluesky.json", "second.json")
    second = second.replace(f"server: {usual}", f"server: {server}").replace(f"handle: {name}", f'handle: "{handle}"')
    with pytest.raises(Forbidden, match="the identity"):
        load(tmp_path, first + second)


def test_accounts_on_two_servers_of_mastodon_or_two_ports_are_two(tmp_path: Path) -> None:
    first = ONE.replace("platform: bluesky", "platform: mastodon").replace("handle: acme.example", "handle: acme")
    for server in ("https://other.example", "https://bsky.social:8443"):
        second = first.replace("acme.bluesky", "acme.second").replace("bluesky.json", "second.json")
        assert len(load(tmp_path, first + second.replace("https://bsky.social", server))) == 2


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
