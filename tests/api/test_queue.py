"""The review queue over the API: who sees what, whose word counts, what is written down, and what gets nobody past."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chimera import Client
from chimera.api.reviewing import node_policy, reviewing
from chimera.core.config import Settings
from chimera.core.errors import Forbidden, InputError, NotThere
from chimera.core.events import EventKind
from chimera.review.payloads import EditCheck
from chimera.review.queue import ReviewQueue
from chimera.review.types import Item, Proposal, State
from chimera.security.manager import LOCAL
from chimera.security.roles import Permission, Role
from chimera.storage.memory import MemoryJournal
from tests.api.asks import NO_REVIEW
from tests.api.serving import Served
from tests.api.whole import PASSWORD, REVIEW_POLICY, Api, bearing

COMMANDS: dict[str, dict[str, Any] | None] = {
    "claim": None,
    "release": None,
    "approve": {"version": 0},
    "reject": {"reason": "it is wrong"},
    "edit": {"version": 0, "payload": {"text": "better"}},
    "escalate": {"to": "leads", "reason": "who knows?"},
}


def queue_of(api: Api) -> ReviewQueue:
    assert api.node.services.queue is not None
    return api.node.services.queue


async def asked(api: Api, key: str = "ticket-1", **told: Any) -> str:
    """The id of an answer that waits for a person."""
    fields = {"kind": "answer", "summary": f"Answer {key}", "payload": {"text": "hello"}, "confidence": 0.2}
    item = await queue_of(api).ask(Proposal(**{"key": key, "asker": "support-agent", **fields, **told}))
    assert isinstance(item, Item) and item.state is State.WAITING
    return item.id


async def say(
    api: Api, item_id: str, command: str, user: Role | str | None = Role.ADMIN, **body: Any
) -> httpx2.Response:
    told = {} if COMMANDS[command] is None else {"json": body or COMMANDS[command]}
    return await api.ask("POST", f"/api/queue/{item_id}/{command}", user, **told)


async def decisions(api: Api) -> list[tuple[str, str]]:
    events = await queue_of(api).events()
    return [(str(e.data["verdict"]), str(e.data["by"])) for e in events if e.kind is EventKind.REVIEW_DECIDED]


async def test_what_waits_is_listed_in_parts_by_what_it_is_and_without_payloads(api: Api) -> None:
    ids = [await asked(api, f"t{n}", kind="answer" if n % 2 else "reply", mission=f"m{n}") for n in range(5)]
    first = (await api.ask("GET", "/api/queue?limit=2", Role.OBSERVER)).json()
    rest = (await api.ask("GET", f"/api/queue?limit=3&after={first['next']}", Role.OBSERVER)).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == ids and rest["next"] is None
    assert all("payload" not in each and "text" not in each for each in first["items"])
    for query, expected in (
        ("kind=answer", [1, 3]),
        ("mission=m2", [2]),
        ("group=leads", []),
        ("kind=answer&mission=m0", []),
    ):
        told = (await api.ask("GET", f"/api/queue?{query}", Role.OBSERVER)).json()["items"]
        assert [each["id"] for each in told] == [ids[at] for at in expected], query
    stats = (await api.ask("GET", "/api/queue/stats", Role.OBSERVER)).json()
    assert (stats["waiting"], stats["claimed"], stats["kinds"]) == (5, 0, {"reply": 3, "answer": 2})


async def test_a_part_begins_after_the_one_before_even_where_that_has_ended(api: Api) -> None:
    ids = [await asked(api, f"t{n}") for n in range(4)]
    first = (await api.ask("GET", "/api/queue?limit=2", Role.OBSERVER)).json()
    for item_id in ids[:2]:
        await say(api, item_id, "approve")
    rest = (await api.ask("GET", f"/api/queue?limit=2&after={first['next']}", Role.OBSERVER)).json()
    assert [each["id"] for each in rest["items"]] == ids[2:]


async def test_mine_is_what_i_may_decide_and_no_more(api: Api) -> None:
    free, own, passed_on = await asked(api), await asked(api, "own", asker="operator"), await asked(api, "leads")
    await say(api, passed_on, "escalate")
    mine = (await api.ask("GET", "/api/queue?mine=true", Role.OPERATOR)).json()["items"]
    assert [each["id"] for each in mine] == [free]
    theirs = (await api.ask("GET", "/api/queue?mine=true", Role.OBSERVER)).json()["items"]
    assert theirs == []  # the policy names it, and its role does not let it decide
    told = {each["id"]: each["decides"] for each in (await api.ask("GET", "/api/queue", Role.ADMIN)).json()["items"]}
    assert told == {free: True, own: True, passed_on: True}


async def test_a_payload_is_told_as_it_is_and_as_text_in_which_everything_is_seen(api: Api) -> None:
    payload = {"text": "pay \u202eeno\u202c\x07 \U000e0041 é", "number": 12345678901234567890}
    item_id = await asked(api, payload=payload)
    told = (await api.ask("GET", f"/api/queue/{item_id}", Role.OBSERVER)).json()
    assert told["payload"] == payload and told["proposed"] is None and told["decides"] is False
    assert '"text": "pay \\u202eeno\\u202c\\u0007 \\udb40\\udc41 é"' in told["text"]
    assert '"number": 12345678901234567890' in told["text"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("role", list(Role))
async def test_only_a_reviewer_whose_role_lets_them_has_a_word(api: Api, role: Role, command: str) -> None:
    item_id = await asked(api)
    before = await queue_of(api).item(item_id)
    said = await say(api, item_id, command, role)
    may = role in (Role.ADMIN, Role.OPERATOR)
    assert said.status_code == (200 if may else 403), said.text
    assert (await queue_of(api).item(item_id) == before) == (not may or command == "release")


@pytest.mark.parametrize("command", COMMANDS)
async def test_who_is_not_named_by_the_policy_decides_nothing_whatever_their_role(api: Api, command: str) -> None:
    await api.node.security.create_user("eve", PASSWORD, Role.ADMIN, by=LOCAL)
    item_id = await asked(api)
    for body in ({}, {**(COMMANDS[command] or {}), "by": "admin"}):
        told = {"json": body} if body else {}
        said = await api.ask("POST", f"/api/queue/{item_id}/{command}", "eve", **told)
        assert said.status_code in (403, 422), said.text
    assert (await queue_of(api).item(item_id)).claim is None and await decisions(api) == []
    headers = bearing(await api.node.key(Role.ADMIN, scopes=frozenset(Permission) - {Permission.QUEUE_DECIDE}))
    narrowed = await api.ask("POST", f"/api/queue/{item_id}/{command}", headers=headers, json=COMMANDS[command])
    assert narrowed.status_code == 403


async def test_of_two_who_claim_at_once_one_has_it_and_the_other_is_told_who(api: Api) -> None:
    item_id = await asked(api)
    said = await asyncio.gather(*(say(api, item_id, "claim", user) for user in (Role.ADMIN, Role.OPERATOR)))
    assert sorted(each.status_code for each in said) == [200, 409]
    [won], [lost] = ([e for e in said if e.status_code == status] for status in (200, 409))
    holder = won.json()["holder"]["by"]
    assert lost.headers["content-type"] == "application/problem+json"
    told = lost.json()
    assert (told["type"], told["reason"], told["holder"]["by"]) == (
        "urn:chimera:problem:input-error",
        "claimed",
        holder,
    )
    assert told["detail"].startswith(f"{holder} has claimed it")


async def test_what_another_has_claimed_is_left_alone_until_the_claim_runs_out(api: Api) -> None:
    item_id = await asked(api)
    assert (await say(api, item_id, "claim", Role.OPERATOR)).status_code == 200
    for command in set(COMMANDS) - {"release"}:
        assert (await say(api, item_id, command)).json()["reason"] == "claimed", command
    assert (await say(api, item_id, "release")).json()["holder"]["by"] == "operator"  # not theirs to give back
    api.node.clock.ahead_s = REVIEW_POLICY.lease_s + 1
    assert (await api.ask("GET", f"/api/queue/{item_id}", Role.OBSERVER)).json()["holder"] is None
    assert (await api.ask("GET", "/api/queue/stats", Role.OBSERVER)).json()["claimed"] == 0
    assert (await say(api, item_id, "approve")).json()["state"] == "approved"
    assert await decisions(api) == [("approved", "admin")]


async def test_of_two_who_decide_at_once_without_a_claim_one_is_heard(api: Api) -> None:
    item_id = await asked(api)
    said = await asyncio.gather(say(api, item_id, "approve"), say(api, item_id, "reject", Role.OPERATOR))
    assert sorted(each.status_code for each in said) == [200, 409]
    [lost] = [each for each in said if each.status_code == 409]
    assert lost.json()["reason"] == "ended" and len(await decisions(api)) == 1


@pytest.mark.parametrize("told", [{"asker": "operator"}, {"asker": "OPERATOR"}, {"agents": ("x", "Operator")}])
async def test_nobody_decides_on_what_they_have_asked_for_or_made(api: Api, told: dict[str, Any]) -> None:
    item_id = await asked(api, **told)
    for command in set(COMMANDS) - {"release"}:
        said = await say(api, item_id, command, Role.OPERATOR)
        assert (said.status_code, said.json()["reason"]) == (403, "own"), command
    key = bearing(await api.node.key(Role.OPERATOR))
    assert (await api.ask("POST", f"/api/queue/{item_id}/approve", headers=key, json={"version": 0})).status_code == 403
    assert await decisions(api) == []


async def test_four_eyes_are_those_of_two_people_however_many_keys_one_has(api: Api) -> None:
    item_id = await asked(api, kind="contract")
    assert (await say(api, item_id, "approve", Role.OPERATOR)).json()["state"] == "waiting"
    key = bearing(await api.node.key(Role.OPERATOR))
    again = await api.ask("POST", f"/api/queue/{item_id}/approve", headers=key, json={"version": 0})
    assert again.json()["state"] == "waiting" and again.json()["approvers"] == ["operator"]
    assert (await say(api, item_id, "approve")).json()["state"] == "approved"


async def test_what_has_changed_since_it_was_looked_at_is_not_agreed_to(api: Api) -> None:
    item_id = await asked(api, kind="contract")
    await say(api, item_id, "approve", Role.OPERATOR)
    changed: dict[str, Any] = {"version": 0, "payload": {"text": "other"}}
    edited = (await say(api, item_id, "edit", **changed)).json()
    assert (edited["version"], edited["approvers"], edited["state"]) == (1, ["admin"], "waiting")
    third: dict[str, Any] = {"version": 0, "payload": {"text": "third"}}
    for command, body in (("approve", {"version": 0}), ("edit", third)):
        stale = await say(api, item_id, command, Role.OPERATOR, **body)
        assert (stale.status_code, stale.json()["reason"]) == (409, "changed"), command
    assert (await say(api, item_id, "edit", **changed)).status_code == 200  # the same again
    assert (await say(api, item_id, "approve", Role.OPERATOR, version=1)).json()["state"] == "edited"
    told = (await api.ask("GET", f"/api/queue/{item_id}", Role.OBSERVER)).json()
    assert told["payload"] == {"text": "other"} and "hello" in told["proposed"]
    assert [edit["by"] for edit in told["edits"]] == ["admin"]


@pytest.mark.parametrize("payload", ["better", None, {"text": 1}, {"text": "a", "to": "all"}, {}, []])
async def test_an_edit_that_cannot_take_its_place_is_refused_and_changes_nothing(api: Api, payload: Any) -> None:
    item_id = await asked(api)
    said = await say(api, item_id, "edit", version=0, payload=payload)
    assert said.status_code == 400, said.text
    assert (await queue_of(api).item(item_id)).version == 0 and await decisions(api) == []


async def test_an_edit_that_the_kinds_own_check_refuses_is_not_taken(api: Api) -> None:
    def no_links(proposal: Proposal, payload: Any) -> None:
        if "http" in str(payload):
            raise InputError("no links in an answer")

    checks: dict[str, EditCheck] = {"answer": no_links}
    api.node.services.queue = ReviewQueue(
        journal=MemoryJournal(),
        policy=REVIEW_POLICY,
        clock=api.node.clock,
        generator=random.Random(0),
        edit_checks=checks,
    )
    item_id = await asked(api)
    said = await say(api, item_id, "edit", version=0, payload={"text": "see http://evil.example"})
    assert (said.status_code, said.json()["detail"]) == (400, "no links in an answer")
    assert (await queue_of(api).item(item_id)).version == 0


async def test_what_may_not_be_edited_is_not(api: Api) -> None:
    item_id = await asked(api, kind="payment", usd=100.0)
    said = await say(api, item_id, "edit")
    assert (said.status_code, said.json()["reason"]) == (409, "not_editable")
    gone = await say(api, item_id, "escalate", to="nobody", reason="r")
    assert (gone.status_code, gone.json()["reason"]) == (400, "no_group")


async def test_a_request_that_comes_twice_with_its_key_is_done_once(api: Api) -> None:
    item_id = await asked(api)
    path, headers = f"/api/queue/{item_id}/reject", {"idempotency-key": "k1"}
    once, again = [await api.ask("POST", path, Role.ADMIN, headers=headers, json={"reason": "wrong"}) for _ in range(2)]
    assert once.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    other = await api.ask("POST", path, Role.ADMIN, headers=headers, json={"reason": "right"})
    assert other.status_code == 422
    theirs = await api.ask("POST", path, Role.OPERATOR, headers=headers, json={"reason": "wrong"})
    assert theirs.json()["reason"] == "ended"  # somebody else's key is another key
    assert await decisions(api) == [("rejected", "admin")]


@pytest.mark.parametrize(
    ("command", "body", "status"),
    [
        ("edit", {"version": 0, "payload": {"text": "a" * 300_000}}, 400),
        ("edit", {"version": 0, "payload": {"text": "a" * 1_100_000}}, 413),
        ("reject", {"reason": "a" * 2_001}, 422),
        ("reject", {"reason": " "}, 400),
        ("reject", {}, 422),
        ("approve", {"version": -1}, 422),
        ("approve", {"version": 0, "by": "admin"}, 422),
        ("escalate", {"to": "a b", "reason": "r"}, 422),
    ],
)
async def test_a_body_that_is_too_much_or_says_too_little_does_nothing(
    api: Api, command: str, body: dict[str, Any], status: int
) -> None:
    item_id = await asked(api)
    said = await api.ask("POST", f"/api/queue/{item_id}/{command}", Role.ADMIN, json=body)
    assert said.status_code == status, said.text[:500]
    assert len(said.content) < 5_000 and len(await queue_of(api).events()) == 1


async def test_a_number_that_no_journal_takes_is_refused_before_anything_is_written_down(api: Api) -> None:
    item_id = await asked(api, payload={"text": 1.5})
    told = {"content": b'{"version": 0, "payload": {"text": 1e400}}', "headers": {"content-type": "application/json"}}
    said = await api.ask("POST", f"/api/queue/{item_id}/edit", Role.ADMIN, **told)
    assert said.status_code == 400 and "JSON" in said.json()["detail"]
    assert not [each for each in api.node.audit.entries if each.action == "edit item"]


async def test_who_said_what_is_written_down_before_it_is_done(api: Api) -> None:
    item_id, other = await asked(api), await asked(api, "other")
    await say(api, item_id, "edit", Role.OPERATOR)
    [entry] = [each for each in api.node.audit.entries if each.action == "edit item"]
    assert (entry.actor, entry.resource, entry.detail["kind"]) == ("operator", item_id, "answer")
    assert "better" not in str(entry.detail)

    def full(*_: Any) -> None:
        raise OSError("no space left")

    api.node.audit.append = full  # type: ignore[method-assign,assignment]
    assert (await say(api, other, "approve")).status_code == 500
    assert await decisions(api) == [("edited", "operator")]


async def test_a_tenants_reviewer_sees_what_its_missions_ask_and_no_sign_of_the_rest(api: Api) -> None:
    for name in ("red", "blue"):
        await api.node.security.create_user(name, PASSWORD, Role.ADMIN, by=LOCAL, tenant=name)
    named = {**REVIEW_POLICY.reviewers, "red": (), "blue": ()}
    queue_of(api).policy = REVIEW_POLICY.model_copy(update={"reviewers": named})
    mine = await asked(api, "mine", mission=api.node.owned.new("red", "red"))
    hidden = [await asked(api, "nodes"), await asked(api, "blues", mission=api.node.owned.new("blue", "blue"))]
    assert [e["id"] for e in (await api.ask("GET", "/api/queue", "red")).json()["items"]] == [mine]
    assert (await api.ask("GET", "/api/queue/stats", "red")).json()["waiting"] == 1
    assert (await api.ask("GET", "/api/queue/calibration", "red")).status_code == 404
    for command in (None, *COMMANDS):
        for item_id in hidden:
            told, never = [
                await (say(api, one, command, "red") if command else api.ask("GET", f"/api/queue/{one}", "red"))
                for one in (item_id, NO_REVIEW)
            ]
            assert told.status_code == never.status_code == 404
            assert told.text.replace(item_id, "") == never.text.replace(NO_REVIEW, "")
    assert await decisions(api) == []
    assert (await say(api, mine, "approve", "red")).status_code == 200


async def test_how_right_the_confidence_was_is_told(api: Api) -> None:
    for number in range(4):
        await say(api, await asked(api, f"t{number}"), "approve" if number else "reject")
    told = (await api.ask("GET", "/api/queue/calibration?error=0.1", Role.OBSERVER)).json()
    assert (told["count"], told["labelled"], told["automatic"]["state"]) == (4, 4, "too_few")
    assert (await api.ask("GET", "/api/queue/calibration?error=nan", Role.OBSERVER)).status_code == 422


async def test_a_node_without_a_queue_says_so(api: Api) -> None:
    api.node.services.queue = None
    for path in ("", "/stats", "/calibration", f"/{NO_REVIEW}"):
        assert (await api.ask("GET", f"/api/queue{path}", Role.ADMIN)).status_code == 501


def test_a_client_lists_reads_and_decides(server: Served) -> None:
    api = Api(server.node, None)  # type: ignore[arg-type]
    ids = [server.do(asked(api, f"ticket-{number}")) for number in range(4)]
    with (
        Client(server.url, server.token(Role.ADMIN)) as admin,
        Client(server.url, server.token(Role.OPERATOR)) as other,
    ):
        assert [each["id"] for each in admin.queue(mine=True, kind="answer")] == ids
        assert len(admin.queue(2)) == 2 and admin.queue_item(ids[0])["payload"] == {"text": "hello"}
        assert admin.claim_item(ids[0])["holder"]["by"] == "admin"
        with pytest.raises(InputError, match="admin has claimed it"):
            other.approve_item(ids[0], 0)
        admin.release_item(ids[0])
        assert other.approve_item(ids[0], 0)["state"] == "approved"
        assert admin.reject_item(ids[1], "wrong")["ending"]["reason"] == "wrong"
        assert admin.edit_item(ids[2], 0, {"text": "better"})["state"] == "edited"
        assert admin.escalate_item(ids[3], "leads", "who knows?")["group"] == "leads"
        with pytest.raises(Forbidden, match="no reviewer of leads"):
            other.approve_item(ids[3], 0)
        with pytest.raises(NotThere):
            admin.queue_item(NO_REVIEW)


async def test_a_held_mission_goes_on_when_a_person_agrees_over_the_api(api: Api, tmp_path: Path) -> None:
    task = {"goal": "which colour?", "inputs": {"value": "blue"}, "review": "always"}
    mission = (await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json=task)).json()["mission_id"]
    async with asyncio.timeout(30):
        while not await api.node.swarm.held():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)
        home = Settings(home=tmp_path / "home")
        async with reviewing(api.node.swarm, home, api.node.security.users) as queue:
            api.node.services.queue = queue
            while not await queue.waiting():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            [item] = (await api.ask("GET", f"/api/queue?mission={mission}", Role.ADMIN)).json()["items"]
            assert (item["kind"], item["decides"]) == ("held_task", True)
            assert (await say(api, item["id"], "approve")).json()["state"] == "approved"
            told = await api.ask("GET", f"/api/swarm/missions/{mission}?wait_s=20", Role.OPERATOR)
    assert (told.json()["state"], told.json()["value"]) == ("answered", "blue")


async def test_where_the_policy_names_nobody_the_nodes_administrators_decide(api: Api, tmp_path: Path) -> None:
    for name, tenant in (("red", "red"), ("gone", ""), ("at@home", "")):
        await api.node.security.create_user(name, PASSWORD, Role.ADMIN, by=LOCAL, tenant=tenant)
    await api.node.security.users.set_disabled("gone", True)
    settings, users = Settings(home=tmp_path), api.node.security.users
    [os_user, *admins] = node_policy(settings, users).reviewers
    assert admins == ["admin"] and os_user not in ("red", "gone", "operator")
    (tmp_path / "review.yaml").write_text("reviewers: {ann: [leads]}\n")
    assert node_policy(settings, users).reviewers == {"ann": ("leads",)}
