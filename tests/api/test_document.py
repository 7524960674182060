"""The OpenAPI document: schemathesis asks whatever it allows, and what it does not, and every answer is as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi

from chimera.api.app import create_app
from chimera.api.guard import permission_of
from chimera.security.roles import Role
from tests.api.asks import ROUTES
from tests.api.serving import Served, served

CHECKED = (
    checks.not_a_server_error,
    openapi.response_schema_conformance,
    openapi.content_type_conformance,
    openapi.status_code_conformance,
    openapi.response_headers_conformance,
)

NOT_BUILT = 501
"""Also a server's error to schemathesis, and what a route says whose part this node has not."""

STEPS = {name: route for name, route in ROUTES.items() if route.include_in_schema}


def _document() -> dict[str, object]:
    return create_app(lambda: None).openapi()  # type: ignore[arg-type,return-value]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("node")
    with served(folder, logins_at_once=10_000, logins_per_s=10_000) as made:
        yield made


def _probe(server: Served, name: str, examples: int) -> None:
    method, path = name.split()
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operation = schema[path][method]
    headers = server.headers(Role.ADMIN)

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        if path == "/api/swarm/spawn" and isinstance(case.body, dict):
            case.body["count"] = 1  # 10,000 may be asked for
        response = case.call(headers=headers, timeout=30.0)
        asked = [check for check in CHECKED if response.status_code != NOT_BUILT or check is not CHECKED[0]]
        case.validate_response(response, checks=asked)

    ask()


@pytest.mark.parametrize("name", STEPS)
def test_a_route_answers_as_the_document_says(server: Served, name: str) -> None:
    _probe(server, name, 12)


@pytest.mark.soak
@pytest.mark.parametrize("name", STEPS)
def test_a_route_answers_as_the_document_says_to_many(server: Served, name: str) -> None:
    _probe(server, name, 300)


def test_the_document_has_every_route_its_permission_and_its_errors() -> None:
    paths = _document()["paths"]
    assert isinstance(paths, dict)
    told = {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    assert set(told) == set(STEPS)
    for name, operation in told.items():
        need = permission_of(ROUTES[name])
        assert operation.get("security") == ([{"bearer": []}] if need else None), name
        assert operation.get("x-permission") == need, name
        assert {"429", "500"} <= set(operation["responses"]), name
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert set(response["content"]) == {"application/problem+json"}, (name, status)
        assert operation["description"], name


def test_every_body_has_an_example_that_fits() -> None:
    import jsonschema

    document = _document()
    paths, parts = document["paths"], document["components"]
    assert isinstance(paths, dict)
    assert isinstance(parts, dict)
    for path, methods in paths.items():
        for operation in methods.values():
            if "requestBody" in operation:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                schema = parts["schemas"][name]
                assert schema["examples"], path
                for example in schema["examples"]:
                    jsonschema.validate(example, {**schema, "components": parts})
