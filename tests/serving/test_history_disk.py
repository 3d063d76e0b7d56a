"""A full or failing disk: refuse, stay intact, go on by itself when it is well again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimerec.errors import StoreUnavailable
from dimerec.serving.history import Event
from dimerec.serving.sqlite import SqliteStore
from tests.serving.test_history_kills import ALL, WRITER, acknowledged, check, strace

FULL, BROKEN = "the disk is full", "reports an error"


@strace
@pytest.mark.parametrize(
    ("call", "error", "first", "last", "what"),
    [
        ("pwrite64", "ENOSPC", 60, 75, FULL),
        ("fdatasync", "EIO", 9, 13, BROKEN),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                *(("pwrite64", "ENOSPC", n, n + 2, FULL) for n in range(30, 42)),
                *(("pwrite64", "EIO", n, n + 2, BROKEN) for n in range(30, 42, 3)),
                *(("fdatasync", "EIO", n, n + 1, BROKEN) for n in range(9, 14)),
                ("ftruncate", "EIO", 2, 9, ""),  # at the end, when the log is cut
            ]
        ),
    ],
)
def test_a_disk_that_fails_for_a_while(
    tmp_path: Path, call: str, error: str, first: int, last: int, what: str, figure
):
    """Real system calls fail, in the writer's thread, and then no more.

    Calls are counted thread by thread; opening the file takes fewer than the first that fails.
    """
    url = f"sqlite:///{tmp_path}/h.db?keep={ALL}"
    inject = f"inject={call}:error={error}:when={first}..{last}"
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
    done = subprocess.run([*words, *WRITER, url, "0", "2", "15"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = [line for line in done.stdout.splitlines() if line.startswith("no ")]
    assert all("h.db: the disk " in line and what in line for line in refused)
    assert bool(refused) == bool(what)
    known = acknowledged(done.stdout)
    assert len(known) == 30 and done.stdout.endswith("closed\n")
    store = SqliteStore(tmp_path / "h.db", ALL)
    check(store, known)
    found = len(store.read("t", "a", ALL))
    assert found == 30
    store.close()
    figure(
        "{cases} failing disks: {refused} deliveries refused and tried again, {known} acknowledged "
        "in the end, {found} there",
        cases=1,
        refused=len(refused),
        known=len(known),
        found=found,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder]
    if (done := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes what room there is."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def batch(number: int) -> list[Event]:
    return [Event("u", f"{number}-{n}-{'x' * 400}", number, f"{number}-{n}") for n in range(20)]


def test_a_full_disk(small_disk: Path, figure):
    store = SqliteStore(small_disk / "h.db", ALL)
    for number in range(5):
        store.append("t", batch(number))
    filler = fill(small_disk)
    number = 5
    with pytest.raises(StoreUnavailable, match=f"^{small_disk}/h.db: {FULL}; nothing stored is"):
        while True:
            store.append("t", batch(number))
            number += 1
    before = store.read("t", "u", ALL)
    assert len(before) == 20 * number
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=FULL):
            store.append("t", batch(number))
    assert not store.healthy()
    assert store.read("t", "u", ALL) == before

    filler.unlink()
    assert store.healthy()
    assert store.append("t", batch(number)) == [True] * 20
    assert store.append("t", batch(number - 1)) == [False] * 20
    items = store.read("t", "u", ALL)
    assert len(items) == 20 * (number + 1) and items[: len(before)] == before
    store.close()
    again = SqliteStore(small_disk / "h.db", ALL)  # which checks the file
    assert again.read("t", "u", ALL) == items
    again.close()
    figure(
        f"a full disk: {20 * number} events acknowledged before, {len(before)} there while it is "
        f"full, {len(items)} once there was room"
    )


def test_a_disk_that_is_full_at_the_start(small_disk: Path):
    filler = fill(small_disk)
    with pytest.raises(StoreUnavailable, match=f"{FULL}|No space left"):
        SqliteStore(small_disk / "h.db")
    filler.unlink()
    store = SqliteStore(small_disk / "h.db")
    assert store.append("t", batch(0)) == [True] * 20
    store.close()
