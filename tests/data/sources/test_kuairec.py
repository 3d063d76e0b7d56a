"""KuaiRec: the watch-ratio threshold, collapsed repeats, rows without a time, categories."""

import csv
from itertools import groupby
from pathlib import Path

import pytest

from dimerec.data import sources
from dimerec.errors import DataError
from tests.data.sources.samples import lay, real


def liked(path: Path, least: float) -> list[tuple[int, int, int]]:
    """(user, video, second) by user and time, repeats in a row once: the slow way."""
    with path.open() as f:
        rows = [r for r in csv.DictReader(f) if r["timestamp"] and float(r["watch_ratio"]) >= least]
    rows.sort(key=lambda r: (int(r["user_id"]), float(r["timestamp"])))
    once = [next(group) for _, group in groupby(rows, key=lambda r: (r["user_id"], r["video_id"]))]
    return [(int(r["user_id"]), int(r["video_id"]), int(float(r["timestamp"]))) for r in once]


def test_by_default_videos_watched_twice_and_repeats_once(tmp_path: Path) -> None:
    folder = lay(tmp_path)
    loaded = sources.read("kuairec-big", folder, complete=False)
    expected = liked(folder / "big_matrix.csv", 2.0)
    assert loaded.log.frame.rows() == expected
    assert [f.name for f in loaded.log.filters] == ["where watch_ratio>=2.0", "duplicates collapse"]
    everything = sources.read("kuairec-big", folder, where="watch_ratio>=0", complete=False)
    assert everything.log.frame.rows() == liked(folder / "big_matrix.csv", 0.0)
    assert 0 < len(expected) < len(everything.log)
    shown = sources.read(
        "kuairec-big", folder, where="watch_ratio>=0", duplicates="keep", complete=False
    )
    rows = len((folder / "big_matrix.csv").read_text().splitlines()) - 1
    assert len(everything.log) < len(shown.log) == rows


def test_categories_of_the_videos(tmp_path: Path) -> None:
    items = sources.read("kuairec-big", lay(tmp_path), complete=False).items
    assert items is not None
    with (tmp_path / "item_categories.csv").open() as f:
        given = {int(r["video_id"]): r["feat"] for r in csv.DictReader(f)}
    assert {i: "[" + ", ".join(c) + "]" for i, _, c in items.rows()} == given
    assert (items["categories"].list.len() > 1).any()
    (tmp_path / "item_categories.csv").write_text("video_id,feat\n0,[8]\n1,27; 9\n")
    with pytest.raises(DataError, match=r"item_categories\.csv, line 3: feat is not a list"):
        sources.read("kuairec-big", tmp_path, complete=False)


def test_rows_without_a_time_are_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "small_matrix.csv").write_text(
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "14,148,9,3,2020-07-05 05:27:48.378,20200705.0,1593898068.378,3.0\n"
        "14,183,9,3,,,,3.0\n"
        "15,183,9,3,,,,3.0\n"
    )
    log = sources.read("kuairec-small", tmp_path, complete=False).log
    assert log.frame.rows() == [(14, 148, 1593898068)]
    first = log.filters[0]
    assert (first.name, first.events_removed, first.users_removed, first.items_removed) == (
        "rows without a time",
        2,
        1,
        1,
    )


def test_malformed_lines_name_file_and_line(tmp_path: Path) -> None:
    path = lay(tmp_path) / "big_matrix.csv"
    lines = path.read_text().splitlines()
    lines[20] = lines[20].rsplit(",", 1)[0] + ",much"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"big_matrix\.csv, line 21: watch_ratio is not a number"):
        sources.read("kuairec-big", tmp_path, complete=False)


def test_real_rows() -> None:
    folder = real("raw-samples", "kuairec")
    for name, kept in (("big", 10), ("small", 5)):
        loaded = sources.read(f"kuairec-{name}", folder, where="watch_ratio>=0", complete=False)
        assert len(loaded.log) + loaded.log.filters[-1].events_removed == kept
    with pytest.raises(DataError, match=r"kuairec-big has 12,530,806 events"):
        sources.read("kuairec-big", folder)
