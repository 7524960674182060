"""What follows from what happens in a queue: audit entries, reputations and notices, whoever looks after it."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.review.outcomes import Outcome
from chimera.review.policy import ReviewPolicy, WebhookTarget
from chimera.review.types import Item
from chimera.security.audit_entry import public_key_path, read_public_key
from chimera.security.audit_verify import verify
from chimera.swarm.reputation import Belief, summary
from chimera.system.review import ReviewDesk, appraise, open_desk, read_policy
from tests.unit.review.made import POLICY, proposal


async def decided(desk: ReviewDesk, *keys: str) -> None:
    for key in keys:
        asked = await desk.queue.ask(proposal(key, agents=("poet",), subject="write"))
        assert isinstance(asked, Item)
        await desk.queue.reject(asked.id, "ann", "it says password=hunter2hunter2")


def entries(home: Path) -> list[dict[str, object]]:
    files = sorted((home / "review" / "main" / "audit").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


async def test_every_event_is_in_the_audit_log_once_whoever_writes_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    async with open_desk(settings, policy=POLICY) as one, open_desk(settings, policy=POLICY) as other:
        await decided(one, "a", "b")
        counts = await asyncio.gather(one.record(), other.record())
        assert sum(counts) == 4
        await decided(other, "c")
        assert await one.record() == 2
        assert await other.record() == 0
    found = entries(tmp_path)
    assert [each["action"] for each in found] == ["review.asked", "review.decided"] * 3
    assert [each["actor"] for each in found] == ["writer", "ann"] * 3
    assert [each["outcome"] for each in found] == ["person", "rejected"] * 3
    assert "hunter2" not in str(found)
    folder = tmp_path / "review" / "main" / "audit"
    key = read_public_key(public_key_path(folder))
    assert verify(folder, folder.with_name("audit-anchors"), key).ok


async def test_what_people_decide_moves_a_reputation_once(tmp_path: Path) -> None:
    beliefs: dict[str, dict[str, Belief]] = {}

    def told(found: Outcome) -> None:
        for agent in found.agents:
            appraise(beliefs.setdefault(agent, {}), found, found.at_s)

    async with open_desk(Settings(home=tmp_path), policy=POLICY) as desk:
        await decided(desk, "a", "b")
        assert await desk.outcomes(told) == 2
    async with open_desk(Settings(home=tmp_path), policy=POLICY) as desk:
        assert await desk.outcomes(told) == 0, "another process goes on where the first stopped"
        await decided(desk, "c")
        assert await desk.outcomes(told) == 1
    mean, trials = summary(beliefs["poet"].values(), beliefs["poet"]["write"].at)
    assert trials == pytest.approx(3, abs=0.01) and mean == pytest.approx(0.2, abs=0.01)


async def test_looking_after_it_lets_time_pass_and_is_not_stopped_by_a_webhook_that_is_away(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
    secret.chmod(0o600)
    target = WebhookTarget(url="http://127.0.0.1:9/", secret_file=str(secret))
    policy = POLICY.model_copy(update={"expires_after_s": 0.01, "webhooks": (target,)})
    async with open_desk(Settings(home=tmp_path), policy=policy) as desk:
        await desk.queue.ask(proposal())
        work = asyncio.create_task(desk.run(desk.notifiers(), every_s=0.01))
        while await desk.queue.waiting():  # noqa: ASYNC110 - another process would see it no sooner
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.wait([work])
        await desk.record()
    assert [each["action"] for each in entries(tmp_path)] == ["review.asked", "review.expired"]


def test_a_webhooks_secret_is_its_owners_alone(tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
    secret.chmod(0o644)
    target = WebhookTarget(url="https://example.com/", secret_file=str(secret))

    async def opened() -> None:
        async with open_desk(Settings(home=tmp_path), policy=ReviewPolicy(webhooks=(target,))) as desk:
            desk.notifiers()

    with pytest.raises(InputError, match="chmod 600"):
        asyncio.run(opened())


def test_without_a_policy_whoever_runs_it_is_the_reviewer(tmp_path: Path) -> None:
    assert len(read_policy(Settings(home=tmp_path)).reviewers) == 1
    (tmp_path / "review.yaml").write_text("automatic_above: 0.95\nreviewers: {ann: []}\n")
    policy = read_policy(Settings(home=tmp_path))
    assert (policy.automatic_above, [*policy.reviewers]) == (0.95, ["ann"])
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(Settings(home=tmp_path), tmp_path / "other.yaml")
    (tmp_path / "review.yaml").write_text("kinds: {deal: {four_eyes: true}}\n")
    with pytest.raises(InputError, match="name the reviewers"):
        read_policy(Settings(home=tmp_path))
