"""Where a proposal goes: by its confidence, and never by that alone where it is critical."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import InputError
from chimera.review.policy import CRITICAL_KINDS, KINDS, KindRule, ReviewPolicy, route
from chimera.review.policy_file import load_policy, parse_policy
from chimera.review.types import Ground, Route
from tests.conftest import ROOT
from tests.unit.review.made import POLICY, proposal

SHARE = st.floats(0.0, 1.0)
STRICTER = [Route.AUTOMATIC, Route.MONITORED, Route.PERSON]
NAMES = st.sampled_from([*KINDS, "contract", "launch_missiles"])
USD = st.none() | st.floats(0.0, 1e6)
AUDIENCES = st.sampled_from([None, "known", "new"])


@pytest.mark.parametrize(
    ("confidence", "goes"),
    [
        (1.0, Route.AUTOMATIC),
        (0.9000001, Route.AUTOMATIC),
        (0.9, Route.MONITORED),
        (0.8, Route.MONITORED),
        (0.7, Route.MONITORED),
        (0.6999999, Route.PERSON),
        (0.0, Route.PERSON),
    ],
)
def test_the_borders_belong_to_what_is_monitored(confidence: float, goes: Route) -> None:
    assert route(proposal(confidence=confidence), POLICY).route is goes


@pytest.mark.parametrize("confidence", [float("nan"), float("inf"), -0.1, 1.1, True, "0.9", None])
def test_what_is_no_confidence_is_refused(confidence: object) -> None:
    with pytest.raises(ValidationError, match="confidence"):
        proposal(confidence=confidence)


@pytest.mark.parametrize(
    "critical",
    [
        {"kind": "security_policy"},
        {"kind": "agent_permissions"},
        {"kind": "payment", "usd": 50.01},
        {"kind": "payment"},
        {"kind": "answer", "usd": 51.0},
        {"kind": "publish", "audience": "new"},
        {"kind": "publish"},
        {"kind": "answer", "audience": "new"},
        {"kind": "contract"},
    ],
)
def test_what_is_critical_waits_however_sure_anybody_is(critical: dict[str, Any]) -> None:
    found = route(proposal(confidence=1.0, **critical), POLICY)
    assert (found.route, found.ground) == (Route.PERSON, Ground.CRITICAL)


@pytest.mark.parametrize("harmless", [{"kind": "payment", "usd": 50.0}, {"kind": "publish", "audience": "known"}])
def test_up_to_the_limit_it_is_not_critical(harmless: dict[str, Any]) -> None:
    assert route(proposal(confidence=1.0, **harmless), POLICY).route is Route.AUTOMATIC


def test_a_kind_that_nobody_knows_waits() -> None:
    assert route(proposal(confidence=1.0, kind="launch_missiles"), POLICY).ground is Ground.UNKNOWN_KIND


def test_no_policy_makes_less_critical_than_it_is() -> None:
    kinds = {name: KindRule() for name in KINDS}
    lax = ReviewPolicy(automatic_above=0.0, person_below=0.0, kinds=kinds)
    for kind in CRITICAL_KINDS:
        assert route(proposal(confidence=1.0, kind=kind), lax).route is Route.PERSON
    assert route(proposal(confidence=1.0, usd=50.5), lax).route is Route.PERSON
    with pytest.raises(ValidationError, match="ask_over_usd"):
        ReviewPolicy(ask_over_usd=51.0)


@given(SHARE, SHARE, NAMES, USD, AUDIENCES)
def test_more_confidence_never_sends_more_to_people(
    one: float, other: float, kind: str, usd: float | None, audience: str | None
) -> None:
    low, high = sorted((one, other))
    routes = [route(proposal(confidence=c, kind=kind, usd=usd, audience=audience), POLICY).route for c in (low, high)]
    assert STRICTER.index(routes[1]) <= STRICTER.index(routes[0])


@given(SHARE, SHARE, SHARE, NAMES, USD, AUDIENCES)
def test_under_any_thresholds_what_is_critical_or_unknown_waits(
    one: float, other: float, sure: float, kind: str, usd: float | None, audience: str | None
) -> None:
    low, high = sorted((one, other))
    policy = POLICY.model_copy(update={"person_below": low, "automatic_above": high})
    found = route(proposal(confidence=sure, kind=kind, usd=usd, audience=audience), policy)
    must = kind in (*CRITICAL_KINDS, "contract", "launch_missiles") or (usd or 0) > 50 or audience == "new"
    if must:
        assert found.route is Route.PERSON
    assert (found.approvals == 2) == (kind == "contract")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("automatic_abov: 0.9", "automatic_abov"),
        ("automatic_above: 0.5", "person_below is at most"),
        ("automatic_above: .nan", "automatic_above"),
        ("- 1", "a policy is a mapping"),
        ("reviewers: {ann: [], Ann: []}", "capitals"),
        ("reviewers: {ann: []}\nreviewers: {bob: []}", "reviewers stands there twice"),
        ("reviewers: {ann: []}\nkinds: {deal: {four_eyes: true}}", "at least 2"),
        ("reviewers: {ann: []}\nkinds: {deal: {group: leads}}", "kind deal: the group leads"),
        ("escalate_after_s: 60", "escalate_to"),
        ("reviewers: {ann: []}\nescalate_after_s: 60\nescalate_to: leads", "nobody is in the group leads"),
        ("a: &a 1\nb: *a", "aliases"),
        ("a: [", "expected"),
    ],
)
def test_a_file_that_is_no_policy_says_why(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "review.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        load_policy(path)
    assert str(path) in str(refused.value)


def test_a_file_adds_its_kinds_and_json_will_do(tmp_path: Path) -> None:
    told = {"automatic_above": 0.95, "reviewers": {"ann": ["leads"], "bob": ["leads"]}}
    told["kinds"] = {"deal": {"four_eyes": True, "group": "leads"}}
    (path := tmp_path / "review.json").write_text(json.dumps(told))
    policy = load_policy(path)
    assert policy.kinds.keys() == {*KINDS, "deal"}
    assert route(proposal(kind="deal"), policy).group == "leads"
    with pytest.raises(InputError, match="stands there twice"):
        parse_policy('{"reviewers": {}, "reviewers": {}}', is_json=True)
    with pytest.raises(InputError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_the_policy_in_the_docs_is_one() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/review.md").read_text(encoding="utf-8"), re.DOTALL)
    policy = parse_policy(text)
    assert route(proposal(kind="contract"), policy).approvals == 2
    assert ReviewPolicy(**{name: getattr(policy, name) for name in ("automatic_above", "check_monitored")}) == (
        ReviewPolicy()
    )
