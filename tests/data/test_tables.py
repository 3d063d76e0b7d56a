"""Opening tables: what people have is read, what is broken is named with its line."""

import gzip
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.feather
import pytest

from dimerec.data.tables import ROW, open_table
from dimerec.errors import DataError

TEXT = "user,item,time\n" + "".join(
    f"u{i % 7},i{i % 11},{1_500_000_000 + i}\n" for i in range(5000)
)


def failure(path: Path, columns: tuple[str, ...] = ("user", "item", "time")) -> str:
    with pytest.raises(DataError) as caught:
        open_table(path).read(columns)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    return message.removeprefix(str(path))


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_missing_file_a_directory_and_an_unknown_kind(tmp_path: Path) -> None:
    assert failure(tmp_path / "no.csv") == ": no such file"
    assert failure(tmp_path).startswith(": a directory")
    assert "cannot tell its format" in failure(put(tmp_path / "log.dat", "1::2::3"))
    assert "cannot tell its format" in failure(put(tmp_path / "log.parquet.gz", "1::2::3"))


@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "log.arrow", "log.csv.gz"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    assert failure(put(tmp_path / name, "")) == ": the file is empty"


def test_a_compressed_empty_file(tmp_path: Path) -> None:
    assert failure(put(tmp_path / "log.csv.gz", gzip.compress(b""))) == ": the file is empty"


@pytest.mark.parametrize("text", ["user,item,time\n", "user,item,time", "user,item,time\n\n\n"])
def test_a_header_only(tmp_path: Path, text: str) -> None:
    assert "only a header (user, item, time)" in failure(put(tmp_path / "log.csv", text))


def test_a_table_without_rows(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1]}).clear().write_parquet(tmp_path / "log.parquet")
    assert "no rows" in failure(tmp_path / "log.parquet", ("user",))


@pytest.mark.parametrize(
    ("name", "separator", "said", "way_out"),
    [
        ("log.csv", ";", "separated by ';'", "rewrite it"),
        ("log.csv", "\t", "separated by tabs", "name it .tsv"),
        ("log.csv", "::", "separated by '::'", "rewrite it"),
        ("log.tsv", ",", "separated by commas", "name it .csv"),
    ],
)
def test_a_wrong_delimiter(
    tmp_path: Path, name: str, separator: str, said: str, way_out: str
) -> None:
    message = failure(put(tmp_path / name, TEXT.replace(",", separator)))
    assert message.startswith(", line 1: one column only, ")
    assert said in message and way_out in message


def test_broken_utf8_is_found_on_its_line(tmp_path: Path) -> None:
    path = put(tmp_path / "log.csv", b"user,item,time\nu1,i1,1500000000\nu1,\xff\xfe,1500000000\n")
    assert failure(path).startswith(", line 3: not UTF-8")
    packed = put(tmp_path / "log.csv.gz", gzip.compress(path.read_bytes()))
    assert failure(packed).startswith(", line 3: not UTF-8")


def test_a_line_with_too_many_fields(tmp_path: Path) -> None:
    text = 'user,item,time\nu1,"a\nb",1\nu2,i2,2,spare\n'
    message = failure(put(tmp_path / "log.csv", text))
    assert message.startswith(", line 4: 4 fields where the header has 3")


def test_a_quote_that_never_closes(tmp_path: Path) -> None:
    message = failure(put(tmp_path / "log.csv", 'user,item,time\nu1,i1,1\nu2,"i2,2\nu3,i3,3\n'))
    assert message.startswith(", line 3: ") and "quote" in message


def test_truncated_and_corrupt_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT.encode())
    for name, content in {
        "half.csv.gz": packed[: len(packed) // 2],
        "tail.csv.gz": packed[:-4],
        "flip.csv.gz": packed[:2000] + bytes([packed[2000] ^ 255]) + packed[2001:],
    }.items():
        assert "damaged or cut short" in failure(put(tmp_path / name, content)), name


def test_packing_goes_by_the_content_whatever_the_name(tmp_path: Path) -> None:
    for name, content in {"a.csv.gz": TEXT.encode(), "b.csv": gzip.compress(TEXT.encode())}.items():
        table = open_table(put(tmp_path / name, content))
        assert table.read(["user"]).height == 5000
        assert table.place(4999) == "line 5001"


def test_truncated_zstd(tmp_path: Path) -> None:
    whole = zstd(tmp_path / "log.csv.zst", TEXT)
    assert open_table(whole).read(["user"]).height == 5000
    content = whole.read_bytes()
    path = put(tmp_path / "half.csv.zst", content[: len(content) // 2])
    assert "damaged or cut short" in failure(path)


@pytest.mark.parametrize("name", ["log.parquet", "log.arrow", "log.feather"])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_truncated_parquet_and_arrow(tmp_path: Path, name: str, part: float) -> None:
    frame = pl.DataFrame({"user": range(5000), "item": range(5000), "time": range(5000)})
    path = tmp_path / name
    frame.write_parquet(path) if name == "log.parquet" else frame.write_ipc(path)
    content = path.read_bytes()
    put(path, content[: int(len(content) * part)])
    assert "damaged or cut short" in failure(path)


def test_text_called_parquet(tmp_path: Path) -> None:
    assert "damaged or cut short" in failure(put(tmp_path / "log.parquet", TEXT))


def test_the_arrow_stream_format(tmp_path: Path) -> None:
    table = pa.table({"user": [1, 2], "item": [3, 4]})
    with pa.OSFile(str(tmp_path / "log.arrow"), "wb") as f, pa.ipc.new_stream(f, table.schema) as w:
        w.write_table(table)
    assert open_table(tmp_path / "log.arrow").read(["item"])["item"].to_list() == [3, 4]


def test_byte_order_mark_windows_lines_and_blank_lines_at_the_end(tmp_path: Path) -> None:
    path = put(tmp_path / "log.csv", b"\xef\xbb\xbfuser,item\r\nu1,i1\r\nu2,i2\r\n\r\n\n")
    frame = open_table(path).read(["user", "item"])
    assert frame.rows() == [(0, "u1", "i1"), (1, "u2", "i2")]
    assert frame.columns[0] == ROW


def test_a_name_with_glob_characters_is_one_file(tmp_path: Path) -> None:
    put(tmp_path / "log1.csv", "user,item\nother,other\n")
    path = put(tmp_path / "log[1].csv", "user,item\nu,i\n")
    assert open_table(path).read(["user"])["user"].to_list() == ["u"]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = put(tmp_path / "log.csv", 'user,item\nu1,"a\nb"\n\nu2,i2\n')
    table = open_table(path)
    assert table.read(["user"])["user"].to_list() == ["u1", None, "u2"]
    assert [table.place(row) for row in range(3)] == ["line 2", "line 4", "line 5"]
    packed = open_table(zstd(tmp_path / "log.csv.zst", path.read_text()))
    assert packed.place(2) == "line 5"


def test_rows_of_other_tables_are_counted_from_one() -> None:
    assert open_table(pl.DataFrame({"user": [1]})).place(0) == "row 1"


def test_what_is_no_table() -> None:
    with pytest.raises(DataError, match="cannot read a log from builtins.list"):
        open_table([1, 2])


def test_a_lazy_frame_that_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the frame: "):
        open_table(pl.scan_parquet(tmp_path / "no.parquet"))
    broken = pl.LazyFrame({"user": ["x"]}).with_columns(pl.col("user").cast(pl.Int64))
    with pytest.raises(DataError, match="the frame: "):
        open_table(broken).read(["user"])


def zstd(path: Path, text: str) -> Path:
    with pa.CompressedOutputStream(str(path), "zstd") as f:
        f.write(text.encode())
    return path
