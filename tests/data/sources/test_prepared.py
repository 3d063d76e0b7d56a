"""The prepared layout: its exact counts, its splits, and what is wrong with a folder."""

from pathlib import Path

import polars as pl
import pytest

from dimerec.data import sources
from dimerec.errors import DataError
from tests.data.sources.samples import real

# From the README that comes with the data: events, users, items, split, shortest and longest.
KNOWN = {
    "ml-1m": (1_000_209, 6_040, 3_706, {}, (20, 2_314)),
    "ml-latest-small": (100_836, 610, 9_724, {}, (20, 2_698)),
    "amazon-beauty": (198_502, 22_363, 12_101, {}, (5, 204)),
    "yoochoose-1-64": (557_248, 131_491, 17_745, {"train": 116_167, "test": 15_324}, (2, 146)),
    "yoochoose-dreamrec": (112_307, 25_694, 4_721, {"valid": 12_847, "test": 12_847}, (3, 30)),
    "kuairec-dreamrec": (132_341, 18_418, 3_015, {"valid": 9_209, "test": 9_209}, (3, 2_222)),
}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_real_folders_are_read_by_name(name: str, tmp_path: Path) -> None:
    folder = real(name)
    assert sources.fetch(name, tmp_path) == folder
    loaded = sources.read(name)
    frame, (events, users, items, split, extent) = loaded.log.frame, KNOWN[name]
    assert (frame.height, frame["user"].n_unique(), frame["item"].n_unique()) == (
        events,
        users,
        items,
    )
    lengths = frame["user"].value_counts()["count"]
    assert (lengths.min(), lengths.max()) == extent
    assert loaded.log.timed == (name == "ml-latest-small")
    assert loaded.origin["layout"] == "prepared"
    if split:
        assert loaded.split is not None
        assert dict(loaded.split["split"].value_counts().rows()) == split
        assert set(loaded.split["user"]) == set(frame["user"])
    else:
        assert loaded.split is None
    if loaded.items is not None:
        assert set(frame["item"].unique()) <= set(loaded.items["item"])
        assert loaded.items.schema["categories"] == pl.List(pl.String)


def folder(path: Path, **changes: pl.DataFrame) -> Path:
    path.mkdir()
    files = {
        "interactions": pl.DataFrame(
            {"user_id": [1, 1, 2], "item_id": [5, 6, 5], "position": [1, 0, 0]}
        ),
        "items": pl.DataFrame({"item_id": [5, 6], "genres": [["a"], []]}),
        "splits": pl.DataFrame({"user_id": [1, 2], "split": ["train", "val"]}),
    }
    for name, frame in (files | changes).items():
        frame.write_parquet(path / f"{name}.parquet")
    return path


def test_any_dataset_may_come_in_this_layout(tmp_path: Path) -> None:
    place = folder(tmp_path / "set")
    for given in (place, place / "interactions.parquet"):
        loaded = sources.read("ml-1m", given, complete=False)
        assert loaded.log.frame.rows() == [(1, 6, 0), (1, 5, 1), (2, 5, 0)]
        assert loaded.items is not None
        assert loaded.items.rows() == [(5, None, ["a"]), (6, None, [])]
        assert loaded.split is not None
        assert loaded.split.rows() == [(1, "train"), (2, "valid")]
        assert sources.fetch("ml-1m", tmp_path / "into", given) == place
    assert not (tmp_path / "into").exists()


def test_events_alone_are_enough(tmp_path: Path) -> None:
    place = folder(tmp_path / "set")
    (place / "items.parquet").unlink()
    (place / "splits.parquet").unlink()
    loaded = sources.read("yoochoose-1-64", place, complete=False)
    assert (loaded.items, loaded.split) == (None, None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"interactions": pl.DataFrame({"user_id": [1], "item": [2]})},
            r"no column item_id; found",
        ),
        (
            {"interactions": pl.DataFrame({"user_id": [1], "item_id": [2]})},
            "neither a column timestamp nor position",
        ),
        ({"items": pl.DataFrame({"id": [2]})}, r"items\.parquet: no column item_id"),
        (
            {"splits": pl.DataFrame({"user_id": [1], "split": ["dev"]})},
            r"splits\.parquet: split is train, val or test, found dev",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        sources.read("ml-1m", folder(tmp_path / "set", **changes), complete=False)


def test_a_truncated_file_is_said_to_be_one(tmp_path: Path) -> None:
    place = folder(tmp_path / "set")
    content = (place / "interactions.parquet").read_bytes()
    (place / "interactions.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"interactions\.parquet: not a whole Parquet file"):
        sources.read("ml-1m", place, complete=False)
