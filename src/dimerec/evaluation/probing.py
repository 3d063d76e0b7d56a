"""Linear probing: how well a linear classifier reads an item's categories from its frozen vector.

The first row of the paper's Table 2. The paper gives no details, so two readings are measured.
*Majority*: each item has one label, the most frequent category of the catalogue among its own.
*Multi-label*: a yes or no for each category.
Vectors are standardised by their training items, so that their scale does not matter.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.errors import ConfigError, DataError
from dimerec.randomness import stream

HELD_OUT = 0.2
RARE = 10  # categories with fewer items are left out


class Accuracy(Struct, frozen=True):
    """Of one way to label, on items that the classifier has not seen.

    Attributes:
        micro: share of right answers (majority: of items; multi-label: of item and category pairs).
        macro: mean over categories of the share of right answers among the items of that category
            (multi-label: the mean of that and of the share among the items without it).
        top: share of items whose highest-scored category is one of their own.
        blind_micro, blind_macro, blind_top: what the best guess without the vectors gets.
    """

    micro: float
    macro: float
    top: float
    blind_micro: float
    blind_macro: float
    blind_top: float


class Probing(Struct, frozen=True):
    """Linear probing of one set of vectors.

    Attributes:
        train, test: numbers of items.
        categories: that were told apart.
        seed: of the split.
    """

    train: int
    test: int
    categories: list[str]
    seed: int
    majority: Accuracy
    multilabel: Accuracy


def probe(bundle: Bundle, seed: int = 0) -> Probing:
    """Probe the item vectors of a bundle; items that were never trained on are left out.

    Raises:
        ConfigError: the model has no item vectors, or scikit-learn is not installed.
        DataError: too few items have categories.
    """
    model = bundle.model()
    if not model.has_vectors:
        raise ConfigError(f"{bundle.path}: {bundle.config.model} has no item vectors to probe")
    known = [item.categories for item in bundle.items]
    vectors = model.item_vectors().float().numpy()[1:]
    trained = bundle.counts.numpy()[1:] > 0
    kept = np.flatnonzero(trained)
    return probe_vectors(vectors[kept], [known[i] for i in kept], seed)


def probe_vectors(
    vectors: np.ndarray, categories: Sequence[Sequence[str]], seed: int = 0
) -> Probing:
    """Probe float `[n, d]` vectors for the categories of each item.

    Categories of fewer than 10 items are left out, then items without a category. A fifth of the
    items, drawn by `seed`, tests.

    Raises:
        DataError: fewer than two categories, or fewer than 20 items are left.
        ConfigError: scikit-learn is not installed.
    """
    held: dict[str, int] = {}
    for some in categories:
        for name in dict.fromkeys(some):
            held[name] = held.get(name, 0) + 1
    names = sorted((n for n, count in held.items() if count >= RARE), key=lambda n: (-held[n], n))
    code = {name: i for i, name in enumerate(names)}
    labels = np.zeros((len(categories), len(names)), bool)  # [n, C], the frequent ones first
    for row, some in enumerate(categories):
        labels[row, [code[name] for name in some if name in code]] = True
    has = labels.any(axis=1)
    x, labels = np.asarray(vectors, float)[has], labels[has]
    if len(names) < 2 or len(x) < 2 * RARE:
        raise DataError(
            f"{len(x)} items with {len(names)} categories of {RARE} items or more: too few to "
            "probe; prepare the dataset with its items' categories (--items)"
        )
    order = stream(seed, "probing").permutation(len(x))
    test, train = np.split(order, [round(HELD_OUT * len(x))])
    mean, spread = x[train].mean(axis=0), x[train].std(axis=0)
    x = (x - mean) / np.where(spread > 0, spread, 1.0)
    return Probing(
        train=len(train),
        test=len(test),
        categories=names,
        seed=seed,
        majority=_majority(x, labels, train, test),
        multilabel=_multilabel(x, labels, train, test),
    )


def _majority(x: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Accuracy:
    main = labels.argmax(axis=1)  # columns are ordered by frequency
    size = np.bincount(main[train])
    blind = np.full(len(test), size.argmax())
    one = (size > 0).sum() < 2  # a category that all have: there is nothing to tell apart
    found = blind if one else _fit(x[train], main[train]).predict(x[test])
    return Accuracy(
        *_one_label(found, main[test], labels[test]), *_one_label(blind, main[test], labels[test])
    )


def _one_label(
    found: np.ndarray, main: np.ndarray, labels: np.ndarray
) -> tuple[float, float, float]:
    right = found == main
    size = np.bincount(main, minlength=labels.shape[1])
    each = np.bincount(main, right, minlength=labels.shape[1])[size > 0] / size[size > 0]
    top = labels[np.arange(len(found)), found].mean()
    return float(right.mean()), float(each.mean()), float(top)


def _multilabel(x: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Accuracy:
    scores = np.empty((len(test), labels.shape[1]))
    for column, wanted in enumerate(labels.T):
        if len(np.unique(wanted[train])) < 2:  # nothing to learn: always or never
            scores[:, column] = np.inf if wanted[train[0]] else -np.inf
        else:
            scores[:, column] = _fit(x[train], wanted[train]).decision_function(x[test])
    often = np.broadcast_to(labels[train].mean(axis=0) - 0.5, scores.shape)
    return Accuracy(*_many_labels(scores, labels[test]), *_many_labels(often, labels[test]))


def _many_labels(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    right = (scores > 0) == labels
    with_it, without = labels.sum(axis=0), (~labels).sum(axis=0)
    both = (with_it > 0) & (without > 0)
    yes = (right & labels).sum(axis=0)[both] / with_it[both]
    no = (right & ~labels).sum(axis=0)[both] / without[both]
    macro = float((yes + no).mean() / 2) if both.any() else 1.0
    top = labels[np.arange(len(scores)), scores.argmax(axis=1)].mean()
    return float(right.mean()), macro, float(top)


def _fit(x: np.ndarray, y: np.ndarray) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as e:
        raise ConfigError(
            "probing needs scikit-learn, which is not installed: pip install 'dimerec[experiments]'"
        ) from e
    return LogisticRegression(max_iter=2000).fit(x, y)
