"""How many events a second does a store of histories acknowledge, each one durable?

Writers append one event a call, from as many threads; SQLite and Redis (a server this script
starts, with `--appendonly yes --appendfsync always`) turn about, on one disk. Beside each rate
stand the milliseconds a call waited (median, 99th percentile), the events a sync of the disk
carried on average, and the time of such a sync, without which the rates say little. Then the time
of a read, and the room an event takes: bytes on disk, of memory for Redis, ids of events included.
Prints a table and writes `results/history.json`.

    python benchmarks/bench_history.py [--seconds 2] [--turns 3] [--folder .]
"""

import argparse
import json
import os
import platform
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dimerec.serving.history import Event, HistoryStore, open_store
from dimerec.serving.sqlite import SqliteStore

WRITERS = (1, 8, 64)
USERS = 10_000
NOW = 1_700_000_000


class Writers:
    """Threads that append for some time, one event a call."""

    def __init__(self, store: HistoryStore, threads: int, name: str) -> None:
        self.store, self.threads, self.name = store, threads, name
        self.waited: list[float] = []

    def run(self, seconds: float) -> float:
        """Events a second."""
        started = time.perf_counter()
        until = started + seconds
        threads = [
            threading.Thread(target=self._write, args=(number, until))
            for number in range(self.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.waited) / (time.perf_counter() - started)

    def _write(self, thread: int, until: float) -> None:
        rng, number = random.Random(thread), 0
        now = time.perf_counter()
        while now < until:
            user, item = rng.randrange(USERS), rng.randrange(1_000_000)
            event = Event(user, item, NOW + number, f"{self.name}-{thread}-{number}")
            assert self.store.append("bench", [event]) == [True]
            before, now, number = now, time.perf_counter(), number + 1
            self.waited.append(now - before)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis server that keeps what it acknowledges: its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    words = ["redis-server", "--port", str(port), "--dir", str(folder), *options]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(500):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def sync_seconds(folder: Path) -> float:
    """Median time of writing 4 kB and syncing it, on this disk, now."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    return statistics.median(times)


def read_seconds(store: HistoryStore) -> float:
    """Median time of reading the last 50 items of a user who has 100."""
    store.append("bench", [Event("reader", n, NOW + n, f"reader-{n}") for n in range(100)])
    times = []
    for _ in range(1000):
        before = time.perf_counter()
        assert len(store.read("bench", "reader", 50)) == 50
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def room(store: HistoryStore) -> float:
    """Bytes an event takes, of 50,000 of 5,000 users."""

    def taken() -> int:
        if isinstance(store, SqliteStore):
            with sqlite3.connect(store._path) as connection:
                pages, free, size = (
                    connection.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("page_count", "freelist_count", "page_size")
                )
            connection.close()
            return (pages - free) * size
        return store._redis.info("memory")["used_memory"]  # type: ignore

    before = taken()
    for start in range(0, 50_000, 500):
        numbers = range(start, start + 500)
        events = [Event(f"user-{n % 5000}", n, NOW + n, f"room-{n}") for n in numbers]
        store.append("bench", events)
    return (taken() - before) / 50_000


def measure(store: HistoryStore, seconds: float, turn: int) -> list[dict]:
    """One row for each number of writers."""
    rows = []
    for threads in WRITERS:
        commits = [0]
        if isinstance(store, SqliteStore):
            commit = store._queue._commit

            def counted(works, commit=commit, commits=commits):
                commits[0] += 1
                return commit(works)

            store._queue._commit = counted
        writers = Writers(store, threads, f"{turn}-{threads}")
        rate = writers.run(seconds)
        if isinstance(store, SqliteStore):
            store._queue._commit = commit
        ordered = sorted(writers.waited)
        rows.append(
            {
                "writers": threads,
                "events_per_second": rate,
                "p50_ms": 1000 * statistics.median(ordered),
                "p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1))],
                "events_per_sync": len(ordered) / commits[0] if commits[0] else None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    given = parser.parse_args()
    found: dict[str, list[list[dict]]] = {}
    syncs: list[float] = []
    reads: dict[str, list[float]] = {}
    rooms: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        for turn in range(given.turns):
            for kind in ("sqlite", "redis"):
                place = folder / f"{kind}{turn}"
                place.mkdir()
                syncs.append(sync_seconds(place))
                if kind == "sqlite":
                    store = open_store(f"sqlite:///{place}/h.db")
                    found.setdefault(kind, []).append(measure(store, given.seconds, turn))
                    reads.setdefault(kind, []).append(read_seconds(store))
                    rooms[kind] = room(store)
                    store.close()
                elif shutil.which("redis-server"):
                    with redis_server(place) as url:
                        store = open_store(url)
                        found.setdefault(kind, []).append(measure(store, given.seconds, turn))
                        reads.setdefault(kind, []).append(read_seconds(store))
                        rooms[kind] = room(store)
                        store.close()
    print(f"a synced write of 4 kB takes {1000 * statistics.median(syncs):.2f} ms (median)")
    stores = {}
    for kind, turns in found.items():
        rows = []
        for columns in zip(*turns, strict=True):
            row = {
                key: statistics.median(values)
                for key in columns[0]
                if None not in (values := [column[key] for column in columns])
            }
            rows.append(row)
            per_sync = row.get("events_per_sync")
            print(
                f"{kind:>6}, {row['writers']:>2} writers: {row['events_per_second']:>7,.0f} "
                f"events/s, waited {row['p50_ms']:.1f} ms (p99 {row['p99_ms']:.1f})"
                + (f", {per_sync:.1f} events a sync" if per_sync else "")
            )
        read = statistics.median(reads[kind])
        print(f"{kind:>6}, read 50 of 100 items: {1e6 * read:.0f} us")
        print(f"{kind:>6}, an event takes {rooms[kind]:.0f} bytes")
        stores[kind] = {
            "append": rows,
            "read_50_us": 1e6 * read,
            "bytes_per_event": rooms[kind],
        }
    result = {
        "seconds": given.seconds,
        "turns": given.turns,
        "sync_ms": 1000 * statistics.median(syncs),
        "load_average": os.getloadavg()[0],
        "stores": stores,
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
    }
    out = Path(__file__).parent / "results" / "history.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
