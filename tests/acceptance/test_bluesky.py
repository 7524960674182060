"""Publishing at a real personal data server of the AT Protocol: npm's @atproto/dev-env, on Node 20.

The server listens on all interfaces, so it runs in a network namespace of its own, and the tests with it: from outside,
this file only starts itself there. It needs root (`unshare -n`), node, and the package in a folder:

    npm install --prefix ~/.cache/chimera/atproto-dev-env @atproto/dev-env@0.3.215
    pytest -m soak tests/acceptance/test_bluesky.py

CHIMERA_ATPROTO names another folder. Without any of it the test is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chimera.content.publish.types import Claim, PostState, outputs, part_key, record_key
from chimera.core.clock import ManualClock
from tests.unit.content.publish_house import START_S, House, at, picture, post

INSIDE = "CHIMERA_INSIDE_NAMESPACE"
FOLDER = Path(os.environ.get("CHIMERA_ATPROTO", "~/.cache/chimera/atproto-dev-env")).expanduser()
ROOT = Path(__file__).parents[2]
HANDLE = "acmenews.test"
SERVER = """
const { TestNetworkNoAppView } = require('@atproto/dev-env')
;(async () => {
  const net = await TestNetworkNoAppView.create({})
  const account = { handle: '%s', email: 'acme@example.test', password: 'app-password' }
  await net.pds.getClient().api.com.atproto.server.createAccount(account)
  console.log(JSON.stringify({ url: net.pds.url }))
  process.stdin.on('close', () => process.exit(0))
  process.stdin.resume()
})().catch((error) => { console.error(error); process.exit(1) })
"""
pytestmark = pytest.mark.soak
inside = pytest.mark.skipif(INSIDE not in os.environ, reason="runs in the namespace, which another test makes")


@pytest.mark.skipif(INSIDE in os.environ, reason="this is the namespace")
def test_at_a_real_server_in_a_namespace_of_its_own() -> None:
    if not (FOLDER / "node_modules/@atproto/dev-env").exists() or shutil.which("node") is None or os.geteuid() != 0:
        pytest.fail("needs root, node and @atproto/dev-env: see the head of this file")
    pytest_inside = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "soak", __file__]
    command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *pytest_inside]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {INSIDE: "1"}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert "3 passed" in done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    # As a file in the folder, so that node finds the package there.
    script = FOLDER / "server.cjs"
    script.write_text(SERVER % HANDLE)
    node = subprocess.Popen(["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    assert node.stdin is not None
    try:
        yield next(json.loads(line)["url"] for line in node.stdout if line.startswith('{"url"'))
    finally:
        node.stdin.close()
        node.wait(20)


def records(server: str) -> list[dict[str, Any]]:
    query = {"repo": HANDLE, "collection": "app.bsky.feed.post", "limit": "100"}
    answer = httpx.get(f"{server}/xrpc/com.atproto.repo.listRecords", params=query)
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


@inside
async def test_a_thread_with_a_picture_goes_out_labelled_and_comes_down(tmp_path: Path, server: str) -> None:
    house = House(tmp_path, [at("bluesky", server, tmp_path, handle=HANDLE)])
    parts = ("The museum has put its ship logs online: https://example.org/logs #history", "The oldest is from 1794.")
    handed = await house.submit(post(parts, by="acme.bluesky", media=(picture(tmp_path, data=PNG),)))
    (sent,) = await house.sender.tick()
    assert sent.state is PostState.SENT, sent.message
    reply, first = sorted((one["value"] for one in records(server)), key=lambda one: "embed" in one)
    assert all(one["text"].startswith("AI-generated.\n\n") for one in (first, reply))
    assert first["labels"]["values"][0]["val"] == "bot"
    assert first["embed"]["images"][0]["alt"] == "A garden with chairs under trees"
    assert {one["features"][0]["$type"] for one in first["facets"]} == {
        "app.bsky.richtext.facet#link",
        "app.bsky.richtext.facet#tag",
    }
    entry = house.ledger.entry(handed.key)
    assert f"{reply['reply']['parent']['uri']}#{reply['reply']['parent']['cid']}" == entry.references[0]
    for _ in range(2):
        await house.sender.take_down(handed.key, by="alice", why="a test")
    assert records(server) == []
    await house.close()


@inside
async def test_a_second_creation_under_the_same_key_is_no_second_post(tmp_path: Path, server: str) -> None:
    """What a sender does that was killed before it recorded, and did not even look."""
    clock = ManualClock(START_S)
    house = House(tmp_path, [at("bluesky", server, tmp_path, handle=HANDLE)], clock=clock)
    before = len(records(server))
    one = post("The zoo has a new pond, with thirty geese on it.", by="acme.bluesky")
    handed = await house.submit(one)
    entry = house.ledger.claim(handed.key)
    assert entry is not None
    (output,) = outputs(one, house.accounts[one.account])
    publisher = house.publishers["acme.bluesky"]
    first = await publisher.publish(house.gateway.review(output), audience="public")
    again = await publisher.publish(house.gateway.review(output), audience="public")
    assert again.partition("#")[0] == first.partition("#")[0] and len(records(server)) == before + 1
    claim = Claim(key=part_key(handed.key, 0), at_s=START_S)
    assert record_key(claim) in first and await publisher.find(claim) == first
    (found,) = await house.sender.tick()
    assert found.state is PostState.SENT and len(records(server)) == before + 1
    await house.close()


@inside
async def test_what_is_not_there_is_not_found(tmp_path: Path, server: str) -> None:
    house = House(tmp_path, [at("bluesky", server, tmp_path, handle=HANDLE)])
    assert await house.publishers["acme.bluesky"].find(Claim(key="nothing.0", at_s=START_S)) == ""
    await house.close()
