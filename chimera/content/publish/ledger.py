"""What became of every post, in a SQLite file: each step is durable before the next is taken.

A post is `sending` in the file before a byte of it leaves, so whoever comes after a crash knows what to look for. The
caps are kept here, in the transaction that marks a post as `sending`: no number of processes passes them, and neither
does a clock that was turned back; one that was ahead delays that account alone. They are counted by the identity at the
platform, which another name does not change.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chimera.content.accounts import Account
from chimera.content.publish import rows
from chimera.content.publish.scheduler import DAY_S, HOUR_S
from chimera.content.publish.types import Claim, Entry, Post, PostState, Wait
from chimera.content.rules.similarity import Likeness, likeness
from chimera.core.clock import Clock
from chimera.core.errors import Forbidden, NotThere, Overloaded
from chimera.storage.sqlite_file import boundary, open_file, transaction

MAX_WAITING: Final = 10_000
"""Posts of an account that are neither out nor given up."""

MAX_COMPARED: Final = 5_000
BUSY_TIMEOUT_S: Final = 10.0


class PostLedger:
    """The ledger in the file at `path`. Threads and processes may share it.

    `accounts` are bound to their identities for good: Raises Forbidden for a name that stood for another before.
    """

    def __init__(self, path: Path, accounts: Iterable[Account], *, clock: Clock) -> None:
        self.path = path
        self._accounts = {one.name: one for one in accounts}
        self._clock = clock
        self._lock = threading.RLock()
        self._db = open_file(path, rows.LAYOUT, BUSY_TIMEOUT_S)
        try:
            with self._write():
                for one in self._accounts.values():
                    self._bind(one)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _bind(self, account: Account) -> None:
        self._db.execute("INSERT OR IGNORE INTO identities VALUES (?, ?)", (account.name, account.identity))
        for name, identity in self._db.execute(
            "SELECT name, identity FROM identities WHERE name = ? OR identity = ?", (account.name, account.identity)
        ):
            if (name, identity) != (account.name, account.identity):
                raise Forbidden(
                    f"{account.name} ({account.identity}) was declared as {name} ({identity}) before: an account keeps"
                    " its identity; a new one needs a new name"
                )

    def account(self, name: str) -> Account:
        """Raises NotThere for one that is not declared."""
        if name not in self._accounts:
            raise NotThere(f"no account {name} is declared")
        return self._accounts[name]

    def add(self, post: Post) -> Entry:
        """The post as a draft; as it stands, if it is there already. Raises Overloaded if too many wait."""
        with self._write():
            if (known := self._find(post.key)) is not None:
                return known
            query = "SELECT count(*) FROM posts WHERE account = ? AND state IN ('draft', 'scheduled', 'sending')"
            if self._db.execute(query, (post.account,)).fetchone()[0] >= MAX_WAITING:
                raise Overloaded(f"{post.account} has {MAX_WAITING} posts waiting: hand it in later", HOUR_S)
            self._db.execute(
                "INSERT INTO posts (key, account, state, post, parts, refs, likeness, created_s)"
                " VALUES (?, ?, 'draft', ?, ?, ?, ?, ?)",
                (
                    post.key,
                    post.account,
                    post.model_dump_json(),
                    len(post.parts),
                    json.dumps([""] * len(post.parts)),
                    likeness("\n".join(post.parts)).to_bytes(),
                    self._clock.now(),
                ),
            )
            return rows.entry(self._row(post.key))

    def entry(self, key: str) -> Entry:
        """Raises NotThere."""
        with self._read():
            return rows.entry(self._row(key))

    def entries(self, state: PostState, *, until_s: float = float("inf"), limit: int = 100) -> tuple[Entry, ...]:
        """Those in a state that are due by then (being sent: may be tried again by then), first due first."""
        when = "not_before_s" if state is PostState.SENDING else "due_s"
        query = f"SELECT * FROM posts WHERE state = ? AND {when} <= ? ORDER BY {when}, n LIMIT ?"
        with self._read():
            return tuple(rows.entry(row) for row in self._db.execute(query, (state.value, until_s, limit)).fetchall())

    def planned(self, account: str, since_s: float) -> tuple[float, ...]:
        """When posts of an account went out since, and are to go out."""
        query = (
            "SELECT at_s, parts FROM claims WHERE identity = ?1 AND at_s > ?2 UNION ALL"
            " SELECT due_s, parts FROM posts WHERE account = ?3 AND state = 'scheduled'"
        )
        with self._read():
            found = self._db.execute(query, (self.account(account).identity, since_s, account)).fetchall()
        return tuple(at_s for at_s, parts in found for _ in range(parts))

    def schedule(self, key: str, due_s: float) -> bool:
        """A draft, or one that is scheduled already, is to go out at `due_s`. Whether it is now."""
        return self._move(key, PostState.SCHEDULED, "due_s = ?, reason = ''", (due_s,), ("draft", "scheduled"))

    def hold(self, key: str, reason: str) -> bool:
        """It is a draft, and waits for a person."""
        return self._move(key, PostState.DRAFT, "reason = ?", (reason,), ("draft", "scheduled", "sending"))

    def claim(self, key: str, *, settle_s: float = 0.0) -> Entry | Wait | None:
        """Mark a scheduled post as being sent, and count it; None if it is not scheduled (another process has it).

        In one transaction with the count: a Wait says which cap it would pass. `settle_s` is for how long after a crash
        a request may still be on its way: before that nobody looks whether it arrived.
        """
        with self._write():
            row = self._row(key)
            if row["state"] != PostState.SCHEDULED.value:
                return None
            account = self.account(row["account"])
            query = "SELECT coalesce(max(at_s), 0) FROM claims WHERE identity = ?"
            last_s = self._db.execute(query, (account.identity,)).fetchone()[0]
            at_s = max(self._clock.now(), last_s)
            if (wait := self._capped(account, at_s, row["parts"])) is not None:
                return wait
            self._db.execute("INSERT INTO claims VALUES (?, ?, ?, ?)", (key, account.identity, at_s, row["parts"]))
            self._db.execute(
                "UPDATE posts SET state = 'sending', claimed_s = ?, not_before_s = ?,"
                " attempts = attempts + 1 WHERE key = ?",
                (row["claimed_s"] or at_s, at_s + settle_s, key),
            )
            return rows.entry(self._row(key))

    def _capped(self, account: Account, at_s: float, parts: int) -> Wait | None:
        query = "SELECT max(at_s) FROM claims WHERE identity = ?"
        last_s = self._db.execute(query, (account.identity,)).fetchone()[0]
        if last_s is not None and at_s < last_s + account.caps.gap_s:
            return Wait(rule="volume.gap", until_s=last_s + account.caps.gap_s)
        for rule, cap, window_s in (
            ("volume.hour", account.caps.per_hour, HOUR_S),
            ("volume.day", account.caps.per_day, DAY_S),
        ):
            counted, oldest_s = self._db.execute(
                "SELECT coalesce(sum(parts), 0), min(at_s) FROM claims WHERE identity = ? AND at_s > ?",
                (account.identity, at_s - window_s),
            ).fetchone()
            if counted + parts > cap:
                return Wait(rule=rule, until_s=(oldest_s or at_s) + window_s)
        return None

    def claimed(self, key: str, account: str) -> Claim:
        """The right to send the part of that key by that account now. Raises Forbidden without one.

        A part has it while its post is being sent, and until it is known to be out.
        """
        whole, _, number = key.rpartition(".")
        with self._read():
            row = self._db.execute("SELECT * FROM posts WHERE key = ?", (whole,)).fetchone()
        if row is None or row["account"] != account or row["state"] != PostState.SENDING.value or not number.isdigit():
            raise Forbidden("only what the ledger has marked as being sent goes out: hand the post to a Sender")
        references = json.loads(row["refs"])
        here = int(number)
        if here >= len(references) or references[here]:
            raise Forbidden(f"part {here} of {whole} is out already")
        if not all(references[:here]):
            raise Forbidden(f"part {here} of {whole} comes after those before it")
        replies = (references[0], references[here - 1]) if here else ()
        return Claim(key=key, at_s=row["claimed_s"], replies=replies)

    def part_sent(self, key: str, number: int, reference: str) -> Entry:
        """Part `number` is out, under `reference`. With the last of them the post is sent."""
        with self._write():
            references = json.loads(self._row(key)["refs"])
            references[number] = reference
            self._db.execute("UPDATE posts SET refs = ? WHERE key = ?", (json.dumps(references), key))
            if all(references):
                self._db.execute(
                    "UPDATE posts SET state = 'sent', sent_s = ?, reason = '' WHERE key = ? AND state = 'sending'",
                    (self._clock.now(), key),
                )
            return rows.entry(self._row(key))

    def postpone(self, key: str, not_before_s: float, reason: str) -> bool:
        """It is still being sent, and is tried again from then on, after looking whether it is there."""
        more = "not_before_s = ?, reason = ?, attempts = attempts + 1"
        return self._move(key, PostState.SENDING, more, (not_before_s, reason), ("sending",))

    def fail(self, key: str, reason: str) -> bool:
        """It is not sent, or no further."""
        return self._move(key, PostState.FAILED, "reason = ?", (reason,), ("draft", "scheduled", "sending"))

    def taken_down(self, key: str, reason: str) -> bool:
        """It is not, or no longer, out. Its record stays."""
        return self._move(key, PostState.TAKEN_DOWN, "reason = ?", (reason,), tuple(PostState))

    def approve(self, digests: Iterable[str], by: str, rules: Iterable[str]) -> None:
        """A person lets these very outputs out in spite of these rules. What a rule blocks, nobody can."""
        told = json.dumps(sorted(rules))
        with self._write():
            for digest in digests:
                self._db.execute("INSERT OR REPLACE INTO approvals VALUES (?, ?, ?)", (digest, by, told))

    def approver(self, digest: str, rules: frozenset[str]) -> str:
        """Who approved it in spite of all these rules; "" if nobody did. For a SafetyGateway."""
        with self._read():
            row = self._db.execute("SELECT approver, rules FROM approvals WHERE digest = ?", (digest,)).fetchone()
        return str(row["approver"]) if row is not None and rules <= set(json.loads(row["rules"])) else ""

    def new_audience(self, account: str, audience: str) -> bool:
        """Whether nothing of this account has gone out to this audience yet."""
        query = "SELECT 1 FROM posts WHERE account = ? AND sent_s > 0 AND json_extract(post, '$.audience') = ? LIMIT 1"
        with self._read():
            return self._db.execute(query, (account, audience)).fetchone() is None

    def said_by_others(self, post_key: str, account: str, since_s: float) -> list[tuple[str, Likeness]]:
        """What other accounts said or were to say before this post came in, newest first: names and likenesses.

        Of two accounts with one message the first that came in may say it, whichever is sent first.
        """
        query = (
            "SELECT account, likeness FROM posts WHERE account != ?1 AND max(created_s, sent_s) >= ?2"
            " AND (sent_s > 0 OR claimed_s > 0 OR state IN ('draft', 'scheduled', 'sending'))"
            " AND n < coalesce((SELECT n FROM posts WHERE key = ?3), 9e18) ORDER BY n DESC LIMIT ?4"
        )
        with self._read():
            found = self._db.execute(query, (account, since_s, post_key, MAX_COMPARED)).fetchall()
        return [(row["account"], Likeness.from_bytes(row["likeness"])) for row in found]

    def said_before(self, post_key: str, account: str, reply_to: str, since_s: float) -> list[Likeness]:
        """What this account said or was to say before this post came in, newest first.

        For a reply, what answers the same. Another draft of the same item does not count, as it may have been changed
        since; but it does not go out either once the other is planned.
        """
        query = (
            "SELECT likeness, json_extract(post, '$.reply_to') AS answers FROM posts"
            " WHERE account = ?1 AND key != ?2 AND max(created_s, sent_s) >= ?3"
            " AND (sent_s > 0 OR n < coalesce(?4, 9e18) AND (claimed_s > 0 OR state IN ('scheduled', 'sending')"
            " OR state = 'draft' AND json_extract(post, '$.item_id') IS NOT ?5)) ORDER BY n DESC LIMIT ?6"
        )
        with self._read():
            row = self._db.execute("SELECT * FROM posts WHERE key = ?", (post_key,)).fetchone()
            post = None if row is None else rows.entry(row).post
            number, item = (None, None) if post is None else (row["n"], post.item_id)
            mention = _mention(reply_to if post is None else post.reply_to)
            found = self._db.execute(query, (account, post_key, since_s, number, item, MAX_COMPARED)).fetchall()
        same = [one for one in found if not mention or _mention(one["answers"]) == mention]
        return [Likeness.from_bytes(one["likeness"]) for one in same]

    def sole_sender(self) -> rows.SenderLock:
        """Held by the one process that sends: what is `sending` while one has it, nobody is at any more."""
        return rows.SenderLock(self.path)

    def _move(self, key: str, to: PostState, more: str, values: tuple[object, ...], allowed: tuple[str, ...]) -> bool:
        marks = ",".join("?" * len(allowed))
        query = f"UPDATE posts SET state = ?, {more} WHERE key = ? AND state IN ({marks})"
        with self._write():
            return self._db.execute(query, (to.value, *values, key, *map(str, allowed))).rowcount == 1

    def _find(self, key: str) -> Entry | None:
        row = self._db.execute("SELECT * FROM posts WHERE key = ?", (key,)).fetchone()
        return None if row is None else rows.entry(row)

    def _row(self, key: str) -> sqlite3.Row:
        row: sqlite3.Row | None = self._db.execute("SELECT * FROM posts WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise NotThere(f"no post {key} is in {self.path}")
        return row

    @contextmanager
    def _write(self) -> Iterator[None]:
        with self._lock, boundary(self.path, rows.LAYOUT.what):
            self._db.row_factory = sqlite3.Row
            with transaction(self._db):
                yield

    @contextmanager
    def _read(self) -> Iterator[None]:
        with self._lock, boundary(self.path, rows.LAYOUT.what):
            self._db.row_factory = sqlite3.Row
            yield


def _mention(reply_to: str) -> str:
    """What is answered, less the thread's root; "" for what answers nobody, as the later parts of a thread do."""
    return "" if reply_to.startswith("part:") else reply_to.partition(" ")[0]
