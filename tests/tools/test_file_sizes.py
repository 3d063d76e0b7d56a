"""The limit on file sizes is a limit."""

from pathlib import Path

from tests.tools import file_sizes


def test_only_what_is_longer_than_the_limit_is_named(tmp_path: Path):
    folder = tmp_path / "src"
    (folder / "sub").mkdir(parents=True)
    (folder / "fits.py").write_text("x = 1\n" * 3)
    (folder / "sub" / "long.py").write_text("x = 1\n" * 4)
    (folder / "notes.txt").write_text("x\n" * 9)
    assert file_sizes.too_long(folder, 3) == ["src/sub/long.py: 4 lines, at most 3 allowed"]


def test_the_package_keeps_it():
    assert file_sizes.too_long(file_sizes.ROOT / "src") == []
