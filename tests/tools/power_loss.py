"""Power loss for SQLite files: what a disk may hold when unsynced writes are dropped or torn.

SQLite (its copy inside APSW) runs on a file system shim that writes down every operation. From
the record the disk at any moment can be made up: a file holds what was written before its last
sync, and of later writes any sectors, or none. A kill -9 loses nothing of that sort, for the
system's cache outlives a process, and cannot tell a store that syncs from one that does not.
"""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


class Record:
    """Operations on files, in order: (kind, file name, offset or size, bytes)."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str, int, bytes]] = []

    def note(self, kind: str, path: str, number: int = 0, content: bytes = b"") -> None:
        self.operations.append((kind, Path(path).name, number, content))

    def disk(self, moment: int, folder: Path, keep: str, rng: random.Random) -> None:
        """Make up in `folder` the files after the first `moment` operations and a power loss.

        `keep` says what becomes of unsynced writes: "none", "all", "some" (whole writes, any of
        them) or "torn" (sectors, any of them).
        """
        synced: dict[str, bytearray] = {}
        pending: dict[str, list[tuple[str, int, bytes]]] = {}
        deleted: dict[str, bytearray] = {}  # as long as the folder is not synced
        for kind, name, number, content in self.operations[:moment]:
            if kind == "sync":
                if name not in synced:  # SQLite syncs the folder, too, for a log or journal
                    deleted.clear()
                synced[name] = _apply(synced.get(name), pending.pop(name, []))
            elif kind == "delete":
                deleted[name] = synced.pop(name, bytearray())
                pending.pop(name, None)
                if number:
                    deleted.clear()
            elif kind != "mark":
                pending.setdefault(name, []).append((kind, number, content))
        for name, operations in pending.items():
            left = _survivors(operations, keep, rng)
            if name in synced or left:
                synced[name] = _apply(synced.get(name), left)
        if keep == "none":
            synced = {**deleted, **synced}
        folder.mkdir(parents=True)
        for name, content in synced.items():
            (folder / name).write_bytes(content)


def _survivors(
    operations: list[tuple[str, int, bytes]], keep: str, rng: random.Random
) -> list[tuple[str, int, bytes]]:
    if keep in ("none", "all"):
        return operations if keep == "all" else []
    out = []
    for kind, number, content in operations:
        if keep == "torn" and kind == "write":
            start = number
            while start < number + len(content):
                end = min((start // SECTOR + 1) * SECTOR, number + len(content))
                if rng.random() < 0.5:
                    out.append((kind, start, content[start - number : end - number]))
                start = end
        elif rng.random() < 0.5:
            out.append((kind, number, content))
    return out


def _apply(before: bytearray | None, operations: list[tuple[str, int, bytes]]) -> bytearray:
    after = bytearray(before or b"")
    for kind, number, content in operations:
        if kind == "truncate":
            del after[number:]
        if len(after) < number:
            after.extend(bytes(number - len(after)))
        after[number : number + len(content)] = content
    return after


def recorded(record: Record, name: str) -> Callable[[str], Any]:
    """`dimerec.serving.sqlite.connect` on a shim called `name`, written down in `record`."""

    class File(apsw.VFSFile):
        def __init__(self, path: Any, flags: Any) -> None:
            self.path = path.filename() if isinstance(path, apsw.URIFilename) else path
            super().__init__("", path, flags)

        def xWrite(self, data: bytes, offset: int) -> None:
            record.note("write", self.path, offset, bytes(data))
            super().xWrite(data, offset)

        def xTruncate(self, size: int) -> None:
            record.note("truncate", self.path, size)
            super().xTruncate(size)

        def xSync(self, flags: int) -> None:
            super().xSync(flags)
            record.note("sync", self.path)

    class Shim(apsw.VFS):
        def __init__(self) -> None:
            super().__init__(name, "")

        def xOpen(self, path: Any, flags: Any) -> File:
            return File(path, flags)

        def xDelete(self, path: str, syncdir: bool) -> None:
            super().xDelete(path, syncdir)
            record.note("delete", path, int(syncdir))

    shim = Shim()

    class Connection(sqlite3.Connection):
        """The part of a connection that the store uses, on APSW's SQLite."""

        def __init__(self, path: str) -> None:
            super().__init__(":memory:")
            super().close()
            self._keep = shim
            self._connection = apsw.Connection(path, vfs=name)
            self._connection.set_busy_timeout(5000)

        def execute(self, sql: str, values: Any = ()) -> Any:
            try:
                before = self._connection.total_changes()
                rows = list(self._connection.execute(sql, values))
                return Result(rows, self._connection.total_changes() - before)
            except apsw.Error as e:
                raise sqlite3.OperationalError(str(e)) from e

        def close(self) -> None:
            self._connection.close()

    return Connection


class Result:
    """Rows, and how many were changed."""

    def __init__(self, rows: list, changed: int) -> None:
        self._rows, self.rowcount = rows, changed

    def fetchone(self) -> Any:
        return self._rows[0]

    def fetchall(self) -> list:
        return self._rows
