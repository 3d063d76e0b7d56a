"""How many cells an approximate index must search to find what exact search finds."""

from dataclasses import dataclass

import numpy as np

from dimerec.errors import DataError
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.retrieval.exact import ExactIndex

DEPTH = 100  # recall is that of so long a list


@dataclass(frozen=True)
class Tuned:
    """recall: share of exact's `DEPTH` best items found, over the queries, with `probes` cells."""

    probes: int
    recall: float


def tune(
    index: ApproximateIndex, queries: np.ndarray, recall: float, wanted: np.ndarray | None = None
) -> Tuned:
    """Set `index.probes` to the fewest cells that reach a recall at `DEPTH` on these queries.

    Args:
        queries: float32 `[B, K, d]` of real users, B >= 1; a few hundred will do.
        recall: in (0, 1].
        wanted: int64 `[B, DEPTH]`, what exact search finds, if it is known.

    Raises:
        DataError: no queries, a recall out of range, or one that all cells together do not reach.
    """
    if not len(queries) or not 0 < recall <= 1:
        raise DataError(f"recall must be in (0, 1] and queries at least one, got {recall}")
    if wanted is None:
        wanted = ExactIndex(index.vectors, index.gone).search(queries, DEPTH)[0]
    before = index.probes
    low, high = 1, 1
    while (found := _recall(index, queries, wanted, high)) < recall:  # too few cells
        if high >= index.cells:
            index.probes = before
            raise DataError(
                f"all {index.cells} cells reach a recall of {found:.4f} only; ask for less, or "
                "keep the vectors whole with --codes flat"
            )
        low, high = high + 1, min(2 * high, index.cells)
    while low < high:
        middle = (low + high) // 2
        if _recall(index, queries, wanted, middle) < recall:
            low = middle + 1
        else:
            high = middle
    return Tuned(high, _recall(index, queries, wanted, high))


def _recall(index: ApproximateIndex, queries: np.ndarray, wanted: np.ndarray, probes: int) -> float:
    index.probes = probes
    found, _ = index.search(queries, wanted.shape[1])
    return float(hits(found, wanted).sum() / max(1, (wanted > 0).sum()))


def hits(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """bool `[B, n]`: which of the `wanted` numbers `[B, n]` are in the same row of `found`."""
    size = int(max(found.max(initial=0), wanted.max(initial=0))) + 1
    rows = np.arange(len(wanted))[:, None] * size
    return np.isin(rows + wanted, (rows + found)[found > 0]) & (wanted > 0)
