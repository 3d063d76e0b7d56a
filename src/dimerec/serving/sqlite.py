"""Histories in one SQLite file: written ahead, synced at every commit, many events to a commit.

`synchronous=FULL` syncs the log before a commit returns, so what was acknowledged survives a power
loss; `NORMAL` would not. One connection writes and checkpoints, under a lock file that several
processes share: SQLite before 3.51.3 can damage a file that two connections checkpoint at once.
"""

import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dimerec import files
from dimerec.errors import Overloaded, StoreUnavailable
from dimerec.serving.history import KEEP, Event, HistoryStore, digest, storable
from dimerec.serving.writer import GroupWriter
from dimerec.vocabulary import Id

SCHEMA = 1
APPLICATION = 0x44494D45  # "DIME", in the header of the file
SYNCHRONOUS = "FULL"
QUEUE, GROUP = 10_000, 1_000  # events that may wait, events to a commit
ROOM = 1 << 20  # bytes free on a disk that is not called full
SLACK = 16  # about so many events more than read are on disk: trimming costs a scan
READERS = 4
BUSY, PATIENCE = 5.0, 15.0  # seconds for another process; for a commit

_TABLES = (
    "CREATE TABLE event (tenant, user, time INTEGER, arrival INTEGER, item,"
    " PRIMARY KEY (tenant, user, time, arrival)) WITHOUT ROWID",
    "CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE counter (arrival INTEGER)",
    "INSERT INTO counter VALUES (0)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)
_READ = (
    "SELECT item FROM event WHERE tenant = ? AND user = ? ORDER BY time DESC, arrival DESC LIMIT ?"
)
_TRIM = (
    "DELETE FROM event WHERE tenant = ?1 AND user = ?2 AND (time, arrival) <= ("
    "SELECT time, arrival FROM event WHERE tenant = ?1 AND user = ?2"
    " ORDER BY time DESC, arrival DESC LIMIT 1 OFFSET ?3)"
)
_WAYS_OUT = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing stored is lost, and it goes on when there is "
    "room again",
    sqlite3.SQLITE_IOERR: "the disk reports an error; nothing acknowledged was given up, and it "
    "goes on when the disk does",
    sqlite3.SQLITE_IOERR_SHMSIZE: "the disk is full or reports an error; nothing acknowledged was "
    "given up, and it goes on when the disk does",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup, or move it away to "
    "start without histories",
    sqlite3.SQLITE_NOTADB: "not a store of histories, or damaged; name another file, or restore it",
    sqlite3.SQLITE_BUSY: "another process holds the file",
    sqlite3.SQLITE_LOCKED: "another process holds the file",
    sqlite3.SQLITE_READONLY: "the file or its folder cannot be written; see to its permissions",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; see to its folder and permissions",
}
_logger = logging.getLogger(__name__)
_Work = Callable[[sqlite3.Connection], Any]


def connect(path: str) -> sqlite3.Connection:
    """A connection with no transactions of its own, for any one thread at a time."""
    return sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)


class SqliteStore(HistoryStore):
    """Histories in the file `path`, with `path-wal`, `path-shm` and `path.lock` beside it.

    The file is made if it is not there, and checked when it is.
    """

    def __init__(self, path: str | Path, keep: int = KEEP) -> None:
        """
        Raises:
            StoreUnavailable: the file cannot be opened or written, is damaged, is something
                else, or was made by a newer version.
        """
        self._path, self._keep = Path(path).absolute(), keep
        self._closed = self._failed = False
        self._scrub = False  # whether the log still holds what was erased
        self._writing: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise StoreUnavailable(f"{self._path}: {e.strerror} ({e.filename})") from e
        try:
            with self._told(), self._exclusive():
                self._create()
                self._writing = self._writer()
                self._check(self._writing)
                self._file = self._identity()
        except BaseException:
            self._drop()
            os.close(self._lock)
            raise
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(READERS):
            self._readers.put(None)
        self._queue: GroupWriter[_Work] = GroupWriter(
            self._commit, self._finish, name=str(self._path), queue=QUEUE, group=GROUP
        )

    def append(self, tenant: str, events: Sequence[Event]) -> list[bool]:
        rows = [(digest(tenant, e.event_id), str(e.user), e.time, e.item) for e in events]
        keep = self._keep

        def work(writing: sqlite3.Connection) -> list[bool]:
            (arrival,) = writing.execute("SELECT arrival FROM counter").fetchone()
            stored, users = [], set()  # of 1 event in SLACK: who is trimmed
            for id, user, when, item in rows:
                new = writing.execute("INSERT OR IGNORE INTO seen VALUES (?)", (id,)).rowcount == 1
                stored.append(new)
                if new:
                    arrival += 1
                    if id[0] < 256 // SLACK:
                        users.add(user)
                    writing.execute(
                        "INSERT INTO event VALUES (?, ?, ?, ?, ?)",
                        (tenant, user, when, arrival, item),
                    )
            writing.execute("UPDATE counter SET arrival = ?", (arrival,))
            for user in users:
                writing.execute(_TRIM, (tenant, user, keep))
            return stored

        return self._queue.do(work, len(rows), PATIENCE) if rows else []

    def read(self, tenant: str, user: Id, limit: int) -> list[Id]:
        if limit < 1 or not storable(user):
            return []
        with self._told(), self._reader() as reading:
            rows = reading.execute(_READ, (tenant, str(user), min(limit, self._keep))).fetchall()
        return [item for (item,) in reversed(rows)]

    def erase(self, tenant: str, user: Id) -> int:
        if not storable(user):
            return 0
        keep = self._keep

        def work(writing: sqlite3.Connection) -> int:
            removed = writing.execute(
                "DELETE FROM event WHERE tenant = ? AND user = ?", (tenant, str(user))
            ).rowcount
            self._scrub |= removed > 0
            return min(removed, keep)

        return self._queue.do(work, 1, PATIENCE)

    def healthy(self) -> bool:
        try:
            disk = os.statvfs(self._path)
            if self._closed or disk.f_bavail * disk.f_frsize < ROOM:
                return False
            self.read("", 0, 1)
            if self._failed:
                work = "UPDATE counter SET arrival = arrival"
                self._queue.do(lambda writing: writing.execute(work), 1, 2.0)
        except Exception:
            return False
        return True

    def close(self) -> None:
        self._closed = True
        self._queue.close(PATIENCE)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads, for one thread; put back, or closed after an error."""
        try:
            reading = self._readers.get(timeout=PATIENCE)
        except queue.Empty:
            raise Overloaded(f"{self._path}: too many wait to read; try again later") from None
        try:
            if self._closed:
                raise StoreUnavailable(f"{self._path}: this store was closed")
            if reading is None:
                reading = connect(str(self._path))
                # A reader never checkpoints: that is the writer's.
                reading.execute("PRAGMA query_only = ON")
                reading.execute("PRAGMA wal_autocheckpoint = 0")
            yield reading
        except BaseException:
            if reading is not None:
                reading.close()
            reading = None
            raise
        finally:
            self._readers.put(reading)

    # Everything below that writes runs in the writer's thread.

    def _commit(self, group: Sequence[_Work]) -> list[Any]:
        try:
            with self._told(), self._exclusive():
                writing = self._writing = self._writing or self._writer()
                writing.execute("BEGIN IMMEDIATE")
                results = [work(writing) for work in group]
                writing.execute("COMMIT")
                if self._identity() != self._file:
                    raise StoreUnavailable(
                        f"{self._path}: removed or replaced while in use; start again to use "
                        "what is there now"
                    )
                if self._scrub:
                    self._forget(writing)
        except BaseException as e:
            self._failed = True
            self._roll_back(e.__cause__)
            raise
        self._failed = False
        return results

    def _roll_back(self, cause: BaseException | None) -> None:
        full = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        try:
            if full and self._writing is not None and self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
        except sqlite3.Error:
            full = False
        if not full:  # a fresh connection, next time, knows nothing of what went wrong
            self._drop()

    def _forget(self, writing: sqlite3.Connection) -> None:
        """Move what is left into the file and cut the log, which may hold what was erased."""
        try:
            (busy, _, _) = writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._scrub = bool(busy)  # a reader was in the way: after the next commit
        except sqlite3.Error as e:
            _logger.warning("%s: erased, but its log is not cut yet: %s", self._path, e)

    def _finish(self) -> None:
        for _ in range(READERS):  # before the writer, which folds the log into the file
            with contextlib.suppress(queue.Empty):
                reading = self._readers.get(timeout=BUSY)
                if reading is not None:
                    reading.close()
        for _ in range(READERS):
            self._readers.put(None)
        try:
            with contextlib.suppress(StoreUnavailable), self._exclusive():
                self._drop()
        finally:
            os.close(self._lock)

    def _drop(self) -> None:
        """Close the writing connection, which rolls back what it was in the middle of."""
        with contextlib.suppress(sqlite3.Error):
            if self._writing is not None:
                self._writing.close()
        self._writing = None

    # How the file is opened.

    def _create(self) -> None:
        """An empty file for its owner alone, where none is; SQLite's other files follow it."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            files.sync(self._path.parent)
        except FileExistsError:
            pass

    def _writer(self) -> sqlite3.Connection:
        writing = connect(str(self._path))
        try:
            writing.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
            writing.execute("PRAGMA fullfsync = ON")  # where a sync leaves data in the disk's cache
            writing.execute("PRAGMA secure_delete = ON")
            self._schema(writing)
            (mode,) = writing.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable(
                    f"{self._path}: no write-ahead log on this file system; use a local disk"
                )
            writing.execute("PRAGMA journal_size_limit = 67108864")
        except BaseException:
            writing.close()
            raise
        return writing

    def _schema(self, writing: sqlite3.Connection) -> None:
        """Make the tables in an empty file; refuse a file that is not ours or of our time."""
        (application,) = writing.execute("PRAGMA application_id").fetchone()
        (version,) = writing.execute("PRAGMA user_version").fetchone()
        (tables,) = writing.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (application or version or tables):
            writing.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                writing.execute(statement)
            writing.execute("COMMIT")
        elif application != APPLICATION:
            raise StoreUnavailable(f"{self._path}: a database of something else; name another file")
        elif version != SCHEMA:
            raise StoreUnavailable(
                f"{self._path}: histories of schema {version}, and this version of dimerec reads "
                f"{SCHEMA}; install the version that wrote them"
            )

    def _check(self, writing: sqlite3.Connection) -> None:
        (found,) = writing.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreUnavailable(
                f"{self._path}: {_WAYS_OUT[sqlite3.SQLITE_CORRUPT]} ({' '.join(found.split())})"
            )

    def _identity(self) -> tuple[int, int]:
        there = self._path.stat()
        return there.st_dev, there.st_ino

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """No other process or store writes to the file or checkpoints it meanwhile."""
        until = time.monotonic() + BUSY
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StoreUnavailable(
                        f"{self._path}: {_WAYS_OUT[sqlite3.SQLITE_BUSY]}"
                    ) from None
                time.sleep(0.001)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong, as StoreUnavailable with a way out."""
        try:
            yield
        except sqlite3.Error as e:
            code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            plain = code & 0xFF  # extended codes hold the plain one
            way = _WAYS_OUT.get(code) or _WAYS_OUT.get(plain) or "see to the file and its disk"
            raise StoreUnavailable(f"{self._path}: {way} ({e})") from e
        except OSError as e:
            raise StoreUnavailable(f"{self._path}: {e.strerror or e}") from e
