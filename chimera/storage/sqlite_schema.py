"""The journal's tables in SQLite, and how a file of an older version becomes one of this."""

from __future__ import annotations

import sqlite3

from chimera.core.events import EventKind
from chimera.storage.journal import SWARM_PREFIX, decode_event
from chimera.storage.sqlite_file import Layout

TABLES_1 = (
    """CREATE TABLE missions (
        n INTEGER PRIMARY KEY,
        mission_id TEXT NOT NULL UNIQUE,
        first_at_s REAL NOT NULL,
        last_kind TEXT NOT NULL,
        last_seq INTEGER NOT NULL
    )""",
    """CREATE TABLE events (
        mission_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        line BLOB NOT NULL,
        PRIMARY KEY (mission_id, seq)
    )""",
)

# `listed` is 0 for a swarm's own stream. `ended_at_s` is NULL while a mission runs.
TABLES_2 = (
    """CREATE TABLE missions (
        n INTEGER PRIMARY KEY,
        mission_id TEXT NOT NULL UNIQUE,
        listed INTEGER NOT NULL,
        swarm TEXT NOT NULL,
        first_at_s REAL NOT NULL,
        last_at_s REAL NOT NULL,
        ended_at_s REAL,
        last_kind TEXT NOT NULL,
        last_seq INTEGER NOT NULL
    )""",
    """CREATE TABLE events (
        n INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        line BLOB NOT NULL,
        UNIQUE (n, seq)
    )""",
    "CREATE INDEX missions_of_swarm ON missions (swarm, n) WHERE listed",
    "CREATE INDEX missions_running ON missions (n) WHERE listed AND ended_at_s IS NULL",
    "CREATE INDEX missions_running_of_swarm ON missions (swarm, n) WHERE listed AND ended_at_s IS NULL",
    "CREATE INDEX missions_ended ON missions (ended_at_s) WHERE listed AND ended_at_s IS NOT NULL",
)


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in TABLES_1:
        connection.execute(statement)


def _to_2(connection: sqlite3.Connection) -> None:
    """Who wrote a mission last, and when, moves into its row; an event names its mission by number."""
    connection.execute("ALTER TABLE missions RENAME TO missions_1")
    connection.execute("ALTER TABLE events RENAME TO events_1")
    for statement in TABLES_2:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO events SELECT n, seq, line FROM missions_1 JOIN events_1 USING (mission_id) ORDER BY n, seq"
    )
    missions = connection.execute(
        "SELECT n, mission_id, first_at_s, last_kind, last_seq, line FROM missions_1 JOIN events USING (n)"
        " WHERE seq = last_seq ORDER BY n"
    )
    for n, mission_id, first_at_s, last_kind, last_seq, line in missions:
        last = decode_event(line, f"event {last_seq} of mission {mission_id}")
        ended_at_s = last.at_s if last_kind == EventKind.MISSION_ENDED else None
        listed = not mission_id.startswith(SWARM_PREFIX)
        connection.execute(
            "INSERT INTO missions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (n, mission_id, listed, last.swarm, first_at_s, last.at_s, ended_at_s, last_kind, last_seq),
        )
    connection.execute("DROP TABLE missions_1")
    connection.execute("DROP TABLE events_1")


JOURNAL = Layout(what="journal", application_id=0x4348494D, upgrades=(_to_1, _to_2))  # "CHIM"
