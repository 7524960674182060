"""`chimera.Client`: a node's verbs for scripts, one call after the other. It needs neither Ray nor an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from chimera.client import raise_if_bad_input
from chimera.core.errors import SwarmError
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Budget, Task, TaskResult
from chimera.http_client.node import HttpNode
from chimera.http_client.transport import Transport
from chimera.reload.messages import Reloaded, ReloadStatus
from chimera.security.capabilities import CapabilityToken
from chimera.storage.journal import MissionSummary
from chimera.swarm.mission import Mission
from chimera.swarm.mission_file import load_mission, parse_mission
from chimera.swarm.status import SwarmStatus

T = TypeVar("T")

TOKEN = "CHIMERA_TOKEN"


class Client:
    """A node's API, as `chimera.SwarmCoordinator` and with the same errors. Thread-safe; close it, or use `with`.

    `url` is as `chimera serve` prints it. `token` is an access token or an API key (default: CHIMERA_TOKEN); `login`
    gets one, which is renewed for as long as the node lets it. `ca` is a file of certificates to trust. Over a network
    it insists on https unless told that `plain` HTTP is meant. Requests that were lost are sent again, and done once.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8700",
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        ca: Path | None = None,
        plain: bool = False,
    ) -> None:
        transport = Transport(url, token or os.environ.get(TOKEN), timeout_s=timeout_s, ca=ca, plain=plain)
        self._node = HttpNode(transport)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chimera-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._node.transport.url!r})"

    def close(self) -> None:
        """End the connections. Twice is fine."""
        if self._loop.is_closed():
            return
        self._do(self._node.transport.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def login(self, user: str, password: str, new_password: str | None = None) -> None:
        """Log in, and change the password if a new one is given, which a one-time password needs."""
        self._do(self._node.login(user, password, new_password))

    def logout(self) -> None:
        """End the session: its tokens are of no use any more, wherever they are. An API key is revoked instead."""
        self._do(self._node.logout())

    def who(self) -> dict[str, Any]:
        """Whom the token stands for: subject, role, kind, permissions, expires_at."""
        return self._do(self._node.who())

    def create_key(self, role: str = "api_client", **wanted: Any) -> tuple[str, str]:
        """A new API key: its secret, which cannot be had again, and its id.

        `user`, `scopes`, `rate_limit` (requests a second), `expires_in_s` and `label` may be given.
        """
        return self._do(self._node.create_key(role=role, **wanted))

    def keys(self, user: str = "") -> list[dict[str, Any]]:
        """One's own keys, or with the permission everybody's. Secrets are not in it."""
        return self._do(self._node.keys(user))

    def revoke_key(self, key_id: str) -> None:
        """End a key, and those that were made with it."""
        self._do(self._node.revoke_key(key_id))

    def issue_capability(
        self,
        operations: Sequence[str],
        resource: str,
        *,
        ttl_s: float = 900.0,
        holder: str | None = None,
        caveats: Mapping[str, Any] | None = None,
    ) -> tuple[CapabilityToken, str]:
        """Leave for these operations on a resource, to hand to an agent: its token, which cannot be had again; its id.

        It is for `holder`, the caller by default. `expires_at` (seconds since the epoch), `resource`, `operations`,
        `max_usd`, `uses`, `audience` and `tenant` may be `caveats`.
        """
        asked = self._node.issue_capability(operations, resource, ttl_s=ttl_s, holder=holder, caveats=caveats)
        return self._do(asked)

    def revoke_capability(self, revocation_id: str) -> None:
        """End a capability, and all that is derived from it, within a second."""
        self._do(self._node.revoke_capability(revocation_id))

    def spawn_agent(self, spec: AgentSpec) -> str:
        """Spawn one agent and return its id."""
        return self.spawn_agents([spec])[0]

    def spawn_agents(self, specs: Sequence[AgentSpec]) -> list[str]:
        """Spawn agents. Their policies are named; which ones may be is the node's setting."""
        return self._do(self._node.spawn_agents(specs))

    def submit_task(self, task: Task, *, budget: Budget | None = None) -> TaskResult:
        """Run one task and wait for its result."""
        return self.result(self.start_task(task, budget=budget))

    def start_task(self, task: Task, *, budget: Budget | None = None) -> str:
        """Start one task and return its mission's id at once."""
        return self._do(self._node.start_task(task, budget))

    def run(self, mission: Mission | Mapping[str, Any] | Path) -> TaskResult:
        """Run a mission and wait for its result: a Mission, a mapping, or the path of a YAML or JSON file."""
        return self.result(self.start(mission))

    def start(self, mission: Mission | Mapping[str, Any] | Path) -> str:
        """Start a mission and return its id at once. Its agents must be there, and it names no documents."""
        if isinstance(mission, Path):
            mission = load_mission(mission)
        elif not isinstance(mission, Mission):
            mission = parse_mission(mission)
        return self._do(self._node.start_mission(mission))

    def consensus(self, task: Task, *, budget: Budget | None = None) -> TaskResult:
        """Put a question to several agents, and wait for what they agree on."""
        return raise_if_bad_input(self._do(self._node.consensus(task, budget)))

    def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None:
        """A mission's result; None if it is still running after `wait_s` (at most 20)."""
        return self._do(self._node.look_up(mission_id, wait_s))

    def result(self, mission_id: str) -> TaskResult:
        """Wait for a mission's result. Raises the mission's own InputError when its input was at fault."""
        return raise_if_bad_input(self._do(self._node.result(mission_id)))

    def cancel(self, mission_id: str) -> TaskResult:
        """End a mission and return what there is by then; one that has ended stays as it is."""
        return self._do(self._node.cancel(mission_id))

    def missions(self, limit: int = 100, *, running: bool = False) -> list[MissionSummary]:
        """The missions that one may see, the one that began last first."""
        return self._do(self._node.missions(limit, running=running))

    def read_events(self, mission_id: str, after: int = 0) -> list[Event]:
        """Events with `seq > after`, at most 100."""
        return self._do(self._node.read_events(mission_id, after))

    def events(self, mission_id: str) -> Iterator[Event]:
        """A mission's events from its first to its last, as they happen."""
        events = self._node.events(mission_id)

        async def following() -> Event | None:
            return await anext(events, None)

        while (event := self._do(following())) is not None:
            yield event

    def status(self) -> SwarmStatus:
        """The swarm at this moment: what `chimera top` shows."""
        return self._do(self._node.status())

    def reload(self, module: str, source: str | Path, signature: str) -> Reloaded:
        """Have this source of `module` in every cell, or in none. `signature` is by one of the node's reload keys."""
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        return self._do(self._node.reload(module, text, signature))

    def reload_status(self) -> ReloadStatus:
        """Which versions of which modules run in the swarm."""
        return self._do(self._node.reload_status())

    def generate(self, module: str, failure: str, files: Mapping[str, str]) -> dict[str, Any]:
        """A patch for a failure, made by the node's model and not applied."""
        return self._do(self._node.generate(module, failure, files))

    def anomalies(self, metric: str | None = None, limit: int = 100) -> dict[str, Any]:
        """The last alerts, and the metrics that are watched; with `metric`, its readings too."""
        return self._do(self._node.anomalies(metric, limit))

    def predict(
        self, metric: str | None = None, values: Sequence[float] | None = None, horizon: int = 12
    ) -> dict[str, list[float]]:
        """What comes next of a metric that is watched, or of these values: mean, low and high."""
        return self._do(self._node.predict(metric, values, horizon))

    def reviews(self, limit: int = 100) -> list[dict[str, Any]]:
        """What waits for a person, the longest first: id, module, files, summary, confidence."""
        return self._do(self._node.reviews(limit))

    def review(self, review_id: str) -> dict[str, Any]:
        """All of one: failure, diffs, verdict, tests, confidence. Raises NotThere."""
        return self._do(self._node.review(review_id))

    def approve_review(self, review_id: str) -> dict[str, Any]:
        """Let the node apply a patch: its code then runs there. Heeded when the node gets to it."""
        return self._do(self._node.answer_review(review_id, "approve"))

    def refuse_review(self, review_id: str) -> dict[str, Any]:
        """Have the node forget a patch, and remember that it was refused."""
        return self._do(self._node.answer_review(review_id, "refuse"))

    def queue(self, limit: int = 100, *, mine: bool = False, **wanted: str) -> list[dict[str, Any]]:
        """Items that wait for people, without their payloads; of one `kind`, `group` or `mission`, if given."""
        return self._do(self._node.queue(limit, mine=mine, **wanted))

    def queue_item(self, item_id: str) -> dict[str, Any]:
        """All of one: payload, why it waits, who changed it, what people said. Raises NotThere."""
        return self._do(self._node.queue_item(item_id))

    def claim_item(self, item_id: str) -> dict[str, Any]:
        """Take it for a while. Raises InputError where somebody else has it."""
        return self._do(self._node.say_of_item(item_id, "claim"))

    def release_item(self, item_id: str) -> dict[str, Any]:
        return self._do(self._node.say_of_item(item_id, "release"))

    def approve_item(self, item_id: str, version: int) -> dict[str, Any]:
        """Agree to the version that was looked at. Raises Forbidden, and InputError where it has changed or ended."""
        return self._do(self._node.say_of_item(item_id, "approve", version=version))

    def reject_item(self, item_id: str, reason: str) -> dict[str, Any]:
        return self._do(self._node.say_of_item(item_id, "reject", reason=reason))

    def edit_item(self, item_id: str, version: int, payload: Any, reason: str = "") -> dict[str, Any]:
        """Agree to it as changed. Raises InputError for a payload that cannot take the place of that version's."""
        return self._do(self._node.say_of_item(item_id, "edit", version=version, payload=payload, reason=reason))

    def escalate_item(self, item_id: str, to: str, reason: str) -> dict[str, Any]:
        """Pass it on to a group, which alone decides from then on."""
        return self._do(self._node.say_of_item(item_id, "escalate", to=to, reason=reason))

    def content_report(self, campaign: str = "") -> dict[str, Any]:
        """How what is published does, each figure with its 95 % interval; of one campaign, if given."""
        return self._do(self._node.content_report(campaign))

    def content_items(self, limit: int = 100, campaign: str = "") -> list[dict[str, Any]]:
        """What was made, the newest first, and where each item stands."""
        return self._do(self._node.content_items(limit, campaign))

    def duels(self, limit: int = 100, env_id: str | None = None) -> list[dict[str, Any]]:
        """Duels that were held on the node's machine, the one that began last first; in `env_id` alone, if given."""
        return self._do(self._node.duels(limit, env_id))

    def duel(self, duel_id: str) -> dict[str, Any]:
        """One, with its course: how its interval narrowed. Raises NotThere."""
        return self._do(self._node.duel(duel_id))

    def audit(self, limit: int = 100, **wanted: Any) -> list[dict[str, Any]]:
        """Entries of the audit log, the oldest first; `actor`, `action` and `after` choose."""
        return self._do(self._node.audit(limit, **wanted))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise SwarmError("this client has been closed: make another")
        answer = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()
            raise
