"""ComiRec's controllable aggregation: accuracy traded for categories that differ.

A list S is worth Q(u, S) = sum of f(u, i) over its items + weight * (its pairs of items whose
categories differ), where f is the score. It is filled greedily, as in Alg. 2 of Cen et al. 2020:
the next item is the one that adds most to Q. (The paper's formula counts a pair in both orders,
its algorithm and its code once; so here.)
"""

from collections.abc import Sequence

import numpy as np

from dimerec.errors import DataError
from dimerec.vocabulary import Item


def diverse(
    numbers: np.ndarray, scores: np.ndarray, categories: np.ndarray, n: int, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """n of each user's C candidates, chosen one by one.

    Args:
        numbers: int64 `[B, C]` candidates of B users, distinct in a row; 0 stands for none.
        scores: float32 `[B, C]` f(u, i); one of -inf or NaN is never chosen.
        categories: int64 `[V, G]`, see `table`. Items without a category in common differ, so one
            without any differs from all.
        n: items a user, at least 1.
        weight: lambda, at least 0. 0 gives the n best scores.

    Returns:
        numbers int64 `[B, n]` in the order of choice, of equal gains the earlier candidate, and
        their scores float32 `[B, n]`; 0 and -inf where there are no more candidates.

    Raises:
        DataError: shapes that do not fit, numbers out of range or repeated, n or weight too small.
    """
    numbers, scores = np.asarray(numbers, np.int64), np.asarray(scores, np.float32)
    _check(numbers, scores, categories, n, weight)
    none = ((0, 0), (0, 1))  # a last candidate that is never chosen
    numbers, scores = np.pad(numbers, none), np.pad(scores, none, constant_values=-np.inf)
    usable = (numbers > 0) & (scores > -np.inf)  # False for NaN
    value = np.where(usable, scores, -np.inf).astype(np.float64)
    groups = categories[numbers]  # [B, C, G]
    users = np.arange(len(numbers))
    taken = np.full((len(numbers), n), numbers.shape[1] - 1)  # columns
    for step in range(min(n, numbers.shape[1] - 1)):
        best = value.argmax(1)  # [B]
        taken[:, step] = np.where(value[users, best] > -np.inf, best, -1)
        value[users, best] = -np.inf
        chosen = groups[users, best]  # [B, G]
        alike = (groups[..., None] == chosen[:, None, None, :]) & (groups > 0)[..., None]
        value += weight * ~alike.any((2, 3))
    rows = users[:, None]
    return numbers[rows, taken], scores[rows, taken]


def table(items: Sequence[Item]) -> np.ndarray:
    """Category numbers of items 1, 2, .. in the rows 1, 2, .. of int64 `[V, G]`.

    G is the largest number of categories that an item has, at least 1; 0 fills the rest, and row
    0 is padding.
    """
    known: dict[str, int] = {}
    rows = [[known.setdefault(name, len(known) + 1) for name in item.categories] for item in items]
    out = np.zeros((len(rows) + 1, max([1, *map(len, rows)])), np.int64)
    lengths = np.array([len(row) for row in rows], np.int64)
    at = np.repeat(np.arange(1, len(rows) + 1), lengths)
    column = np.arange(len(at)) - np.repeat(lengths.cumsum() - lengths, lengths)
    out[at, column] = [number for row in rows for number in row]
    return out


def _check(
    numbers: np.ndarray, scores: np.ndarray, categories: np.ndarray, n: int, weight: float
) -> None:
    if numbers.ndim != 2 or scores.shape != numbers.shape:
        shapes = f"{list(numbers.shape)} and {list(scores.shape)}"
        raise DataError(f"numbers and scores must both be [B, C], got {shapes}")
    if categories.ndim != 2 or not np.issubdtype(categories.dtype, np.integer):
        kind = f"{categories.dtype} {list(categories.shape)}"
        raise DataError(f"categories must be whole numbers [V, G], got {kind}")
    if n < 1:
        raise DataError(f"n must be at least 1, got {n}")
    if not 0 <= weight < np.inf:
        raise DataError(f"weight must be a finite number of at least 0, got {weight}")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(categories):
        span = f"{numbers.min()} to {numbers.max()}"
        raise DataError(f"item numbers must be in 0..{len(categories) - 1}, got {span}")
    ordered = np.sort(numbers, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any():
        raise DataError("a user's candidates must be distinct, but some number is there twice")
