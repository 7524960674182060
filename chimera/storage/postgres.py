"""A journal in PostgreSQL: the tables of the SQLite one; a commit is one statement in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chimera.core.errors import MissingExtra, StorageError
from chimera.storage.group_commit import DEFAULT_LIMITS, Growth, Limits
from chimera.storage.journal import SWARM_PREFIX, MissionSummary
from chimera.storage.server import Disconnected, ServerJournal
from chimera.storage.url import check_server, hide_password, unreadable

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.rows import dict_row
except ImportError:
    raise MissingExtra("psycopg", "postgres") from None

SCHEMA_VERSION = 1
SCHEMA_LOCK = 0x4348494D
CONNECT_S = 5
SETTINGS = "SET synchronous_commit = on; SET statement_timeout = '60s'"
FIND_TABLES = """
SELECT count(*) FROM pg_tables WHERE tablename = 'chimera_schema' AND schemaname = ANY(current_schemas(false))
"""
SCHEMA = """
CREATE TABLE chimera_schema (version INTEGER NOT NULL);
CREATE TABLE chimera_missions (
    n BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    mission_id TEXT COLLATE "C" NOT NULL UNIQUE,
    listed BOOLEAN NOT NULL,
    swarm TEXT COLLATE "C" NOT NULL,
    first_at_s DOUBLE PRECISION NOT NULL,
    last_at_s DOUBLE PRECISION NOT NULL,
    ended_at_s DOUBLE PRECISION,
    last_kind TEXT NOT NULL,
    last_seq BIGINT NOT NULL
);
CREATE TABLE chimera_events (
    n BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    line BYTEA NOT NULL,
    PRIMARY KEY (n, seq)
);
CREATE INDEX chimera_missions_listed ON chimera_missions (n) WHERE listed;
CREATE INDEX chimera_missions_of_swarm ON chimera_missions (swarm, n) WHERE listed;
CREATE INDEX chimera_missions_running ON chimera_missions (n) WHERE listed AND ended_at_s IS NULL;
CREATE INDEX chimera_missions_running_of_swarm ON chimera_missions (swarm, n) WHERE listed AND ended_at_s IS NULL;
CREATE INDEX chimera_missions_ended ON chimera_missions (ended_at_s) WHERE listed AND ended_at_s IS NOT NULL;
"""
# Rows are locked by order of name, so that two writers of the same missions do not wait for each other in a ring.
WRITE = """
WITH new AS (
    SELECT * FROM unnest(
        %s::text[], %s::boolean[], %s::bigint[], %s::bigint[], %s::text[], %s::float8[], %s::float8[], %s::text[]
    ) WITH ORDINALITY AS v (mission_id, listed, after, last_seq, swarm, first_at_s, last_at_s, last_kind, place)
), begun AS (
    INSERT INTO chimera_missions
        (mission_id, listed, swarm, first_at_s, last_at_s, ended_at_s, last_kind, last_seq)
    SELECT mission_id, listed, swarm, first_at_s, last_at_s,
        CASE WHEN last_kind = 'mission_ended' THEN last_at_s END, last_kind, last_seq
    FROM new WHERE after = 0 ORDER BY place
    ON CONFLICT (mission_id) DO NOTHING
    RETURNING n, mission_id
), locked AS (
    SELECT old.mission_id, new.after, new.last_seq, new.swarm, new.last_at_s, new.last_kind
    FROM chimera_missions AS old JOIN new USING (mission_id) WHERE new.after > 0
    ORDER BY old.mission_id FOR UPDATE OF old
), moved AS (
    UPDATE chimera_missions AS old SET swarm = new.swarm, last_at_s = new.last_at_s,
        ended_at_s = CASE WHEN new.last_kind = 'mission_ended' THEN new.last_at_s END,
        last_kind = new.last_kind, last_seq = new.last_seq
    FROM locked AS new WHERE old.mission_id = new.mission_id AND old.last_seq = new.after
    RETURNING old.n, old.mission_id
), grown AS (
    TABLE begun UNION ALL TABLE moved
), stored AS (
    INSERT INTO chimera_events (n, seq, line)
    SELECT grown.n, e.seq, e.line FROM unnest(%s::text[], %s::bigint[], %b::bytea[]) AS e (mission_id, seq, line)
    JOIN grown USING (mission_id)
)
SELECT count(*) FROM grown
"""
LAST_SEQS = "SELECT mission_id, last_seq FROM chimera_missions WHERE mission_id = ANY(%s)"
LINES = """
SELECT line FROM chimera_events WHERE n = (SELECT n FROM chimera_missions WHERE mission_id = %s) AND seq > %s
ORDER BY seq LIMIT %s
"""
LIST = """
SELECT mission_id, swarm, first_at_s, last_at_s, last_kind, last_seq AS events FROM chimera_missions
WHERE listed {} ORDER BY n DESC LIMIT %s
"""
DELETE = """
WITH gone AS (
    DELETE FROM chimera_missions WHERE n IN (
        SELECT n FROM chimera_missions WHERE listed AND ended_at_s < %s ORDER BY ended_at_s LIMIT %s
        FOR UPDATE SKIP LOCKED
    ) RETURNING n
), lines AS (
    DELETE FROM chimera_events USING gone WHERE chimera_events.n = gone.n
)
SELECT count(*) FROM gone
"""
GOING_AWAY = ("08", "57P")  # SQLSTATE: connection exceptions; the server shuts down, crashed or starts
RIVALRY = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


class PostgresJournal(ServerJournal):
    """A journal in the database at `url`, `postgresql://[USER:PASSWORD@]HOST[:PORT]/DB`, in which it makes its tables.

    Several processes may write it. Raises InputError for a URL that cannot be read.
    """

    def __init__(self, *, url: str, limits: Limits = DEFAULT_LIMITS) -> None:
        check_server(url, "PostgreSQL database")
        try:
            conninfo_to_dict(url)
        except psycopg.Error:
            raise unreadable(url, "PostgreSQL database") from None
        super().__init__(where=hide_password(url), limits=limits)
        self._writing, self._reading = _Link(url, self.where), _Link(url, self.where)

    async def _write(self, growths: Sequence[Growth]) -> bool:
        missions = [
            [growth.mission_id for growth in growths],
            [not growth.mission_id.startswith(SWARM_PREFIX) for growth in growths],
            [growth.after for growth in growths],
            [growth.after + len(growth.lines) for growth in growths],
            [growth.last.swarm for growth in growths],
            [growth.first.at_s for growth in growths],
            [growth.last.at_s for growth in growths],
            [str(growth.last.kind) for growth in growths],
        ]
        events = [
            [growth.mission_id for growth in growths for _ in growth.lines],
            [growth.after + 1 + i for growth in growths for i in range(len(growth.lines))],
            [line for growth in growths for line in growth.lines],
        ]
        async with self._writing.connection() as connection:
            try:
                async with connection.transaction() as transaction:
                    found = await connection.execute(WRITE, [*missions, *events])
                    ((grown,),) = await found.fetchall()
                    if grown != len(growths):
                        raise psycopg.Rollback(transaction)
            except RIVALRY:
                return False
        return bool(grown == len(growths))

    async def _last_seqs(self, missions: Iterable[str]) -> dict[str, int]:
        async with self._writing.connection() as connection:
            found = await connection.execute(LAST_SEQS, [list(missions)])
            return {mission: last_seq async for mission, last_seq in found}

    async def _lines(self, mission_id: str, after: int, limit: int) -> list[bytes]:
        async with self._reading.connection() as connection:
            found = await connection.execute(LINES, [mission_id, after, limit], binary=True)
            return [line async for (line,) in found]

    async def _list(self, limit: int, swarm: str | None, running: bool) -> list[MissionSummary]:
        where = "AND ended_at_s IS NULL" * running + " AND swarm = %s" * (swarm is not None)
        values: list[Any] = [limit] if swarm is None else [swarm, limit]
        async with self._reading.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(LIST.format(where).encode(), values)
            return [MissionSummary(**row) async for row in cursor]

    async def _delete(self, ended_before_s: float, limit: int) -> int:
        async with self._reading.connection() as connection:
            ((deleted,),) = await (await connection.execute(DELETE, [ended_before_s, limit])).fetchall()
        return int(deleted)

    async def _disconnect(self) -> None:
        await self._writing.close()
        await self._reading.close()


class _Link:
    """One connection, made at its first use and anew after it broke; for one user at a time."""

    def __init__(self, url: str, where: str) -> None:
        self._where = where
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._url = url

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """The connection, in autocommit mode. Raises StorageError and Disconnected."""
        try:
            if self._connection is None:
                self._connection = await self._connect()
            yield self._connection
        except psycopg.Error as error:
            code = error.sqlstate or ""
            if code and not code.startswith(GOING_AWAY):
                raise StorageError(f"{self._where}: {error}") from error
            await self.close()
            raise Disconnected(str(error)) from error
        except BaseException:
            await self.close()  # cancelled in the middle of an answer, perhaps
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_S,
            keepalives_idle=10,
            tcp_user_timeout=30_000,
            fallback_application_name="chimera",
        )
        try:
            await connection.execute(SETTINGS)
            await self._make_tables(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _make_tables(self, connection: psycopg.AsyncConnection[Any]) -> None:
        version = await _schema_version(connection)
        if version == 0:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA_LOCK])
                if await _schema_version(connection) == 0:  # again, under the lock: two may come at once
                    await connection.execute(SCHEMA)
                    await connection.execute("INSERT INTO chimera_schema VALUES (%s)", [SCHEMA_VERSION])
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"{self._where}: its tables were made by a newer Chimera (schema {version}; this one knows"
                f" {SCHEMA_VERSION}): upgrade Chimera or name another database for the journal"
            )


async def _schema_version(connection: psycopg.AsyncConnection[Any]) -> int:
    """0 where there are no tables yet."""
    ((tables,),) = await (await connection.execute(FIND_TABLES)).fetchall()
    if tables == 0:
        return 0
    ((version,),) = await (await connection.execute("SELECT version FROM chimera_schema")).fetchall()
    return int(version)
