"""Amazon 2014: JSON lines, literals as metadata, ratings without a header."""

import gzip
import json
from pathlib import Path

import pytest

from dimerec.data import sources
from dimerec.errors import DataError

REVIEWS = [
    {
        "reviewerID": user,
        "asin": item,
        "reviewerName": 'A, "B"',
        "helpful": [3, 4],
        "reviewText": "Very oily and creamy.\nNot at all :: what I expected.",
        "overall": stars,
        "summary": "x",
        "unixReviewTime": time,
        "reviewTime": "01 30, 2014",
    }
    for user, item, stars, time in [
        ("A1YJEY40YUW4SE", "7806397051", 1.0, 1391040000),
        ("A60XNB876KYML", "7806397051", 3.0, 1397779200),
        ("A60XNB876KYML", "B00LLPT4HI", 5.0, 1378425600),
    ]
]
PRODUCTS = [
    "{'asin': '7806397051', 'title': \"It's a Blush\", 'price': 1.5, "
    "'categories': [['Beauty', 'Makeup'], ['Beauty', 'Face']], 'salesRank': {'Beauty': 3}}",
    "{'asin': '0000000000', 'title': 'Not reviewed', 'categories': [['Beauty']]}",
    '{"asin": "B00LLPT4HI", "imUrl": "http://x"}',
]


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", [".json.gz", ".json"])
def test_reviews_with_titles_and_categories(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"reviews_Beauty_5{suffix}", [json.dumps(r) for r in REVIEWS])
    write(tmp_path / f"meta_Beauty{suffix}", PRODUCTS)
    loaded = sources.read("amazon-beauty", tmp_path, complete=False)
    assert loaded.log.frame.rows() == [
        ("A1YJEY40YUW4SE", "7806397051", 1391040000),
        ("A60XNB876KYML", "B00LLPT4HI", 1378425600),
        ("A60XNB876KYML", "7806397051", 1397779200),
    ]
    assert loaded.items is not None
    assert loaded.items.rows() == [
        ("7806397051", "It's a Blush", ["Beauty", "Makeup", "Face"]),
        ("B00LLPT4HI", None, []),
    ]
    good = sources.read("amazon-beauty", tmp_path, where="rating>=3", complete=False)
    assert len(good.log) == 2


def test_metadata_is_optional(tmp_path: Path) -> None:
    write(tmp_path / "reviews_Toys_and_Games_5.json.gz", [json.dumps(r) for r in REVIEWS])
    assert sources.read("amazon-toys", tmp_path, complete=False).items is None


def test_ratings_without_a_header(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ratings_Beauty.csv",
        ["A39HTATAQ9V7YF,0205616461,5.0,1369699200", "A3JM6GV9MNOF9X,0558925278,3.0,1355443200"],
    )
    loaded = sources.read("amazon-beauty-ratings", path, complete=False)
    assert loaded.log.frame.rows() == [
        ("A39HTATAQ9V7YF", "0205616461", 1369699200),
        ("A3JM6GV9MNOF9X", "0558925278", 1355443200),
    ]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ('{"reviewerID": "A", "asin": "B", "overall": 1.0}', "unixReviewTime"),
        ('{"reviewerID": "A", "asin": "B", "overall": "5", "unixReviewTime": 1}', "overall"),
        ('{"reviewerID": "A", "asin"', "truncated"),
        ("", "truncated"),
    ],
)
def test_malformed_reviews_name_file_and_line(tmp_path: Path, bad: str, says: str) -> None:
    lines = [json.dumps(r) for r in REVIEWS]
    write(tmp_path / "reviews_Beauty_5.json.gz", [*lines, bad])
    with pytest.raises(DataError, match=rf"reviews_Beauty_5\.json\.gz, line 4: .*{says}"):
        sources.read("amazon-beauty", tmp_path, complete=False)


@pytest.mark.parametrize(
    "bad", ["{'asin': __import__('os').getcwd()}", "{'asin': 'B'", "{'title': 'no asin'}", "7"]
)
def test_metadata_is_never_run(tmp_path: Path, bad: str) -> None:
    write(tmp_path / "reviews_Beauty_5.json.gz", [json.dumps(r) for r in REVIEWS])
    write(tmp_path / "meta_Beauty.json.gz", [PRODUCTS[0], bad])
    with pytest.raises(DataError, match=r"meta_Beauty\.json\.gz, line 2: not a product"):
        sources.read("amazon-beauty", tmp_path, complete=False)


def test_a_cut_download_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews_Beauty_5.json.gz", [json.dumps(r) for r in REVIEWS * 900])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="damaged or cut short after line"):
        sources.read("amazon-beauty", tmp_path, complete=False)
