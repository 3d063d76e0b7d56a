"""The made-up samples under their original names, and the folder of real data, where there is one."""

import os
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"
ORIGINALS = {
    "ml-10m-ratings.synthetic.dat": "ratings.dat",
    "ml-10m-movies.synthetic.dat": "movies.dat",
    "yoochoose-clicks.synthetic.dat": "yoochoose-clicks.dat",
    "yoochoose-buys.synthetic.dat": "yoochoose-buys.dat",
    "kuairec-big_matrix.synthetic.csv": "big_matrix.csv",
    "kuairec-item_categories.synthetic.csv": "item_categories.csv",
}


def lay(folder: Path) -> Path:
    """`folder` with every sample under its original name."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample, name in ORIGINALS.items():
        (folder / name).write_bytes((SAMPLES / sample).read_bytes())
    return folder


def real(*parts: str) -> Path:
    """A folder of the real data; skips the test where it is not at hand."""
    root = os.environ.get("DIMEREC_DATA")
    if not root:
        pytest.skip("DIMEREC_DATA names no folder of real data")
    place = Path(root, *parts)
    if not place.exists():
        pytest.skip(f"no {'/'.join(parts)} in DIMEREC_DATA")
    return place
