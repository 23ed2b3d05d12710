"""
The connection to SQLite or PostgreSQL: pools, pragmas, time-outs, transactions, errors.

Rules: every write begins with the write lock (BEGIN IMMEDIATE on SQLite, because a transaction
that reads first and writes later fails at once under concurrency, whatever its busy time-out);
every failure of the database closes its connection and becomes a `DatabaseAwayError`; no wait for
the database is unbounded, not even for a PostgreSQL that is stopped with its sockets open.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import peewee
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase

from lipservice.exceptions import ConfigurationError
from lipservice_server.errors import DatabaseAwayError, InvalidError

Dialect = Literal["sqlite", "postgresql"]
Row = dict[str, Any]

_PRAGMAS: Final = (
    ("journal_mode", "wal"),
    ("synchronous", "normal"),
    ("foreign_keys", 1),
    ("cache_size", -32_000),
    ("temp_store", "memory"),
    ("journal_size_limit", 64 * 1024 * 1024),
)
_AWAY: Final = (peewee.OperationalError, peewee.InterfaceError, peewee.InternalError)


class Database:
    """
    One database. Safe to share between threads: each has its own connection.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host:port/name?options`.
        pool_size: Connections to PostgreSQL that this process holds at most.
        timeout: Longest wait for one statement, in seconds.
    """

    def __init__(self, url: str, *, pool_size: int = 8, timeout: float = 3.0) -> None:
        self.timeout = timeout
        self.dialect: Dialect = "sqlite" if url.startswith("sqlite:") else "postgresql"
        self._local = threading.local()
        self._writing = threading.Lock()
        if self.dialect == "sqlite":
            self._db: Any = _sqlite(url, timeout)  # peewee is untyped
        else:
            _Deadline.seconds = timeout
            self._db = _postgresql(url, pool_size, timeout)

    @property
    def handle(self) -> Any:
        """peewee's own database, for queries made with its builder."""
        return self._db

    def rows(self, sql: str, *params: object) -> list[Row]:
        """The rows of a SELECT; `?` stands for a parameter on either database."""
        with self.session():
            cursor = self._run(sql, params)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, *params: object) -> Row | None:
        """The first row of a SELECT, or None."""
        found = self.rows(sql, *params)
        return found[0] if found else None

    def fetch(self, query: Any) -> list[Row]:
        """The rows of a query made with peewee's builder."""
        with self.session():
            return list(query.dicts().execute(self._db))

    def execute(self, sql: str, *params: object) -> int:
        """Run a statement; the number of rows that it touched."""
        with self.session():
            return int(self._run(sql, params).rowcount)

    def execute_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once for each of *rows* (SQLite only: PostgreSQL would be slow)."""
        self._db.connection().cursor().executemany(sql, rows)

    def insert(self, sql: str, *params: object) -> int:
        """Run an INSERT that ends in RETURNING id; the id."""
        with self.session():
            return int(self._run(sql, params).fetchone()[0])

    @contextmanager
    def transaction(self, *, wait: float | None = None) -> Iterator[None]:
        """
        A write transaction: all or nothing.

        Args:
            wait: Longest wait for the right to write, in seconds; None: the usual time-out.

        Raises:
            DatabaseAwayError: The database does not answer, is locked for longer, or is full.
        """
        if getattr(self._local, "writing", False):
            yield  # inside another one, whose end decides
            return
        limit = self.timeout if wait is None else wait
        with self.session(), self._gate(limit) as left:
            self._begin(max(left, 0.001))
            self._local.writing = True
            try:
                yield
                self._db.commit()
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._local.writing = False

    @contextmanager
    def session(self) -> Iterator[None]:
        """
        A connection for this thread.

        SQLite keeps it for the thread's life (reopening costs more than a query); PostgreSQL gets
        it from the pool and gives it back.
        """
        depth = getattr(self._local, "depth", 0)
        self._local.depth = depth + 1
        try:
            if depth == 0:
                self._connect()
            yield
        except (*_AWAY, MaxConnectionsExceeded, peewee.DatabaseError) as error:
            raise self._away(error) from error
        finally:
            self._local.depth = depth
            if depth == 0 and self.dialect == "postgresql":
                self._give_back()

    def close(self) -> None:
        """Close this thread's connection, and on PostgreSQL the idle ones of the pool."""
        if not self._db.is_closed():
            self._db.close()
        if isinstance(self._db, PooledPostgresqlDatabase):
            self._db.close_idle()

    def _connect(self) -> None:
        until = time.monotonic() + self.timeout
        while True:
            try:
                self._db.connect(reuse_if_open=True)
                return
            except peewee.OperationalError as error:  # noqa: PERF203  the point of the loop
                # To make a new file a WAL one takes a lock that SQLite's busy handler does not
                # wait for: of several workers that start on it, all but one are sent away.
                if not _is_locked(error) or time.monotonic() > until:
                    raise
                self._discard()
                time.sleep(0.01)

    def _run(self, sql: str, params: Sequence[object]) -> Any:
        text = sql if self.dialect == "sqlite" or not params else _percent(sql)
        return self._db.execute_sql(text, tuple(params))

    @contextmanager
    def _gate(self, limit: float) -> Iterator[float]:
        """One writer a process on SQLite: a lock wakes at once, SQLite's busy handler sleeps."""
        if self.dialect == "postgresql":
            yield limit
            return
        started = time.monotonic()
        if not self._writing.acquire(timeout=limit):
            raise DatabaseAwayError("the database is busy; try again", retry_after=2)
        try:
            yield limit - (time.monotonic() - started)
        finally:
            self._writing.release()

    def _begin(self, limit: float) -> None:
        if self.dialect == "sqlite":
            self._db.execute_sql(f"PRAGMA busy_timeout = {max(1, int(limit * 1000))}")
            self._db.execute_sql("BEGIN IMMEDIATE")
            return
        try:
            self._db.execute_sql("BEGIN")
        except _AWAY:
            # The pool gave a connection that died since. Nothing was sent, so once more is safe.
            self._discard()
            self._db.connect(reuse_if_open=True)
            self._db.execute_sql("BEGIN")

    def _roll_back(self) -> None:
        try:
            self._db.rollback()
        except Exception:
            self._discard()

    def _away(self, error: Exception) -> Exception:
        if isinstance(error, peewee.IntegrityError):
            return error
        if isinstance(error, peewee.DataError):
            return InvalidError("a number is larger than the store can hold")
        self._discard()
        if isinstance(error, peewee.ProgrammingError) and not _is_missing_table(error):
            return error
        return DatabaseAwayError()

    def _give_back(self) -> None:
        try:
            if not self._db.is_closed():
                self._db.close()
        except _AWAY:
            self._discard()

    def _discard(self) -> None:
        """Close the connection for good; a broken one must never go back to the pool."""
        try:
            if isinstance(self._db, PooledPostgresqlDatabase):
                self._db.manual_close()
            elif not self._db.is_closed():
                self._db.close()
        except Exception:  # noqa: S110  it was broken, and now nobody holds it
            pass


def _is_missing_table(error: Exception) -> bool:
    return "does not exist" in str(error) or "no such table" in str(error)


def _is_locked(error: Exception) -> bool:
    return "database is locked" in str(error)


@lru_cache(maxsize=512)
def _percent(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:///path` names."""
    return Path(unquote(url.removeprefix("sqlite:///")))


def _sqlite(url: str, timeout: float) -> peewee.SqliteDatabase:
    path = sqlite_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"the directory {path.parent} cannot be made: {error.strerror}; set "
            "LIPSERVICE_DATA_DIR or DATABASE_URL to a place that can be written"
        ) from error
    return peewee.SqliteDatabase(str(path), pragmas=_PRAGMAS, timeout=timeout)


def _postgresql(url: str, pool_size: int, timeout: float) -> PooledPostgresqlDatabase:
    _bound_waits()
    parts = urlsplit(url)
    milliseconds = int(timeout * 1000)
    given = dict(parse_qsl(parts.query))
    params: dict[str, Any] = {
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "host": given.pop("host", None) or (unquote(parts.hostname) if parts.hostname else None),
        "port": parts.port,
        "application_name": "lipservice",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": milliseconds,
        "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
        " -c idle_in_transaction_session_timeout=10000 -c timezone=UTC",
        **given,
    }
    params = {name: value for name, value in params.items() if value is not None}
    return PooledPostgresqlDatabase(
        unquote(parts.path.lstrip("/")),
        max_connections=pool_size,
        stale_timeout=600,
        timeout=timeout,
        **params,
    )


class _Deadline(threading.local):
    """Longest wait for PostgreSQL in one call, in seconds, of this thread."""

    seconds = 3.0


_deadline = _Deadline()


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait up to *seconds* for PostgreSQL in this thread, for migrations and long jobs."""
    before = _deadline.seconds
    _deadline.seconds = seconds
    try:
        yield
    finally:
        _deadline.seconds = before


def _bound_waits() -> None:
    """
    Put an end to psycopg2's unbounded waits, for the whole process.

    `statement_timeout` is the server's and does nothing when the server is frozen; TCP time-outs
    do nothing either, because the kernel goes on to acknowledge. Only the client can give up.
    """
    import psycopg2.extensions  # noqa: PLC0415  only where PostgreSQL is used

    psycopg2.extensions.set_wait_callback(_wait)


def _wait(connection: Any) -> None:
    import psycopg2  # noqa: PLC0415
    from psycopg2 import extensions  # noqa: PLC0415

    ends = time.monotonic() + _deadline.seconds
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        poller = select.poll()
        poller.register(
            connection.fileno(),
            select.POLLIN if state == extensions.POLL_READ else select.POLLOUT,
        )
        if not poller.poll(max(0, int((ends - time.monotonic()) * 1000))):
            raise psycopg2.OperationalError("PostgreSQL does not answer")
