"""MovieLens in its three formats: exact values, the whole embedded set, malformed lines."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from dimerec.data import sources
from dimerec.errors import DataError
from tests.data.sources.samples import lay, real


def parse(name: str, place: Path) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    source = sources.get(name)
    return source.parse(source.files(place))


def test_double_colons_equal_a_plain_split(tmp_path: Path) -> None:
    events, items = parse("ml-10m", lay(tmp_path))
    lines = (tmp_path / "ratings.dat").read_text().splitlines()
    expected = [(int(u), int(i), float(r), int(t)) for u, i, r, t in (x.split("::") for x in lines)]
    assert events.columns == ["user", "item", "rating", "timestamp"]
    assert events.rows() == expected
    assert items is not None
    movies = [x.split("::") for x in (tmp_path / "movies.dat").read_text().splitlines()]
    none = "(no genres listed)"
    assert none in {g for _, _, g in movies}
    assert items.rows() == [(int(i), t, [] if g == none else g.split("|")) for i, t, g in movies]


def test_tabs_flags_and_latin_1(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_bytes(b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    rows = [
        ("1|Toy Story (1995)|01-Jan-1995||http://x|", {3, 4, 5}),
        ("267|unknown||||", {0}),
        ("543|Mis\xe9rables, Les (1995)|01-Jan-1995||http://x|", {8, 12}),
    ]
    text = [r + "|".join("1" if n in on else "0" for n in range(19)) for r, on in rows]
    (tmp_path / "u.item").write_bytes(("\n".join(text) + "\n").encode("latin-1"))
    events, items = parse("ml-100k", tmp_path)
    assert events.rows() == [(196, 242, 3.0, 881250949), (186, 302, 3.0, 891717742)]
    assert items is not None
    assert items.rows() == [
        (1, "Toy Story (1995)", ["Animation", "Children's", "Comedy"]),
        (267, "unknown", []),
        (543, "Misérables, Les (1995)", ["Drama", "Musical"]),
    ]
    (tmp_path / "u.item").write_text(text[0] + "\n2|Short|a||b|0|1\n")
    with pytest.raises(DataError, match=r"u\.item, line 2: not a movie"):
        parse("ml-100k", tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_titles_with_colons_and_accents_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::4.5::978300760\n")
    text = "1::Mis\xe9rables: A::B (1995)::Drama|War\n2::None (1990)::(no genres listed)\n"
    (tmp_path / "movies.dat").write_bytes(text.encode(encoding))
    _, items = parse("ml-1m", tmp_path)
    assert items is not None
    assert items.rows() == [
        (1, "Misérables: A::B (1995)", ["Drama", "War"]),
        (2, "None (1990)", []),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_commas_quotes_and_both_line_ends(tmp_path: Path, end: str, packed: bool) -> None:
    files = {
        "ratings.csv": ["userId,movieId,rating,timestamp", "1,296,5.0,1147880044"],
        "movies.csv": [
            "movieId,title,genres",
            '11,"American President, The (1995)",Comedy|Drama',
            '12,"A ""Quoted"" Film",(no genres listed)',
        ],
    }
    for name, lines in files.items():
        content = (end.join(lines) + end).encode()
        path = tmp_path / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    events, items = parse("ml-25m", tmp_path)
    assert events.rows() == [(1, 296, 5.0, 1147880044)]
    assert items is not None
    assert items.rows() == [
        (11, "American President, The (1995)", ["Comedy", "Drama"]),
        (12, 'A "Quoted" Film', []),
    ]


def test_pairs_keep_the_order_of_each_user(tmp_path: Path) -> None:
    (tmp_path / "ml-1m.txt").write_text("1 7\n1 3\n2 3\n1 9\n2 1\n")
    events, items = parse("ml-1m-sasrec", tmp_path)
    assert items is None
    assert events.columns == ["user", "item", "position"]
    assert events.rows() == [(1, 7, 0), (1, 3, 1), (2, 3, 0), (1, 9, 2), (2, 1, 1)]
    log = sources.read("ml-1m-sasrec", tmp_path, complete=False).log
    assert log.frame.filter(pl.col("user") == 1)["item"].to_list() == [7, 3, 9]
    assert not log.timed
    (tmp_path / "ml-1m.txt").write_text("1 7\n1 3 4\n")
    with pytest.raises(DataError, match=r"ml-1m\.txt, line 2: expected 2 fields .* found 3"):
        parse("ml-1m-sasrec", tmp_path)


def test_ratings_alone_are_enough(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::4.5::978300760\n")
    assert parse("ml-10m", tmp_path)[1] is None
    assert parse("ml-10m", tmp_path / "ratings.dat")[0].height == 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("7::12::4", r"expected 4 fields .* found 3"),
        ("7::12::4::978300760::9", r"expected 4 fields .* found 5"),
        ("7::12::four::978300760", "rating is not a number"),
        ("7::x12::4::978300760", "item is not an integer"),
        ("7::12::4::", "timestamp is not an integer"),
        ("7,12,4,978300760", "found 1"),
        ("7:0:12::4::978300760", "found 3"),
        ("", "found 1"),
    ],
)
def test_malformed_lines_name_file_and_line(tmp_path: Path, bad: str, says: str) -> None:
    good = ["1::2::4.5::978300760"] * 5000
    (tmp_path / "ratings.dat").write_text("\n".join([*good[:4000], bad, *good]) + "\n")
    with pytest.raises(DataError, match=rf"ratings\.dat, line 4001: .*{says}"):
        parse("ml-10m", tmp_path)


def test_malformed_csv_names_file_and_line_or_column(tmp_path: Path) -> None:
    header = "userId,movieId,rating,timestamp\n"
    (tmp_path / "ratings.csv").write_text(header + "1,2,3.0,978300760\n1,2,,978300760\n")
    with pytest.raises(DataError, match=r"ratings\.csv, line 3: rating is not a number"):
        parse("ml-20m", tmp_path)
    (tmp_path / "ratings.csv").write_text(header.replace("movieId", "film") + "1,2,3,4\n")
    with pytest.raises(DataError, match=r"ratings\.csv: no column movieId; found: userId, film"):
        parse("ml-20m", tmp_path)
    for empty in ("", header):
        (tmp_path / "ratings.csv").write_text(empty)
        with pytest.raises(DataError, match=r"ratings\.csv: (no column|the file holds no rows)"):
            parse("ml-20m", tmp_path)


def test_a_truncated_gzip_is_said_to_be_one(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{n}::2::4.5::{n}\n" for n in range(9000)).encode())
    (tmp_path / "ratings.dat.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"ratings\.dat\.gz: damaged or cut short after line \d+"):
        parse("ml-10m", tmp_path)


def test_the_embedded_set_is_whole_offline_and_licensed(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIMEREC_DATA", raising=False)
    loaded = sources.read("ml-latest-small")
    frame = loaded.log.frame
    assert (len(loaded.log), frame["user"].n_unique(), frame["item"].n_unique()) == (
        100_836,
        610,
        9_724,
    )
    assert loaded.log.timed
    assert loaded.split is None
    assert loaded.items is not None
    assert loaded.items.height == 9_742
    assert loaded.items.row(0) == (
        1,
        "Toy Story (1995)",
        ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
    )
    assert int(loaded.items["categories"].list.len().eq(0).sum()) == 34
    folder = sources.fetch("ml-latest-small", tmp_path)
    assert list(tmp_path.iterdir()) == []
    licence = (folder / "LICENSE.txt").read_text()
    assert "may redistribute the data set" in licence
    assert "may not use this information for any commercial" in licence
    assert pl.read_parquet(folder / "interactions.parquet")["rating"].is_between(0.5, 5).all()


def test_real_lines_of_10m() -> None:
    loaded = sources.read("ml-10m", real("raw-samples", "ml-10m"), complete=False)
    assert loaded.log.frame.height == 200
    assert loaded.log.frame.rows()[:2] == [(1, 588, 838983339), (1, 231, 838983392)]
    assert loaded.items is not None
    assert loaded.items.height == 200
    assert loaded.items.row(11)[1:] == ("Dracula: Dead and Loving It (1995)", ["Comedy", "Horror"])
    with pytest.raises(DataError, match=r"ml-10m has 10,000,054 events .* but here are 200 events"):
        sources.read("ml-10m", real("raw-samples", "ml-10m"))
