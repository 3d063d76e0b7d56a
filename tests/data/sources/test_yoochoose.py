"""YooChoose clicks and buys: exact values, categories, malformed lines."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dimerec.data import sources
from dimerec.errors import DataError
from tests.data.sources.samples import lay, real


def test_clicks_equal_a_plain_split(tmp_path: Path) -> None:
    source = sources.get("yoochoose-clicks")
    events, items = source.parse(source.files(lay(tmp_path)))
    lines = [x.split(",") for x in (tmp_path / "yoochoose-clicks.dat").read_text().splitlines()]
    moment = "%Y-%m-%dT%H:%M:%S.%fZ"
    assert [(r["user"], r["timestamp"], r["item"]) for r in events.iter_rows(named=True)] == [
        (int(s), datetime.strptime(t, moment), int(i)) for s, t, i, _ in lines
    ]
    assert items is not None
    categories: dict[int, set[str]] = {}
    for _, _, item, category in lines:
        categories.setdefault(int(item), set()).update({category} & {str(n) for n in range(1, 13)})
    assert {i: set(c) for i, _, c in items.rows()} == categories
    assert any(categories.values())
    assert any(c == "S" or len(c) > 2 for *_, c in lines)  # the sample has what must not come out
    assert items["title"].null_count() == items.height


def test_sub_second_order_and_seconds_of_utc(tmp_path: Path) -> None:
    late, early = "9,2014-04-07T10:51:09.900Z,11,0", "9,2014-04-07T10:51:09.277Z,12,S"
    (tmp_path / "yoochoose-clicks.dat").write_text(f"{late}\n{early}\n")
    log = sources.read("yoochoose-clicks", tmp_path, complete=False).log
    second = int(datetime(2014, 4, 7, 10, 51, 9, tzinfo=UTC).timestamp())
    assert log.frame.rows() == [(9, 12, second), (9, 11, second)]


def test_buys_alone_and_gzipped(tmp_path: Path) -> None:
    content = (lay(tmp_path / "all") / "yoochoose-buys.dat").read_bytes()
    path = tmp_path / "mine.dat.gz"
    path.write_bytes(gzip.compress(content))
    loaded = sources.read("yoochoose-buys", path, complete=False)
    assert len(loaded.log) == len(content.splitlines())
    assert loaded.items is None
    dear = sources.read("yoochoose-buys", path, where="price>1000", complete=False)
    assert 0 < len(dear.log) < len(loaded.log)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("1,2014-04-07 10:51:09,214,0", "timestamp is not like 2014-04-07T"),
        ("1,2014-13-07T10:51:09.277Z,214,0", "timestamp is not like 2014-04-07T"),
        ("1,2014-04-07T10:51:09.277Z,214", "expected 4 fields"),
        ("one,2014-04-07T10:51:09.277Z,214,0", "user is not an integer"),
        ("1,2014-04-07T10:51:09.277Z,214,", "category is not text"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path: Path, bad: str, says: str) -> None:
    path = lay(tmp_path) / "yoochoose-clicks.dat"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:100], bad, *lines[100:]]))
    with pytest.raises(DataError, match=rf"yoochoose-clicks\.dat, line 101: {says}"):
        sources.read("yoochoose-clicks", tmp_path, complete=False)


def test_fetch_says_how_to_get_it_and_refuses_7z(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIMEREC_DATA", raising=False)
    with pytest.raises(DataError, match=r"yoochoose-clicks cannot be downloaded.*7z x.*--from"):
        sources.fetch("yoochoose-clicks", tmp_path)
    (tmp_path / "yoochoose-data.7z").write_bytes(b"7z\xbc\xaf\x27\x1c rest")
    with pytest.raises(DataError, match=r"does not unpack \.7z; run `7z x`"):
        sources.fetch("yoochoose-clicks", tmp_path, tmp_path / "yoochoose-data.7z")
    folder = lay(tmp_path / "yoochoose-data")
    assert sources.fetch("yoochoose-clicks", tmp_path, folder) == folder


def test_real_lines() -> None:
    folder = real("raw-samples", "yoochoose")
    clicks = sources.read("yoochoose-clicks", folder, complete=False).log
    assert len(clicks) == 20
    assert clicks.frame.row(0) == (1, 214536502, 1396867869)
    assert len(sources.read("yoochoose-buys", folder, complete=False).log) == 9
    long = folder / "yoochoose-clicks-reformatted.dat"
    assert len(sources.read("yoochoose-clicks", long, complete=False).log) == 198
