"""Atomic writing: whole or not at all, whatever goes wrong on the way."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dimerec import files


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_file_is_written_and_replaced(tmp_path: Path):
    path = tmp_path / "a.json"
    files.write_file(path, b"one")
    files.write_file(path, b"two")
    assert tree(tmp_path) == {"a.json": b"two"}
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.json"
    files.write_file(path, b"one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_file(path, b"two")
    assert tree(tmp_path) == {"a.json": b"one"}


def test_a_directory_appears_whole(tmp_path: Path):
    out = tmp_path / "deep" / "d"
    with files.new_directory(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "f").write_bytes(b"1")
        assert not out.exists()
    assert tree(tmp_path) == {"deep/d/sub/f": b"1"}
    assert out.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_is_replaced_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
):
    if not exchange:  # as on systems that cannot swap two paths in one step
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    out = tmp_path / "d"
    for name in ("old", "new"):
        with files.new_directory(out) as folder:
            (folder / name).write_bytes(name.encode())
    assert tree(tmp_path) == {"d/new": b"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_leaves_what_was_there(tmp_path: Path, error: type[BaseException]):
    out = tmp_path / "d"
    with files.new_directory(out) as folder:
        (folder / "f").write_bytes(b"1")
    with pytest.raises(error), files.new_directory(out) as folder:
        (folder / "f").write_bytes(b"2")
        raise error
    assert tree(tmp_path) == {"d/f": b"1"}
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_failing_rename_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "d"
    with files.new_directory(out) as folder:
        (folder / "f").write_bytes(b"1")
    rename, calls = os.rename, []

    def second_fails(a: object, b: object) -> None:
        calls.append((a, b))
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(a, b)

    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"), files.new_directory(out) as folder:
        (folder / "f").write_bytes(b"2")
    assert tree(tmp_path) == {"d/f": b"1"}
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_killed_process_leaves_no_half_directory(tmp_path: Path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from dimerec import files
        with files.new_directory(Path(sys.argv[1])) as folder:
            (folder / "f").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    out = tmp_path / "d"
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(out)])
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    with files.new_directory(out) as folder:
        (folder / "f").write_bytes(b"whole")
    assert tree(out) == {"f": b"whole"}
