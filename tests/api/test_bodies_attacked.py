"""Bodies, headers and paths that no honest client sends: refused in one form, with nothing of the inside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from chimera.api.services import Services
from chimera.core.errors import ClusterError, ModelUnauthorized, StorageUnavailable
from chimera.security.roles import Role
from tests.api.whole import PASSWORD, Api, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"content-type": "application/json"}

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"goal=g",
    "half": b'{"goal": "g"',
    "a list": b"[]",
    "null": b"null",
    "two values": b'{"goal": "g"} {}',
    "a name twice": b'{"goal": "g", "goal": "another"}',
    "a name twice, within": b'{"goal": "g", "inputs": {"a": 1, "a": 2}}',
    "NaN": b'{"goal": "g", "inputs": {"a": NaN}}',
    "Infinity": b'{"goal": "g", "deadline_s": Infinity}',
    "-Infinity": b'{"goal": "g", "inputs": {"a": [-Infinity]}}',
    "infinite by its exponent": b'{"goal": "g", "deadline_s": 1e999}',
    "infinite, within": b'{"goal": "g", "inputs": {"a": 1e999}}',
    "half a character": b'{"goal": "\\ud800"}',
    "half a character in a name": b'{"goal": "g", "\\udfff": 1}',
    "half a character, within": b'{"goal": "g", "inputs": {"a": ["\\ud83d"]}}',
    "no UTF-8": b'{"goal": "\xff\xfe"}',
    "UTF-16": '{"goal": "g"}'.encode("utf-16"),
    "a comment": b'{"goal": "g" /* */}',
    "a number of 10,000 digits": b'{"goal": "g", "priority": ' + b"9" * 10_000 + b"}",
    "a name of a megabyte": b'{"goal": "g", "' + b"a" * 900_000 + b'": 1}',
    "deep lists": b'{"goal": "g", "inputs": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}",
    "deep objects": b'{"goal": "g", "inputs": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
    "deep, and never closed": b"[" * 500_000,
    "deep after a string without an end": b'"' + b"[" * 100_000,
    "too many replicas": b'{"goal": "g", "replicas": 1e9}',
    "a number as text": b'{"goal": "g", "replicas": "three"}',
    "a name that is a role": b'{"goal": "g", "role": "../../etc"}',
    "a number below": b'{"goal": "g", "deadline_s": -1}',
    "fields that do not go together": b'{"goal": "g", "threshold": 0.5}',
    "too many inputs": json.dumps({"goal": "g", "inputs": {str(n): 0 for n in range(2_000)}}).encode(),
    "too long a goal": json.dumps({"goal": "g" * 20_001}).encode(),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """One node for all of these: they are refused."""
    async with opened(tmp_path_factory.mktemp("node"), logins_at_once=10_000) as made:
        yield made


def _is_problem(answer: httpx2.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    assert told["type"].startswith("urn:chimera:problem:")
    inside = ("Traceback", "site-packages", "chimera/", 'File "', str(Path.home()), "pydantic", "sqlite")
    assert not any(word in answer.text for word in inside)
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_none_is_refused(api: Api, name: str) -> None:
    answer = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, content=BODIES[name], headers=JSON)
    _is_problem(answer, 400, 422)
    unknown = await api.ask("POST", "/api/swarm/task", content=BODIES[name], headers=JSON)
    _is_problem(unknown, 401, 400)
    login = await api.ask("POST", "/api/auth/login", content=BODIES[name], headers=JSON)
    _is_problem(login, 400, 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_json_that_does_not_say_so_is_not_read(api: Api, kind: str) -> None:
    """What a page of another site can send without asking first (CSRF)."""
    headers = {"content-type": kind} if kind else {}
    answer = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, content=b'{"goal": "g"}', headers=headers)
    _is_problem(answer, 422)


async def test_who_asks_is_told_before_what(api: Api) -> None:
    for content in (b"{", b'{"goal": 1}', b'{"a": 1, "a": 2}'):
        answer = await api.client.post("/api/swarm/task", content=content, headers=JSON)
        _is_problem(answer, 401)


@pytest.mark.parametrize("told", [True, False])
async def test_a_body_that_is_too_large_is_not_read_to_its_end(tmp_path: Path, told: bool) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 1
            yield b" " * 1_000

    async with opened(tmp_path, max_body_bytes=5_000) as api:
        headers = {**JSON, "content-length": "1000000"} if told else JSON
        answer = await api.client.post("/api/auth/login", content=chunks(), headers=headers)
        _is_problem(answer, 413)
        assert sent <= 7


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "9" * 50, "²"])
async def test_a_length_that_is_none_is_refused(api: Api, length: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", length.encode("latin-1"))]
    answer = await api.client.post("/api/auth/login", content=b"{}", headers=headers)
    _is_problem(answer, 413)


async def test_too_many_headers_are_refused(api: Api) -> None:
    answer = await api.client.get("/healthz", headers=[(f"x-{n}", "a") for n in range(200)])
    _is_problem(answer, 431)


async def test_a_host_that_is_not_this_nodes_is_refused(tmp_path: Path) -> None:
    """A page of another site whose name was made to lead here (DNS rebinding)."""
    async with opened(tmp_path, hosts=("127.0.0.1", "::1", "node.example")) as api:
        for host in ("evil.example", "127.0.0.1.evil.example", "", "evil.example:8700", "127.0.0.1@evil.example"):
            _is_problem(await api.client.get("/healthz", headers={"host": host}), 421)
        twice = [("host", "127.0.0.1"), ("host", "evil.example")]
        _is_problem(await api.client.get("/healthz", headers=twice), 421)
        for host in ("127.0.0.1:8700", "[::1]:8700", "NODE.example"):
            assert (await api.client.get("/healthz", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "path", ["/api/keys/", "//evil.example/api/keys", "/api//keys", "/API/KEYS", "/api/keys/../audit"]
)
async def test_a_path_is_what_it_says_and_leads_nowhere_else(api: Api, path: str) -> None:
    url = httpx2.URL(scheme="http", host="127.0.0.1", raw_path=path.encode())
    answer = await api.ask("GET", str(url), Role.OBSERVER, headers={"host": "evil.example"})
    assert "location" not in answer.headers
    _is_problem(answer, 404, 403, 401)


@pytest.mark.parametrize(
    "part",
    ["..%2f..%2fetc%2fpasswd", "%00", "a%00b", "%2e%2e", "a%0d%0aSet-Cookie:%20a=b", "%ff", "a" * 300, "a;b", "'--"],
)
async def test_an_id_that_is_none_is_found_nowhere(api: Api, part: str) -> None:
    for path in (f"/api/swarm/missions/{part}", f"/api/swarm/missions/{part}/events", f"/console/{part}"):
        answer = await api.ask("GET", path, Role.ADMIN)
        _is_problem(answer, 404, 422)
        assert "set-cookie" not in answer.headers
    _is_problem(await api.ask("DELETE", f"/api/keys/{part}", Role.ADMIN), 404, 422, 405)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=1e9", "limit=NaN", "after=-1", "limit=10&limit=999999", "after=" + "9" * 40]
)
@pytest.mark.parametrize("path", ["/api/swarm/missions", "/api/audit"])
async def test_a_query_that_is_too_much_is_refused(api: Api, path: str, query: str) -> None:
    _is_problem(await api.ask("GET", f"{path}?{query}", Role.ADMIN), 422)


async def test_of_a_parameter_that_comes_twice_no_check_and_use_differ(api: Api) -> None:
    key = await api.node.key(Role.ADMIN)
    answer = await api.ask("GET", "/api/keys?user=operator&user=admin", Role.OPERATOR)
    assert answer.status_code == 403
    assert key[4:20] not in answer.text


@pytest.mark.parametrize("name", ["x-http-method-override", "x-http-method", "x-method-override"])
async def test_a_method_is_not_another_because_a_header_says_so(api: Api, name: str) -> None:
    key = await api.node.key(Role.OPERATOR)
    id = api.node.security.verify(key).token_id
    answer = await api.ask("GET", f"/api/keys/{id}", Role.OPERATOR, headers={name: "DELETE"})
    _is_problem(answer, 405)
    assert api.node.security.verify(key).subject == "operator"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD", "FOO"])
async def test_a_method_that_is_not_there_is_refused(api: Api, method: str) -> None:
    answer = await api.ask(method, "/api/keys", Role.ADMIN)
    assert answer.status_code == 405


async def test_no_other_site_may_read_answers_unless_it_is_named(api: Api, tmp_path: Path) -> None:
    ask = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for method in ("OPTIONS", "GET"):
        answer = await api.ask(method, "/api/keys", Role.ADMIN, headers=ask)
        assert not any(name.startswith("access-control") for name in answer.headers)
    async with opened(tmp_path / "named", origins=("https://good.example",)) as named:
        told = await named.client.options("/api/keys", headers=ask)
        assert "access-control-allow-origin" not in told.headers
        good = await named.client.options("/api/keys", headers={**ask, "origin": "https://good.example"})
        assert good.headers["access-control-allow-origin"] == "https://good.example"
        assert "access-control-allow-credentials" not in good.headers


async def test_every_answer_says_how_a_browser_has_to_treat_it(tmp_path: Path) -> None:
    def broken(services: Services) -> None:
        services.alerts = None  # type: ignore[assignment]
        services.engine = object()  # type: ignore[assignment]

    async with opened(tmp_path, change=broken) as api:
        for path, status in (("/healthz", 200), ("/nowhere", 404), ("/api/keys", 401), ("/api/anomaly/detect", 500)):
            answer = await api.ask("GET", path, Role.ADMIN if status == 500 else None)
            assert answer.status_code == status
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cache-control"] == "no-store"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert "server" not in answer.headers


SECRET = "redis://chimera:s3cret@10.1.2.3:6379/0 in /var/lib/chimera/security.db"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError(SECRET), 500),
        (KeyError(SECRET), 500),
        (StorageUnavailable(SECRET), 503),
        (ClusterError(SECRET), 503),
        (ModelUnauthorized(SECRET), 502),
        (RecursionError(SECRET), 500),
        (UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET), 500),
    ],
)
async def test_an_error_of_the_inside_stays_there(tmp_path: Path, error: Exception, status: int) -> None:
    def broken(services: Services) -> None:
        async def status() -> None:
            raise error

        services.swarm.status = status  # type: ignore[method-assign,assignment]

    async with opened(tmp_path, change=broken) as api:
        for path, user in (("/readyz", None), ("/metrics", Role.OBSERVER)):
            answer = await api.ask("GET", path, user)
            _is_problem(answer, status)
            assert not any(part in answer.text for part in ("s3cret", "10.1.2.3", "/var/lib"))


async def test_what_cannot_be_written_down_is_not_answered_as_done(tmp_path: Path) -> None:
    def full(services: Services) -> None:
        def append(*told: Any) -> None:
            raise StorageUnavailable("the disk is full")

        services.audit.append = append  # type: ignore[union-attr,method-assign]

    async with opened(tmp_path, change=full) as api:
        answer = await api.client.post("/api/auth/login", json={"user": "observer", "password": PASSWORD})
        _is_problem(answer, 503)


async def test_a_password_is_not_sent_back(api: Api) -> None:
    password = "hunter2-hunter2-hunter2"
    for body in ({"user": 1, "password": password}, {"user": "a", "password": [password]}, {"user": "a", password: 1}):
        answer = await api.client.post("/api/auth/login", json=body)
        assert answer.status_code == 422
        if password not in body:  # a name that is unknown is told
            assert password not in answer.text


@pytest.mark.parametrize(
    ("sent", "kind", "why"),
    [
        (b'{"goal": "g",}', "application/json", "not JSON: "),
        (b'{"goal": "g", "goal": "h"}', "application/json", "a name twice"),
        (b'{"goal": NaN}', "application/json", "NaN, which is not JSON"),
        (b'{"goal": "\xff"}', "application/json", "not UTF-8"),
        (b'{"goal": "g"}', "application/x-www-form-urlencoded", "Content-Type: application/json"),
    ],
)
async def test_who_sends_what_cannot_be_read_is_told_what_is_wrong_with_it(
    api: Api, sent: bytes, kind: str, why: str
) -> None:
    headers = {"content-type": kind}
    answer = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, content=sent, headers=headers)
    assert answer.status_code in (400, 422) and why in answer.json()["detail"]
