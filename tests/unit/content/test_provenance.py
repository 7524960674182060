"""Credentials that hold until a pixel changes, and a registry that knows the picture after that."""

from __future__ import annotations

import io
import itertools
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from chimera.content.media.card import Card, draw_card
from chimera.content.media.chart import Chart, draw_chart
from chimera.content.media.picture import Picture, opened
from chimera.content.provenance.c2pa import Identity, Provenance, SourceType, State, sign, verify
from chimera.content.provenance.certificates import Credentials, own_credentials, read_credentials
from chimera.content.provenance.likeness import RADIUS, distance, likeness
from chimera.content.provenance.registry import Registry
from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import InputError, SecurityError, StorageError

IDENTITY = Identity(account="@bot@example.social", operator="Acme")
WORDS = (
    "solar power rose fell agency report price market wind half year record energy growth 24% plant city voted".split()
)


def provenance(kind: SourceType = SourceType.ALGORITHM) -> Provenance:
    return Provenance(title="Solar", source_type=kind, identity=IDENTITY)


@cache
def card(seed: int) -> Picture:
    draw = random.Random(seed)
    body = " ".join(draw.choices(WORDS, k=draw.randint(8, 22)))
    return draw_card(Card(heading=" ".join(draw.choices(WORDS, k=2)), body=body, source="Energy Weekly"))


def jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return own_credentials(tmp_path_factory.mktemp("keys"), operator="Acme", clock=SystemClock())


@pytest.mark.parametrize("kind", SourceType)
@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg"])
def test_what_is_signed_is_read_back(credentials: Credentials, kind: SourceType, media_type: str) -> None:
    data = card(1).data if media_type == "image/png" else jpeg(opened(card(1).data), 80)
    signed = sign(data, media_type, provenance(kind), credentials)
    found = verify(signed, media_type, anchors=credentials.anchor)
    assert found.state is State.TRUSTED and not found.failures
    assert (found.identity, found.title, found.issuer, found.source_type) == (IDENTITY, "Solar", "Acme", kind.value)
    assert found.generator == "chimera 0.1.0" and len(signed) - len(data) < 10_000
    assert opened(signed).tobytes() == opened(data).tobytes()


def test_an_authority_that_is_not_trusted_is_said_so(credentials: Credentials, tmp_path: Path) -> None:
    signed = sign(card(1).data, "image/png", provenance(), credentials)
    other = own_credentials(tmp_path, operator="Other", clock=SystemClock())
    for anchors in ("", other.anchor):
        found = verify(signed, "image/png", anchors=anchors)
        assert found.state is State.VALID and found.failures == ("signingCredential.untrusted",)


def test_a_changed_pixel_is_found(credentials: Credentials) -> None:
    signed = bytearray(sign(card(1).data, "image/png", provenance(), credentials))
    at = signed.rindex(b"IDAT") + 4_000
    signed[at] ^= 1
    found = verify(bytes(signed), "image/png", anchors=credentials.anchor)
    assert found.state is State.INVALID and "assertion.dataHash.mismatch" in found.failures


def test_another_identity_in_the_manifest_is_found(credentials: Credentials) -> None:
    signed = sign(card(1).data, "image/png", provenance(), credentials)
    forged = signed.replace(b"@bot@example.social", b"@who@example.social")
    assert forged != signed
    assert verify(forged, "image/png", anchors=credentials.anchor).state is State.INVALID


def test_a_copy_that_was_encoded_anew_has_none(credentials: Credentials) -> None:
    signed = sign(card(1).data, "image/png", provenance(), credentials)
    assert verify(jpeg(opened(signed), 90), "image/jpeg").state is State.NONE
    assert verify(b"junk", "image/png").state is State.INVALID


def test_what_cannot_be_signed_is_told(credentials: Credentials) -> None:
    with pytest.raises(InputError, match="cannot be signed"):
        sign(b"junk", "image/png", provenance(), credentials)
    with pytest.raises(InputError, match="not for"):
        sign(card(1).data, "image/gif", provenance(), credentials)


def test_certificates_that_have_ended_sign_nothing(tmp_path: Path) -> None:
    long_ago = ManualClock(SystemClock().now() - 500 * 86_400)
    ended = own_credentials(tmp_path, operator="Acme", clock=long_ago)
    with pytest.raises((SecurityError, InputError)):
        sign(card(1).data, "image/png", provenance(), ended)
    renewed = own_credentials(tmp_path, operator="Acme", clock=SystemClock())
    assert renewed.anchor == ended.anchor and renewed.chain != ended.chain
    sign(card(1).data, "image/png", provenance(), renewed)


def test_keys_are_private_and_made_once(tmp_path: Path) -> None:
    made: list[Credentials] = []

    def make() -> None:
        made.append(own_credentials(tmp_path / "keys", operator="Acme", clock=SystemClock()))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.chain for one in made}) == 1 and "PRIVATE" not in repr(made[0])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {"authority.pem": 0o600, "signer.pem": 0o600, "anchor.pem": 0o644}
    assert "PRIVATE" not in (tmp_path / "keys" / "anchor.pem").read_text()


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    own_credentials(tmp_path, operator="Acme", clock=SystemClock())
    (tmp_path / "signer.pem").chmod(0o644)
    with pytest.raises(SecurityError, match="other users"):
        own_credentials(tmp_path, operator="Acme", clock=SystemClock())


def test_an_operators_own_has_to_fit(tmp_path: Path) -> None:
    one = own_credentials(tmp_path / "a", operator="Acme", clock=SystemClock())
    other = own_credentials(tmp_path / "b", operator="Acme", clock=SystemClock())
    for text, why in (
        (one.key + other.chain, "not that of"),
        (one.key + one.anchor, "not that of"),
        ("x", "has to hold"),
    ):
        path = tmp_path / "own.pem"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(InputError, match=why):
            read_credentials(path)
    authority = tmp_path / "a" / "authority.pem"
    with pytest.raises(InputError, match="usage"):
        read_credentials(authority)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db", clock=ManualClock(7.0))


@pytest.mark.parametrize("quality", [50, 65, 80, 95])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_copy_encoded_anew_is_recognised(
    registry: Registry, credentials: Credentials, quality: int, scale: float
) -> None:
    for seed in range(4):
        signed = sign(card(seed).data, "image/png", provenance(), credentials)
        registry.record(f"item-{seed}", "@bot", pictures=(signed,))
    for seed in range(4):
        image = opened(card(seed).data)
        copy = jpeg(image.resize((int(image.width * scale), int(image.height * scale))), quality)
        found = registry.find(copy)
        assert [one.item_id for one in found] == [f"item-{seed}"]
        assert found[0].how == "alike" and found[0].account == "@bot" and found[0].at_s == 7.0
    registry.close()


def _pictures(count: int) -> list[Picture]:
    draw = random.Random(5)
    charts = [
        draw_chart(
            Chart(title="t", labels=tuple("abcdef"), values=tuple(draw.uniform(1, 9) for _ in "abcdef"), source="s")
        )
        for _ in range(count // 5)
    ]
    return [*charts, *map(card, range(count - len(charts)))]


def _separated(count: int) -> tuple[int, int]:
    """The farthest copy and the nearest other picture, in bits."""
    images = [opened(picture.data) for picture in _pictures(count)]
    hashes = [likeness(image) for image in images]
    copies = [
        distance(hashes[place], likeness(Image.open(io.BytesIO(jpeg(image.resize(size), quality)))))
        for place, image in enumerate(images)
        for quality in (50, 95)
        for size in (image.size, (image.width // 2, image.height // 2))
    ]
    return max(copies), min(distance(*pair) for pair in itertools.combinations(hashes, 2))


def test_copies_are_near_and_others_far() -> None:
    farthest, nearest = _separated(15)
    assert farthest <= RADIUS // 2 and nearest > RADIUS


@pytest.mark.soak
def test_copies_are_near_and_others_far_among_many() -> None:
    farthest, nearest = _separated(200)
    assert farthest < RADIUS < nearest, (farthest, nearest)


def test_strangers_and_plain_pictures_are_not_found(registry: Registry) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (400, 400), "red").save(plain, "PNG")
    registry.record("item-1", "@bot", pictures=(card(1).data, plain.getvalue()))
    assert registry.find(card(2).data) == ()
    blue = io.BytesIO()
    Image.new("RGB", (400, 400), "blue").save(blue, "PNG")
    assert registry.find(blue.getvalue()) == ()
    assert registry.find(plain.getvalue())[0].how == "same"
    with pytest.raises(InputError):
        registry.find(b"junk")
    registry.close()


def test_texts_are_found_whatever_their_form(registry: Registry) -> None:
    assert registry.record("item-1", "@bot", texts=("Solar  rose by 24%.\n",)) == 1
    assert registry.record("item-1", "@bot", texts=("Solar rose by 24%.",)) == 0
    assert registry.find_text("SOLAR rose\u00a0by 24%.")[0].item_id == "item-1"
    assert registry.find_text("Solar rose by 42%.") == ()
    registry.close()


CHILD = """
import sys
from pathlib import Path
from chimera.content.provenance.registry import Registry
from chimera.core.clock import SystemClock
registry = Registry(Path(sys.argv[1]), clock=SystemClock())
for n in range(10**6):
    registry.record(f"item-{n}", "@bot", texts=(f"text {n}", f"other {n}"))
    print(n, flush=True)
"""


def test_what_was_recorded_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    told = [int(next(child.stdout)) for _ in range(30)][-1]
    os.kill(child.pid, signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout if line.endswith("\n"))])
    child.wait()
    registry = Registry(path, clock=SystemClock())
    assert all(registry.find_text(f"text {n}") and registry.find_text(f"other {n}") for n in range(told + 1))
    registry.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM made").fetchone()[0] % 2 == 0  # an item whole or not at all


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StorageError, match="another program"):
        Registry(path, clock=SystemClock())
