"""Nothing but the files that were written is ever read."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from dimerec.bundle import Bundle
from dimerec.errors import BundleError
from dimerec.manifest import FILES, MANIFEST, Manifest
from dimerec.vocabulary import Item
from tests.tools.bundles import COUNTS, SIZE, tiny_models, write

EVERY_FILE = [MANIFEST, *FILES]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A bundle that no test changes."""
    with tiny_models():
        return write(tmp_path_factory.mktemp("bundles") / "bundle").path


@pytest.fixture
def copy(written, tmp_path) -> Path:
    """A bundle to break."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


@settings(max_examples=200)
@given(st.sampled_from(EVERY_FILE), st.integers(0, 10**9))
def test_any_flipped_bit_is_found(written, name, place):
    original = (written / name).read_bytes()
    byte, bit = divmod(place % (8 * len(original)), 8)
    flipped = bytearray(original)
    flipped[byte] ^= 1 << bit
    try:
        (written / name).write_bytes(flipped)
        with pytest.raises(BundleError, match=name if name != MANIFEST else str(written)):
            Bundle.open(written)
    finally:
        (written / name).write_bytes(original)
    Bundle.open(written)


@settings(max_examples=60)
@given(st.sampled_from(EVERY_FILE), st.floats(0, 0.999))
def test_any_truncation_is_found(written, name, share):
    original = (written / name).read_bytes()
    try:
        (written / name).write_bytes(original[: int(share * len(original))])
        with pytest.raises(BundleError, match=name):
            Bundle.open(written)
    finally:
        (written / name).write_bytes(original)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_files_of_another_bundle_are_found(copy, tmp_path, name):
    with tiny_models():
        items = [Item("x")] * (SIZE - 1)
        other = write(tmp_path / "other", seed=1, counts=COUNTS * 2, items=items)
    if name == "vocabulary.json":  # the same in both
        content = (copy / name).read_bytes().replace(b'"item 1"', b'"item X"')
    else:
        content = (other.path / name).read_bytes()
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=str(copy)):
        Bundle.open(copy)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(copy)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_only_plain_files_are_read(copy, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (copy / name).rename(elsewhere)  # the very same bytes
    for make in (
        lambda file: file.symlink_to(elsewhere),
        lambda file: file.mkdir(),
        lambda file: os.mkfifo(file),
    ):
        make(copy / name)
        with pytest.raises(BundleError, match=f"{name}: must be a"):
            Bundle.open(copy)
        (copy / name).rmdir() if (copy / name).is_dir() else (copy / name).unlink()


@pytest.mark.parametrize("name", ["extra.json", ".hidden", "index"])
def test_anything_else_in_the_directory_is_refused(copy, name):
    (copy / name).mkdir() if name == "index" else (copy / name).touch()
    with pytest.raises(BundleError, match=f"{name}: not part of the bundle; remove it"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../vocabulary.json", "/etc/passwd", "a\0b", "x" * 300, ".."])
def test_names_that_leave_the_directory_are_never_opened(copy, name):
    manifest = json.loads((copy / MANIFEST).read_bytes())
    manifest["files"][name] = manifest["files"].pop("vocabulary.json")
    manifest = msgspec.convert(manifest, Manifest).sealed()
    (copy / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    (copy.parent / "vocabulary.json").write_bytes((copy / "vocabulary.json").read_bytes())
    with pytest.raises(BundleError, match="must list counts.safetensors"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a manifest"),
        (b"[]", "not a manifest"),
        (b"{}", "missing required field `schema`"),
        (b'{"schema": 2, "new": 1}', "schema 2, but this version reads 1; open it with"),
        (b'{"schema": 1}', "missing required field `config`"),
        (b"[" * 100_000, "not a manifest"),
        (b'{"schema": 1e999}', "not a manifest"),
        (b"\xff", "not a manifest"),
        (b'{"schema": 1, "\xff": 1}', "not a manifest"),
        (b" " * (2**20 + 1), "larger than"),
    ],
)
def test_other_manifests_are_refused(copy, content, words):
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=words):
        Bundle.open(copy)


def test_unknown_keys_in_the_manifest_are_refused(copy):
    manifest = json.loads((copy / MANIFEST).read_bytes())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "hook": "os.system"}))
    with pytest.raises(BundleError, match="unknown field `hook`"):
        Bundle.open(copy)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path, written):
    for path, words in [
        (tmp_path / "nowhere", "no such directory"),
        (written / MANIFEST, "no such directory"),
        (tmp_path, "not a bundle, for it holds no manifest.json"),
    ]:
        with pytest.raises(BundleError, match=words):
            Bundle.open(path)


def test_a_field_that_came_later_does_not_disturb_an_older_bundle(copy):
    """As an earlier version would have written it: without that key, sealed as it stood."""
    plain = json.loads((copy / MANIFEST).read_text())
    del plain["config"]["training"]["epochs"], plain["digest"]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    plain["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    (copy / MANIFEST).write_text(json.dumps(plain))
    assert Bundle.open(copy).config.training.epochs == 0
