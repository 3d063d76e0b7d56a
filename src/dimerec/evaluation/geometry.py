"""How vectors lie: norms, uniformity, alignment, and how alike a history's interests are.

Uniformity and alignment are those of Wang and Isola, "Understanding Contrastive Representation
Learning through Alignment and Uniformity on the Hypersphere" (ICML 2020), on unit vectors. All
functions are pure; vectors are float `[n, d]`.
"""

import numpy as np

from dimerec.config import Struct

ROWS = 1024  # of the table of pairs held at once


class Norms(Struct, frozen=True):
    """Lengths of vectors."""

    mean: float
    std: float
    min: float
    max: float


def norms(vectors: np.ndarray) -> Norms:
    """Of `vectors`, as the model scores with them."""
    length = np.linalg.norm(np.asarray(vectors, float), axis=1)
    return Norms(*(float(f()) for f in (length.mean, length.std, length.min, length.max)))


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    """`log E exp(-t |x - y|^2)` over all pairs of two different vectors; n >= 2.

    0 when all point one way, about -t * 2 when they are spread over a sphere of many dimensions:
    the lower, the more evenly spread.
    """
    x = unit(vectors)
    square = (x * x).sum(axis=1)
    total = -float(len(x))  # each one's pair with itself
    for start in range(0, len(x), ROWS):
        part = slice(start, start + ROWS)
        apart = square[part, None] + square - 2 * (x[part] @ x.T)  # squared distances
        total += float(np.exp(-t * apart).sum())
    return float(np.log(total / (len(x) * (len(x) - 1))))


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """`E |x - y|^2` over pairs that belong together, row i of `x` and row i of `y`.

    0 when each pair is one, 2 for pairs at right angles: the lower, the better aligned.
    """
    return float(((unit(x) - unit(y)) ** 2).sum(axis=1).mean())


def collapse(queries: np.ndarray) -> float | None:
    """Mean cosine between the different ones of K queries, `[B, K, d]`; None where K is 1.

    1 when all interests of a history are one, about 0 when they have nothing in common.
    """
    b, K, d = queries.shape
    if K < 2:
        return None
    x = unit(queries.reshape(b * K, d)).reshape(b, K, d)
    whole = (x.sum(axis=1) ** 2).sum(axis=1)  # the sum of all K x K cosines
    same = (x**2).sum(axis=(1, 2))
    return float(((whole - same) / (K * (K - 1))).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Float64 vectors of length 1; those of length 0 stay."""
    vectors = np.asarray(vectors, float)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)
