"""KuaiRec (Kuaishou, 2020): short videos and how much of each was watched.

Every row is a video shown, most of them passed over, and the same one may come thousands of times
in a row. So by default an event is a video played through twice (`watch_ratio>=2.0`, what its
authors count as liked), and immediate repeats are one event. The big matrix is what users met by
themselves; the small one is almost fully observed (each user was shown each video).
"""

from functools import partial

import polars as pl

from dimerec.data.fetch import Remote
from dimerec.data.sources import Counts, Files, Source
from dimerec.data.sources._lines import table
from dimerec.errors import DataError

CATEGORIES = "item_categories.csv"
LIKED = "watch_ratio>=2.0"


def matrix(files: Files, name: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Events with `watch_ratio`; `timestamp` has fractions of a second, null where unknown."""
    kinds = {
        "user_id": pl.Int64,
        "video_id": pl.Int64,
        "timestamp": pl.Float64,
        "watch_ratio": pl.Float64,
    }
    events = table(files[name], kinds, optional=("timestamp",))
    return events.rename({"user_id": "user", "video_id": "item"}), _items(files)


def _items(files: Files) -> pl.DataFrame | None:
    if CATEGORIES not in files:
        return None
    videos = table(files[CATEGORIES], {"video_id": pl.Int64, "feat": pl.String})
    listed = videos["feat"].str.contains(r"^\[\d+(, ?\d+)*\]$")
    if not listed.all():
        row = int((~listed).arg_max() or 0)
        raise DataError(
            f"{files[CATEGORIES]}, line {row + 2}: feat is not a list like [27, 9]: "
            f"{videos['feat'][row]!r}"
        )
    return videos.select(
        pl.col("video_id").alias("item"),
        pl.lit(None, pl.String).alias("title"),
        pl.col("feat").str.extract_all(r"\d+").alias("categories"),
    )


def _source(size: str, counts: Counts) -> Source:
    name = f"{size}_matrix.csv"
    return Source(
        name=f"kuairec-{size}",
        title=f"KuaiRec, {size} matrix (2020)",
        licence="CC BY-SA 4.0: name the authors, pass on under the same licence",
        citation="Chongming Gao et al. 2022. KuaiRec: A Fully-observed Dataset and Insights for "
        "Evaluating Recommender Systems. CIKM '22. https://doi.org/10.1145/3511808.3557220",
        home="https://kuairec.com",
        counts=counts,
        log=name,
        others=(CATEGORIES,),
        parse=partial(matrix, name=name),
        remotes=(
            Remote(
                "https://zenodo.org/records/18164998/files/KuaiRec.zip",
                431_964_858,
                "261550d472c48eff4990fb13c0e5bcf7",
            ),
        ),
        where=LIKED,
        duplicates="collapse",
    )


SOURCES = [
    _source("big", Counts(12_530_806, 7_176, 10_728)),
    _source("small", Counts(4_676_570, 1_411, 3_327)),
]
