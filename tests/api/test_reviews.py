"""The review queue: who sees it, who decides, what is written down, and what no id and no file can make it do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from chimera import Client
from chimera.core.errors import Forbidden, NotThere
from chimera.security.manager import LOCAL
from chimera.security.roles import Permission, Role, allowed
from chimera.system.proposals import Asked, Proposal
from chimera.system.reviews import MAX_REVIEW_BYTES
from tests.api.asks import NO_REVIEW
from tests.api.serving import Served
from tests.api.whole import PASSWORD, Api
from tests.unit.system.places import AFTER, BEFORE, proposal

ANSWERS = ("approve", "refuse")


def made(number: int = 0) -> Proposal:
    after = AFTER + f"# {number}\n"
    return proposal("shop.till", {"shop/till.py": after, "shop/new.py": "x = 1\n"}, {"shop/till.py": BEFORE})


def waits(api: Api, number: int = 0, at_s: float = 1e9) -> str:
    """The id of a patch that waits in the node's heart since then."""
    asked, patch = Asked(api.node.heart / "reviews"), made(number)
    asked.keep(patch)
    os.utime(api.node.heart / "reviews" / f"{patch.patch.id}.json", (at_s, at_s))
    return patch.patch.id


def answers(api: Api) -> list[str]:
    return sorted(path.name for path in (api.node.heart / "answers").glob("*"))


async def test_without_a_heart_nothing_waits(api: Api) -> None:
    told = await api.ask("GET", "/api/reviews", Role.OBSERVER)
    assert (told.status_code, told.json()) == (200, {"items": [], "next": None})


async def test_what_waits_is_listed_the_longest_first_in_parts(api: Api) -> None:
    ids = [waits(api, number, 1e9 - number) for number in range(3)]
    first = (await api.ask("GET", "/api/reviews?limit=2", Role.OBSERVER)).json()
    assert [each["id"] for each in first["items"]] == [ids[2], ids[1]] and first["next"] == "2"
    [last] = (await api.ask("GET", "/api/reviews?limit=2&after=2", Role.OBSERVER)).json()["items"]
    assert last == {
        "id": ids[0],
        "kind": "patch",
        "module": "shop.till",
        "files": ["shop/new.py", "shop/till.py"],
        "summary": "A share of nothing is nothing.",
        "confidence": 1.0,
        "since_s": 1e9,
        "answer": None,
        "fault": "",
    }


async def test_one_is_shown_whole(api: Api) -> None:
    review_id = waits(api)
    told = (await api.ask("GET", f"/api/reviews/{review_id}", Role.OBSERVER)).json()
    assert told["failure"].endswith("ZeroDivisionError: x") and told["verdict"]["verdict"] == "accept"
    new, till = told["diffs"]
    assert new == {"path": "shop/new.py", "diff": "--- /dev/null\n+++ b/shop/new.py\n@@ -0,0 +1 @@\n+x = 1\n"}
    assert "-    return part / whole\n+    return part / whole if whole else 0.0\n" in till["diff"]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("role", list(Role))
async def test_only_who_may_run_code_decides(api: Api, role: Role, answer: str) -> None:
    assert allowed(role, Permission.REVIEW_DECIDE) <= allowed(role, Permission.RELOAD_MODULE)
    review_id = waits(api)
    decided = await api.ask("POST", f"/api/reviews/{review_id}/{answer}", role)
    if role is Role.ADMIN:
        assert (decided.status_code, decided.json()["answer"]) == (202, answer)
        assert answers(api) == [f"{review_id}.{'agree' if answer == 'approve' else answer}"]
    else:
        assert decided.status_code == 403 and answers(api) == []
    read = await api.ask("GET", f"/api/reviews/{review_id}", role)
    assert read.status_code == (200 if role in (Role.ADMIN, Role.OPERATOR, Role.OBSERVER) else 403)


async def test_a_key_of_an_admins_that_is_for_something_else_decides_nothing(api: Api) -> None:
    review_id = waits(api)
    key = await api.node.key(Role.ADMIN, scopes=frozenset(Permission) - {Permission.REVIEW_DECIDE})
    headers = {"authorization": f"Bearer {key}"}
    assert (await api.ask("POST", f"/api/reviews/{review_id}/approve", headers=headers)).status_code == 403
    assert answers(api) == []


async def test_who_decided_what_is_written_down_before_it_is_done(api: Api) -> None:
    review_id = waits(api)
    await api.ask("POST", f"/api/reviews/{review_id}/approve", Role.ADMIN)
    [entry] = [each for each in api.node.audit.entries if each.action == "approve patch"]
    assert (entry.actor, entry.resource) == ("admin", review_id) and entry.detail["module"] == "shop.till"

    def full(*_: Any) -> None:
        raise OSError("no space left")

    api.node.audit.append = full  # type: ignore[method-assign]
    other = waits(api, 1)
    assert (await api.ask("POST", f"/api/reviews/{other}/approve", Role.ADMIN)).status_code == 500
    assert answers(api) == [f"{review_id}.agree"]


async def test_the_first_answer_stands_and_the_same_again_is_fine(api: Api) -> None:
    review_id = waits(api)
    for _ in range(2):
        assert (await api.ask("POST", f"/api/reviews/{review_id}/refuse", Role.ADMIN)).status_code == 202
    other = await api.ask("POST", f"/api/reviews/{review_id}/approve", Role.ADMIN)
    assert other.status_code == 400 and "another answer (refuse)" in other.json()["detail"]
    assert answers(api) == [f"{review_id}.refuse"]
    [listed] = (await api.ask("GET", "/api/reviews", Role.OBSERVER)).json()["items"]
    assert listed["answer"] == "refuse"


async def test_what_is_gone_cannot_be_answered(api: Api) -> None:
    review_id = waits(api)
    assert len((await api.ask("GET", "/api/reviews", Role.ADMIN)).json()["items"]) == 1
    Asked(api.node.heart / "reviews").drop(review_id)
    assert (await api.ask("GET", "/api/reviews", Role.ADMIN)).json()["items"] == []
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/refuse")):
        assert (await api.ask(method, f"/api/reviews/{review_id}{path}", Role.ADMIN)).status_code == 404
    assert answers(api) == []


@pytest.mark.parametrize(
    "review_id",
    [
        "..%2F..%2Fsecret",
        "..",
        "%2e%2e%2fsecret",
        "/etc/passwd",
        "0" * 31,
        "0" * 33,
        "A" * 32,
        "0" * 32 + "%0a",
        "0" * 32 + ".json",
        "%00" * 32,
        "٣" * 32,
    ],
)
async def test_no_id_leads_out_of_the_queue(api: Api, review_id: str) -> None:
    waits(api)
    (api.node.heart / "secret.json").write_text(made(1).model_dump_json())
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/refuse")):
        told = await api.ask(method, f"/api/reviews/{review_id}{path}", Role.ADMIN)
        assert told.status_code in (404, 405, 422), told.text
    assert answers(api) == [] and not list(api.node.heart.parent.rglob("*.agree"))


async def test_a_tenants_caller_sees_none(api: Api) -> None:
    await api.node.security.create_user("red", PASSWORD, Role.ADMIN, by=LOCAL, tenant="red")
    review_id = waits(api)
    assert (await api.ask("GET", "/api/reviews", "red")).json()["items"] == []
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/refuse")):
        told = await api.ask(method, f"/api/reviews/{review_id}{path}", "red")
        never = await api.ask(method, f"/api/reviews/{NO_REVIEW}{path}", "red")
        assert told.status_code == never.status_code == 404
        assert told.text.replace(review_id, "") == never.text.replace(NO_REVIEW, "")
    assert answers(api) == []


def other_edit(told: dict[str, Any]) -> None:
    told["patch"]["edits"][0]["whole"] = "import os\n"


def other_change(told: dict[str, Any]) -> None:
    """What would be applied is not what the patch says."""
    told["changes"]["shop/till.py"] = "import os\n"


def one_more_file(told: dict[str, Any]) -> None:
    told["changes"]["../conftest.py"] = "import os\n"


def no_number(told: dict[str, Any]) -> None:
    told["confidence"] = "much"


@pytest.mark.parametrize("tamper", [other_edit, other_change, one_more_file, no_number])
async def test_a_file_that_was_tampered_with_is_shown_as_such_and_cannot_be_answered(api: Api, tamper: Any) -> None:
    review_id, good = waits(api), waits(api, 1)
    path = api.node.heart / "reviews" / f"{review_id}.json"
    told = json.loads(path.read_text())
    tamper(told)
    path.write_text(json.dumps(told))
    await refused_as_damaged(api, review_id)
    listed = (await api.ask("GET", "/api/reviews", Role.ADMIN)).json()["items"]
    assert {each["id"]: bool(each["fault"]) for each in listed} == {review_id: True, good: False}


async def test_a_patch_under_the_name_of_another_is_none(api: Api) -> None:
    review_id = waits(api)
    path = api.node.heart / "reviews" / f"{review_id}.json"
    path.write_text(made(1).model_dump_json())
    await refused_as_damaged(api, review_id)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large", "empty"])
async def test_what_is_no_plain_file_of_some_size_is_not_read(api: Api, tmp_path: Path, kind: str) -> None:
    review_id = waits(api)
    path = api.node.heart / "reviews" / f"{review_id}.json"
    elsewhere = path.rename(tmp_path / "elsewhere.json")
    match kind:
        case "link":
            path.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "large":
            path.write_text(elsewhere.read_text() + " " * MAX_REVIEW_BYTES)
        case "empty":
            path.touch()
    await refused_as_damaged(api, review_id)


async def refused_as_damaged(api: Api, review_id: str) -> None:
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/refuse")):
        told = await api.ask(method, f"/api/reviews/{review_id}{path}", Role.ADMIN)
        assert told.status_code == 400 and f"reviews/{review_id}.json" in told.json()["detail"]
        assert str(api.node.heart) not in told.text and "import os" not in told.text
    [listed] = [
        each for each in (await api.ask("GET", "/api/reviews", Role.ADMIN)).json()["items"] if each["id"] == review_id
    ]
    assert listed["fault"] and listed["files"] == [] and answers(api) == []


async def test_a_list_follows_what_has_changed(api: Api) -> None:
    review_id = waits(api)
    for share in (1.0, 0.5):
        path = api.node.heart / "reviews" / f"{review_id}.json"
        path.write_text(made().model_copy(update={"confidence": share}).model_dump_json())
        [listed] = (await api.ask("GET", "/api/reviews", Role.ADMIN)).json()["items"]
        assert listed["confidence"] == share


async def test_a_node_without_reviews_says_so(api: Api) -> None:
    api.node.services.reviews = None
    assert (await api.ask("GET", "/api/reviews", Role.ADMIN)).status_code == 501
    assert (await api.ask("POST", f"/api/reviews/{NO_REVIEW}/approve", Role.ADMIN)).status_code == 501


def test_a_client_lists_reads_and_answers(server: Served) -> None:
    ids = []
    for number in range(3):
        Asked(server.node.heart / "reviews").keep(patch := made(number))
        ids.append(patch.patch.id)
    with Client(server.url, server.token(Role.ADMIN)) as client:
        assert sorted(each["id"] for each in client.reviews()) == sorted(ids)
        assert len(client.reviews(2)) == 2
        assert client.review(ids[0])["diffs"][1]["path"] == "shop/till.py"
        assert client.approve_review(ids[0])["answer"] == "approve"
        assert client.refuse_review(ids[1])["answer"] == "refuse"
        assert {each["id"]: each["answer"] for each in client.reviews()} == dict(
            zip(ids, ("approve", "refuse", None), strict=True)
        )
        with pytest.raises(NotThere):
            client.review(NO_REVIEW)
    with Client(server.url, server.token(Role.OPERATOR)) as client, pytest.raises(Forbidden, match="review:decide"):
        client.approve_review(ids[2])
