"""Set targets: the last fifth of a test user's items, asked for at once, as ComiRec does."""

import numpy as np

from dimerec.config import Struct
from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.vocabulary import PADDING


class SetScores(Struct, frozen=True):
    """Means over queries; each is cut-off -> value."""

    queries: int
    hr: dict[int, float]
    ndcg: dict[int, float]
    recall: dict[int, float]


def set_queries(dataset: Dataset) -> tuple[Queries, np.ndarray]:
    """One query a test user, and its targets int64 `[Q, most]`, 0 where there are no more.

    The history ends before position floor(0.8 n), and what follows is the set, repeats included.
    Users whose history would be empty, or would end before their test events begin, are left out
    (under leave-one-out the set then begins with the test event).
    """
    n = np.diff(dataset.offsets)
    first = np.maximum(4 * n // 5, dataset.valid_end)
    rows = np.flatnonzero((first < n) & (first > 0))
    at = (dataset.offsets[rows] + first[rows])[:, None] + np.arange(
        (n - first)[rows].max(initial=0)
    )
    inside = at < dataset.offsets[rows + 1][:, None]
    targets = np.where(inside, dataset.items[np.where(inside, at, 0)], PADDING).astype(np.int64)
    queries = Queries(
        items=dataset.items,
        offsets=dataset.offsets,
        rows=rows,
        positions=first[rows],
    )
    return queries, targets


def score_sets(
    lists: np.ndarray, targets: np.ndarray, cutoffs: tuple[int, ...]
) -> dict[str, SetScores]:
    """Score lists `[Q, n]` against targets `[Q, m]`, with either normaliser of NDCG.

    As ComiRec's code does, an item of the list is a hit when it is among the targets, and recall
    divides by the number of targets with their repeats.

    Returns:
        "comirec" (DCG over the DCG of as many hits as were found) and "comirec-corrected" (over
        that of min(n, different targets)).
    """
    hit = np.zeros(lists.shape, bool)
    for column in targets.T:  # a table [Q, n, m] would be large
        hit |= (lists == column[:, None]) & (column != PADDING)[:, None]
    many = (targets != PADDING).sum(axis=1)
    ordered = np.sort(targets, axis=1)
    different = ((ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] != PADDING)).sum(axis=1)
    different += ordered[:, 0] != PADDING
    discount = 1 / np.log2(np.arange(lists.shape[1]) + 2)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])  # of so many hits, placed first
    hr, recall, ndcg, corrected = {}, {}, {}, {}
    for n in cutoffs:
        found = hit[:, :n].sum(axis=1)
        dcg = (hit[:, :n] * discount[:n]).sum(axis=1)
        hr[n] = float((found > 0).mean())
        recall[n] = float((found / many).mean())
        ndcg[n] = float((dcg / ideal[np.maximum(found, 1)]).mean())
        corrected[n] = float((dcg / ideal[np.minimum(different, min(n, lists.shape[1]))]).mean())
    Q = len(lists)
    return {
        "comirec": SetScores(queries=Q, hr=hr, ndcg=ndcg, recall=recall),
        "comirec-corrected": SetScores(queries=Q, hr=hr, ndcg=corrected, recall=recall),
    }
