"""The SQLite file: what is refused at the door, what is found out later, what is left of a user."""

import os
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dimerec.errors import Overloaded, StoreUnavailable
from dimerec.serving import sqlite
from dimerec.serving.history import Event
from dimerec.serving.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with 300 events of three users."""
    path = tmp_path / "h.db"
    store = SqliteStore(path)
    store.append("t", [Event(n % 3, f"item {n}", n, f"e{n}") for n in range(300)])
    store.close()
    return path


def open_and_close(path: Path) -> None:
    SqliteStore(path).close()


def test_the_settings_that_durability_hangs_on(path: Path):
    store = SqliteStore(path)
    assert store._writing is not None
    settings = [
        store._writing.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "fullfsync", "secure_delete")
    ]
    assert settings == ["wal", 2, 1, 1]  # 2 is FULL
    store.close()
    # closed, all is in the one file, which its owner alone may read
    assert sorted(p.name for p in path.parent.iterdir()) == ["h.db", "h.db.lock"]
    assert path.stat().st_mode & 0o077 == 0


def test_one_commit_is_shared_by_all_who_wait(path: Path, monkeypatch):
    store, other = SqliteStore(path), SqliteStore(path)
    groups: list[int] = []
    commit = store._queue._commit
    monkeypatch.setattr(store._queue, "_commit", lambda w: (groups.append(len(w)), commit(w))[1])
    with ThreadPoolExecutor(40) as threads, other._exclusive():  # nothing is written meanwhile
        futures = [
            threads.submit(store.append, "t", [Event("new", n, n, f"new {n}")]) for n in range(40)
        ]
        while len(store._queue._waiting) + sum(groups) < 40:
            time.sleep(0.001)
    assert all(f.result() == [True] for f in futures)
    assert sum(groups) == 40 and len(groups) <= 2
    assert len(store.read("t", "new", 99)) == 40
    store.close()
    other.close()


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def of_another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda p: p.write_bytes(b"not a database, for sure. " * 200), "not a store of histories"),
        (lambda p: p.write_bytes(p.read_bytes()[:8192]), "damaged.*backup"),
        (lambda p: flipped(p, 4096), "damaged.*backup"),  # the kind of the second page
        (lambda p: flipped(p, 3), "not a store of histories"),
        (newer, "schema 99.*reads 1"),
        (of_another, "something else; name another file"),
        (lambda p: (p.unlink(), p.mkdir()), "cannot be opened"),
    ],
)
def test_what_is_no_good_store_is_refused_and_left_as_it_was(path: Path, spoil, what: str):
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreUnavailable, match=f"^{path}: .*{what}"):
        SqliteStore(path)
    assert (path.read_bytes() if path.is_file() else None) == before
    with pytest.raises(StoreUnavailable):  # and the refusal left no lock behind
        SqliteStore(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="h.db: (File exists|Not a directory)"):
        SqliteStore(tmp_path / "file" / "h.db")


def test_damage_that_shows_later_is_told(path: Path):
    store = SqliteStore(path)
    with sqlite3.connect(path) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(4096) * (pages - 1)
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="damaged"):
        for user in range(3):
            store.read("t", user, 9)
    assert not store.healthy()
    store.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_taken_away_is_noticed_before_anything_is_acknowledged(path: Path, replaced: bool):
    store = SqliteStore(path)
    shutil.move(path, path.with_name("old.db"))
    if replaced:
        shutil.copy(path.with_name("old.db"), path)
    with pytest.raises(StoreUnavailable, match="No such file|removed or replaced while in use"):
        store.append("t", [Event(1, 1, 1, "new")])
    assert not store.healthy()
    store.close()


def test_another_process_that_holds_the_file(path: Path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY", 0.05)
    store, other = SqliteStore(path), SqliteStore(path)
    with other._exclusive():
        with pytest.raises(StoreUnavailable, match="another process"):
            store.append("t", [Event(1, 1, 1, "new")])
        with pytest.raises(StoreUnavailable, match="another process"):
            SqliteStore(path)
        assert store.read("t", 1, 1) == ["item 298"]
        assert not store.healthy()
    assert store.append("t", [Event(1, 1, 1, "new")]) == [True]
    assert store.healthy()
    store.close()
    other.close()


def test_readers_are_bounded(path: Path, monkeypatch):
    monkeypatch.setattr(sqlite, "PATIENCE", 0.05)
    store = SqliteStore(path)
    taken = [store._reader() for _ in range(sqlite.READERS)]
    for reader in taken:
        reader.__enter__()
    with pytest.raises(Overloaded, match="wait to read"):
        store.read("t", 1, 1)
    for reader in taken:
        reader.__exit__(None, None, None)
    assert store.read("t", 1, 1) == ["item 298"]
    store.close()


def test_trimming_bounds_the_file(tmp_path: Path):
    store = SqliteStore(tmp_path / "h.db", keep=5)
    for start in range(0, 6_000, 1000):
        store.append("t", [Event("u", n, n, str(n)) for n in range(start, start + 1000)])
    assert store.read("t", "u", 99) == list(range(5_995, 6_000))
    assert store._writing is not None
    (rows,) = store._writing.execute("SELECT count(*) FROM event").fetchone()
    assert rows < 5 + 20 * sqlite.SLACK
    store.close()


def test_nothing_of_an_erased_user_is_left_on_the_disk(tmp_path: Path):
    store = SqliteStore(tmp_path / "h.db", keep=20)
    store.append(
        "t", [Event("somebody-in-particular", f"secret-{n:04}", n, f"e{n}") for n in range(900)]
    )
    store.append("t", [Event("other", "kept-item", 1, "kept")])
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"somebody-in-particular" in content and b"secret-" in content
    store.erase("t", "somebody-in-particular")
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"kept-item" in content
    assert b"somebody-in-particular" not in content and b"secret-" not in content
    store.close()
