"""MovieLens (GroupLens): ratings of movies, with titles and genres, in its three formats.

`ml-1m-sasrec` is ML-1M as SASRec's authors prepared it, without items of fewer than five events,
under numbers of its own, and with an order among events of one second that the original does not
say. Most published figures of leave-one-out are of that file.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from dimerec.data.fetch import Remote
from dimerec.data.sources import Counts, Files, Parse, Source
from dimerec.data.sources._lines import records, table
from dimerec.errors import DataError

Parsed = tuple[pl.DataFrame, pl.DataFrame | None]
ParseLine = Callable[[str], tuple[str, str, list[str]] | None]  # movie id, title, genres
RATINGS = {"user": pl.Int64, "item": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
# The 19 columns at the end of u.item.
FLAGS = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
NO_GENRE = ["unknown", "(no genres listed)", ""]


def tabs(files: Files) -> Parsed:
    """100K: `u.data` (tabs) and `u.item` (latin-1, "|", 19 flags of genres)."""
    events = table(files["u.data"], RATINGS, separator="\t", header=False)
    return events, _movies(files, "u.item", "latin-1", _flagged)


def colons(files: Files) -> Parsed:
    """1M and 10M: `ratings.dat` and `movies.dat`, "::" between fields; latin-1 and UTF-8."""
    events = table(files["ratings.dat"], RATINGS, separator="::", header=False)
    try:
        return events, _movies(files, "movies.dat", "utf-8", _titled)
    except DataError as e:
        if not isinstance(e.__cause__, UnicodeDecodeError):
            raise
        return events, _movies(files, "movies.dat", "latin-1", _titled)


def commas(files: Files) -> Parsed:
    """20M and later: `ratings.csv` and `movies.csv`."""
    given = {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "timestamp"}
    events = table(files["ratings.csv"], {n: RATINGS[column] for n, column in given.items()})
    if "movies.csv" not in files:
        return events.rename(given), None
    schema = {"movieId": pl.Int64, "title": pl.String, "genres": pl.String}
    movies = table(files["movies.csv"], schema).select(
        item="movieId", title="title", categories=pl.col("genres").str.split("|")
    )
    return events.rename(given), _without_placeholders(movies)


def pairs(files: Files) -> Parsed:
    """SASRec's `ml-1m.txt`: user and item, in the order of each user's events."""
    events = table(
        files["ml-1m.txt"], {"user": pl.Int64, "item": pl.Int64}, separator=" ", header=False
    )
    return events.with_columns(position=pl.int_range(pl.len()).over("user")), None


def _flagged(line: str) -> tuple[str, str, list[str]] | None:
    item, title, *rest = line.split("|")
    flags = rest[3:]
    if len(flags) != len(FLAGS) or set(flags) - {"0", "1"}:
        return None
    return item, title, [g for g, flag in zip(FLAGS, flags, strict=True) if flag == "1"]


def _titled(line: str) -> tuple[str, str, list[str]] | None:
    item, _, rest = line.partition("::")
    title, mark, genres = rest.rpartition("::")
    return (item, title, genres.split("|")) if mark else None


def _movies(files: Files, name: str, encoding: str, parse: ParseLine) -> pl.DataFrame | None:
    if name not in files:
        return None
    rows = []
    for number, line in records(files[name], encoding):
        row = parse(line) if line else None
        if row is None or not row[0].isdecimal() or not row[1]:
            raise DataError(f"{files[name]}, line {number}: not a movie of {name}: {line[:80]!r}")
        rows.append((int(row[0]), *row[1:]))
    kinds = {"item": pl.Int64, "title": pl.String, "categories": pl.List(pl.String)}
    return _without_placeholders(pl.DataFrame(rows, schema=kinds, orient="row"))


def _without_placeholders(movies: pl.DataFrame) -> pl.DataFrame:
    real = pl.col("categories").list.eval(pl.element().filter(~pl.element().is_in(NO_GENRE)))
    return movies.with_columns(real)


FORMATS: dict[Parse, tuple[str, str]] = {
    tabs: ("u.data", "u.item"),
    colons: ("ratings.dat", "movies.dat"),
    commas: ("ratings.csv", "movies.csv"),
}
CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM TiiS 5, 4: 19:1-19:19. https://doi.org/10.1145/2827872"
)
TERMS = "research use with acknowledgement; no commercial use without permission; "
CLOSED = TERMS + "no redistribution without permission"
OPEN = TERMS + "redistribution under the same terms"
SEE = TERMS + "redistribution: see the README in the archive"
SITE = "https://files.grouplens.org/datasets/movielens"


def _source(
    size: str,
    title: str,
    licence: str,
    counts: Counts,
    parse: Parse,
    bytes: int | None = None,
    md5: str | None = None,
) -> Source:
    embedded = Path(__file__).parent / f"ml-{size}" if size == "latest-small" else None
    return Source(
        name=f"ml-{size}",
        title=f"MovieLens {title}",
        licence=licence,
        citation=CITATION,
        home=f"https://grouplens.org/datasets/movielens/{size.removesuffix('-small')}/",
        counts=counts,
        log=FORMATS[parse][0],
        others=(FORMATS[parse][1],),
        parse=parse,
        remotes=(Remote(f"{SITE}/ml-{size}.zip", bytes, md5),),
        embedded=embedded,
    )


# Sizes in bytes and MD5 as GroupLens publishes them beside the archives.
SOURCES = [
    _source(
        "latest-small",
        "latest-small (2018), inside the package",
        OPEN,
        Counts(100_836, 610, 9_724),
        commas,
    ),
    _source(
        "100k",
        "100K (1998)",
        CLOSED,
        Counts(100_000, 943, 1_682),
        tabs,
        4_924_029,
        "0e33842e24a9c977be4e0107933c0723",
    ),
    _source(
        "1m",
        "1M (2003)",
        CLOSED,
        Counts(1_000_209, 6_040, 3_706),
        colons,
        5_917_549,
        "c4d9eecfca2ab87c1945afe126590906",
    ),
    _source(
        "10m",
        "10M (2009)",
        CLOSED,
        Counts(10_000_054, 69_878, 10_677),
        colons,
        65_566_137,
        "ce571fd55effeba0271552578f2648bd",
    ),
    _source(
        "20m",
        "20M (2016)",
        SEE,
        Counts(20_000_263, 138_493, 26_744),
        commas,
        198_702_078,
        "cd245b17a1ae2cc31bb14903e1204af3",
    ),
    _source(
        "25m",
        "25M (2019)",
        CLOSED,
        Counts(25_000_095, 162_541, 59_047),
        commas,
        261_978_986,
        "6b51fb2759a8657d3bfcbfc42b592ada",
    ),
    _source(
        "32m",
        "32M (2023)",
        OPEN,
        Counts(32_000_204, 200_948, 84_432),
        commas,
        238_950_008,
        "d472be332d4daa821edc399621853b57",
    ),
    Source(
        name="ml-1m-sasrec",
        title="MovieLens 1M as SASRec's and BERT4Rec's authors prepared it",
        licence=CLOSED,
        citation=CITATION,
        home="https://github.com/FeiSun/BERT4Rec",
        counts=Counts(999_611, 6_040, 3_416),
        log="ml-1m.txt",
        parse=pairs,
        remotes=(
            Remote(
                "https://raw.githubusercontent.com/FeiSun/BERT4Rec/master/data/ml-1m.txt",
                9_053_831,
                "f7699aece54d883579ea84535bacdda0",
            ),
        ),
    ),
]
