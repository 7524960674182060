"""Pictures: labelled whatever is asked, described, within limits; what comes from outside is not trusted."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from chimera.content.create.brief import Brief, Source
from chimera.content.create.budget import ItemBudget
from chimera.content.create.create import Created
from chimera.content.create.item import Claim, Item, Judgement
from chimera.content.create.team import Plan
from chimera.content.media.alt import MAX_CHARS, check_alt
from chimera.content.media.card import Card, draw_card
from chimera.content.media.chart import Chart, draw_chart
from chimera.content.media.label import BAND, INK, WORDS, band_height_px, label_words
from chimera.content.media.picture import ImageLimits, finished, opened
from chimera.content.media.store import MediaFolder
from chimera.content.media.studio import Studio
from chimera.content.provenance.c2pa import Identity, SourceType, State, verify
from chimera.content.provenance.certificates import own_credentials
from chimera.content.provenance.registry import Registry
from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import BudgetExceeded, InputError, ModelOutage, ModelSilent, NotThere, StorageError
from chimera.llm.account import Cap, Caps
from chimera.llm.images import ImageRequest, MeteredImages, OpenAIImages
from chimera.llm.meter import Meter
from chimera.llm.prices import Prices

FACT = "Solar generation rose by 24% in the first half of the year, the agency said."
CHART = Chart(title="Price in $ of $GPU", labels=("2023", "2024"), values=(3.5, 8.0), source="Weekly", source_id="s1")


def noise(wide: int, high: int) -> Image.Image:
    drawn = np.random.default_rng(1).integers(0, 255, (high, wide, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def band_of(data: bytes) -> Image.Image:
    image = opened(data).convert("RGB")
    high = band_height_px(*image.size)
    return image.crop((image.width // 2, image.height - high, image.width, image.height))


def is_labelled(data: bytes) -> bool:
    """Half of the lower edge is the band, with the label's white letters in it."""
    pixels = np.asarray(band_of(data), dtype=int)
    dark = (np.abs(pixels - BAND).max(axis=2) < 40).mean()
    white = (np.abs(pixels - INK).max(axis=2) < 60).mean()
    return bool(dark > 0.6 and 0.02 < white < 0.4)


def test_every_picture_bears_the_label() -> None:
    pictures = [
        draw_card(Card(body=FACT, source="Weekly")),
        draw_chart(CHART),
        finished(Image.new("RGB", (300, 900), "white"), alt="white", source_type=SourceType.MODEL),
        finished(noise(300, 600), alt="noise", source_type=SourceType.MODEL),
    ]
    assert all(is_labelled(picture.data) for picture in pictures)
    assert not is_labelled(png(Image.new("RGB", (300, 300), "white"))) and not is_labelled(png(noise(300, 300)))


@pytest.mark.parametrize("language", ["", "xx", "en", "de-AT", "FR", *WORDS])
def test_there_are_words_for_the_label_in_every_language(language: str) -> None:
    assert label_words(language) in WORDS.values()


def test_a_picture_too_small_for_its_label_is_none() -> None:
    with pytest.raises(InputError, match="no room for its label"):
        finished(Image.new("RGB", (90, 90)), alt="tiny", source_type=SourceType.ALGORITHM)


def test_a_picture_is_made_to_fit() -> None:
    limits = ImageLimits(max_bytes=200_000, max_side_px=1_500)
    made = finished(noise(900, 1_600), alt="noise", source_type=SourceType.MODEL, limits=limits)
    assert len(made.data) <= 200_000 and max(made.width, made.height) <= 1_500 and made.media_type == "image/jpeg"
    assert opened(made.data).size == (made.width, made.height)


def test_alternative_text_says_what_is_drawn() -> None:
    card, chart = draw_card(Card(heading="Solar", body=FACT, source="Weekly")), draw_chart(CHART)
    assert FACT in card.alt and "Source: Weekly" in card.alt
    assert all(
        word in chart.alt for word in ("Bar chart", "Price in $ of $GPU", "2023 3.5", "2024 8", "Source: Weekly")
    )
    many = Chart(
        title="Many", kind="line", labels=tuple(map(str, range(400))), values=tuple(map(float, range(400))), source="x"
    )
    long = draw_chart(many).alt
    assert len(long) <= MAX_CHARS and "400 values" in long and "last 399 399" in long


@pytest.mark.parametrize("text", ["", "  \n ", "…!", "x" * (MAX_CHARS + 1)])
def test_there_is_no_picture_without_alternative_text(text: str) -> None:
    with pytest.raises(InputError, match="alternative text"):
        check_alt(text)
    with pytest.raises(InputError, match="alternative text"):
        finished(Image.new("RGB", (300, 300)), alt=text, source_type=SourceType.ALGORITHM)


def test_letters_that_cannot_be_drawn_are_told() -> None:
    with pytest.raises(InputError, match=r"U\+592A"):
        draw_card(Card(body="太陽 power"))
    draw_card(Card(body="Grün, süß, ελληνικά, русский – “fine” €5"))


def test_words_that_do_not_fit_are_refused_and_long_ones_broken() -> None:
    draw_card(Card(body="W" * 90))
    with pytest.raises(InputError, match="do not fit"):
        draw_card(Card(heading="H " * 60, body="W" * 400, source="S" * 200))


def test_a_dollar_sign_is_money_and_no_formula() -> None:
    draw_chart(CHART.model_copy(update={"title": r"From $\nope to 9$ a share", "labels": ("$\\a$", "$b$")}))


def test_a_chart_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="labels for"):
        Chart(title="t", labels=("a", "b"), values=(1, 2, 3), source="x")
    with pytest.raises(ValueError, match="too many to read"):
        Chart(title="t", labels=("a",) * 31, values=(1.0,) * 31, source="x")
    with pytest.raises(ValueError, match="finite"):
        Chart(title="t", labels=("a", "b"), values=(1, float("nan")), source="x")


def test_nothing_but_pixels_is_taken_from_outside() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "Jane Private")
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "Jane Private's garden", 6
    tall = Image.new("RGB", (300, 200), "white")
    for data in (png(tall, pnginfo=notes, exif=exif), png(tall, format="JPEG", exif=exif)):
        assert b"Jane" in data
        image = opened(data)
        made = finished(image, alt="a garden", source_type=SourceType.MODEL)
        assert image.size == (200, 300) and not image.info and b"Jane" not in made.data and b"Exif" not in made.data


def _claims(wide: int, high: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1_000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_claims(50_000, 50_000), "pixels"),
        (_claims(7_000, 7_000), "pixels"),
        (_claims(800, 800), "no picture"),
        (png(noise(200, 200))[:5_000], "no picture"),
        (b"GIF89a" + b"\0" * 100, "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"", "bytes"),
    ],
)
def test_bombs_and_what_is_no_picture_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        opened(data)


def test_the_folder_keeps_bytes_under_their_digest(tmp_path: Path) -> None:
    folder, picture = MediaFolder(tmp_path / "media"), draw_card(Card(body=FACT))
    media = folder.put(picture)
    assert folder.put(picture) == media and folder.get(media.ref) == picture.data
    for name in ("../../etc/passwd", "0" * 64 + ".png", ""):
        with pytest.raises(NotThere):
            folder.get(name)
    folder.path(media).write_bytes(picture.data[:-1])
    with pytest.raises(StorageError, match="was changed"):
        folder.get(media.ref)


class ImageServer:
    """An images interface as OpenAI's, on a free port: answers with `body` and `status`, keeps what came."""

    def __init__(self) -> None:
        self.body: bytes = json.dumps(
            {"data": [{"b64_json": base64.b64encode(png(noise(512, 512))).decode()}]}
        ).encode()
        self.status = 200
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append((self.path, self.headers.get("Authorization", ""), sent))
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.model = OpenAIImages(
            "stub:image",
            model="pictures-1",
            base_url=f"http://127.0.0.1:{self.http.server_address[1]}/v1",
            api_key="sk-test",
            timeout_s=10,
        )


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


async def test_an_image_model_is_asked_and_paid(server: ImageServer) -> None:
    meter = Meter(
        Prices.of({"stub:*": {"input": 0, "output": 0, "call": 0.03}}), Caps(mission=Cap(usd=0.05)), ManualClock(1)
    )
    model = MeteredImages(server.model, meter)
    made = await model.image(ImageRequest(prompt="a sun"))
    assert opened(made.data).size == (512, 512) and made.cost_usd == 0.03
    path, key, sent = server.asked[0]
    assert (path, key) == ("/v1/images/generations", "Bearer sk-test")
    assert sent == {
        "model": "pictures-1",
        "prompt": "a sun",
        "n": 1,
        "size": "1024x1024",
        "response_format": "b64_json",
    }
    with pytest.raises(BudgetExceeded):
        await model.image(ImageRequest(prompt="another"))
    assert len(server.asked) == 1
    await model.close()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b'{"data": [{"url": "http://127.0.0.1:9/x.png"}]}', ModelSilent),
        (200, b"[" * 5_000, ModelSilent),
        (200, b'{"data": [{"b64_json": "@@"}]}', ModelSilent),
        (503, b"{}", ModelOutage),
    ],
)
async def test_what_an_image_server_says_is_not_believed(
    server: ImageServer, status: int, body: bytes, error: type[Exception]
) -> None:
    server.status, server.body = status, body
    with pytest.raises(error):
        await server.model.image(ImageRequest(prompt="a sun"))
    assert len(server.asked) == 1
    await server.model.close()


BRIEF = Brief(
    id="b1",
    topic="solar power",
    sources=(Source(id="s1", url="https://example.org/a", title="Weekly", quote=FACT),),
    chart=CHART,
)
PRICED = Prices.of({"stub:*": {"input": 0, "output": 0, "call": 0.03}})


def created(kind: Any) -> Created:
    item = Item(
        brief_id="b1",
        kind=kind,
        language="en",
        parts=(f"“{FACT}”",),
        claims=(Claim(text=FACT, source_ids=("s1",), quote=FACT),),
        judged=Judgement(opinions=(), drafts=1, agreed=True),
        confidence=0.9,
        cost_usd=0.0,
        model="m",
        prompts="1",
    )
    return Created(item=item, plan=Plan(kind=kind, source_ids=("s1",)))


def studio(tmp_path: Path, model: OpenAIImages | None = None) -> tuple[Studio, MediaFolder, Registry, str]:
    folder, registry = MediaFolder(tmp_path / "media"), Registry(tmp_path / "registry.db", clock=SystemClock())
    credentials = own_credentials(tmp_path / "keys", operator="Acme", clock=SystemClock())
    identity = Identity(account="@bot@example.social", operator="Acme")
    made = Studio(folder=folder, registry=registry, credentials=credentials, identity=identity, image_model=model)
    return made, folder, registry, credentials.anchor


@pytest.mark.parametrize("kind", ["image post", "chart post", "post"])
async def test_the_studio_draws_signs_keeps_and_registers(tmp_path: Path, kind: str) -> None:
    maker, folder, registry, anchor = studio(tmp_path)
    budget = ItemBudget("b1", prices=PRICED, clock=ManualClock(1))
    done = await maker.illustrate(created(kind), BRIEF, budget=budget)
    assert done.note == "" and registry.find_text(f"“{FACT}”")[0].item_id == done.item.id
    assert len(done.item.media) == (kind != "post")
    for media in done.item.media:
        data = folder.get(media.ref)
        found = verify(data, media.media_type, anchors=anchor)
        assert found.state is State.TRUSTED and found.source_type == "algorithmicMedia" and is_labelled(data)
        assert found.identity and found.identity.account == "@bot@example.social" and media.alt
        assert registry.find(data)[0].item_id == done.item.id
    registry.close()


async def test_a_models_picture_is_labelled_and_says_so(tmp_path: Path, server: ImageServer) -> None:
    maker, folder, registry, anchor = studio(tmp_path, server.model)
    budget = ItemBudget("b1", prices=PRICED, clock=ManualClock(1))
    done = await maker.illustrate(created("image post"), BRIEF, budget=budget)
    data = folder.get(done.item.media[0].ref)
    assert verify(data, done.item.media[0].media_type, anchors=anchor).source_type == "trainedAlgorithmicMedia"
    assert is_labelled(data) and done.item.cost_usd == 0.03 and "No people" in server.asked[0][2]["prompt"]
    poor = ItemBudget("b1", prices=PRICED, clock=ManualClock(1), cap_usd=0.01)
    card = await maker.illustrate(created("image post"), BRIEF, budget=poor)
    assert "no picture by stub:image" in card.note and FACT in card.item.media[0].alt and card.item.cost_usd == 0.0
    assert len(server.asked) == 1
    await server.model.close()
    registry.close()


async def test_a_picture_that_cannot_be_drawn_leaves_a_post(tmp_path: Path) -> None:
    maker, _, registry, _ = studio(tmp_path)
    budget = ItemBudget("b1", prices=PRICED, clock=ManualClock(1))
    done = await maker.illustrate(created("image post"), BRIEF.model_copy(update={"topic": "太陽"}), budget=budget)
    assert done.item.kind == "post" and not done.item.media and "U+592A" in done.note
    registry.close()


def test_drawing_is_the_same_each_time() -> None:
    seed = random.Random(3)
    card = Card(body=" ".join(seed.choices(FACT.split(), k=12)))
    assert draw_card(card).data == draw_card(card).data
