"""What a table measures of a trained run beside the ranking of its test split, by name.

A metric "NAME" is one number of a row. "NAME/X" is a point of a curve: X is a step of the training,
a step of the chain, a weight. A row that something cannot be measured of has no number for it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dimerec.bundle import Bundle
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError
from dimerec.evaluation import diagnostics, metrics, probing
from dimerec.evaluation.metrics import hr
from dimerec.evaluation.ranking import evaluating, inputs
from dimerec.experiments import curves
from dimerec.retrieval.diversity import diverse, table
from dimerec.training.run import Run

Measure = Callable[[Run, Dataset, str, int], dict[str, float]]
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4)
QUERIES, CANDIDATES, LIST = 1000, 100, 20


def measure(name: str, run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """The numbers of one measure, by name.

    Raises:
        ConfigError: there is no such measure.
    """
    if name not in MEASURES:
        raise ConfigError(f"no measure {name!r}; there is {', '.join(sorted(MEASURES))}")
    return MEASURES[name](run, dataset, positions, seed)


def probe(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """Linear probing of the item vectors (the paper's Table 2): `probe-majority`, one label an
    item; `probe-multilabel`; `-macro`, over categories; `-blind`, without vectors; `probe-top`.
    """
    bundle = Bundle.open(run.bundle)
    if not _categories(dataset) or not bundle.model().has_vectors:
        return {}
    found = probing.probe(bundle, seed)
    values = {"probe-top": found.multilabel.top, "probe-top-blind": found.multilabel.blind_top}
    for name, got in (("majority", found.majority), ("multilabel", found.multilabel)):
        values[f"probe-{name}"] = got.micro
        values[f"probe-{name}-macro"] = got.macro
        values[f"probe-{name}-blind"] = got.blind_micro
    return values


def lists(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """Whom the lists favour and what they cover, see `diagnostics.Lists`: `hr@20-tail` and
    `shown-tail` (share of all that is listed) by popularity, `slate@50` (share of a user's next 10
    items in one list), `any@50` (lists with one of them at least), `gini@20`, `novelty@20`."""
    found = diagnostics.diagnose(
        Bundle.open(run.bundle), dataset, positions=positions, seed=seed
    ).lists
    assert found is not None
    values = {"gini@20": found.gini[20], "novelty@20": found.novelty[20]}
    values["novelty-of-targets"] = found.novelty_of_targets
    if found.interest_cosine is not None:
        values["cosine-interests"] = found.interest_cosine
    for band in found.bands:
        values[f"shown-{band.name}"] = band.shown
        values |= {f"hr@{n}-{band.name}": share for n, share in band.hr.items()}
    if found.slates is not None:
        values |= {f"slate@{n}": share for n, share in found.slates.coverage.items()}
        values |= {f"any@{n}": share for n, share in found.slates.any.items()}
    return values


def weights(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """Accuracy against diversity: the best 100 re-ranked by ComiRec's controllable aggregation.

    `frontier-hr@20/W` and `frontier-categories/W` (in the list of 20) of 1,000 queries. W is the
    weight in units of the standard deviation of a query's 100 scores, so that models whose scores
    differ in scale can be compared.
    """
    if not _categories(dataset):
        return {}
    bundle = Bundle.open(run.bundle)
    model: Any = bundle.model()
    queries = dataset.queries("test", positions, QUERIES)
    numbers = np.zeros((len(queries), min(CANDIDATES, dataset.vocabulary.size - 1)), np.int64)
    scores = np.zeros(numbers.shape, np.float32)
    with evaluating(model, "cpu"):
        for start in range(0, len(queries), 256):
            part = slice(start, min(start + 256, len(queries)))
            history, noise = inputs(model, queries, part, bundle.config.length, seed, "cpu")
            found = model.scores(history, noise).float()[:, 1:].topk(numbers.shape[1], dim=1)
            numbers[part], scores[part] = found.indices.numpy() + 1, found.values.numpy()
    spread = scores.std(axis=1, keepdims=True)
    scores /= np.where(spread > 0, spread, 1)
    known = [item.categories for item in dataset.metadata()]
    groups, targets = table(dataset.metadata()), queries.targets(slice(0, len(queries)))
    values = {}
    for weight in WEIGHTS:
        chosen, _ = diverse(numbers, scores, groups, LIST, weight)
        rank = np.where((chosen == targets[:, None]).any(axis=1), 1.0, np.inf)
        values[f"frontier-hr@{LIST}/{weight:g}"] = float(hr(rank, LIST).mean())
        values[f"frontier-categories/{weight:g}"] = metrics.categories(chosen, known)
    return values


def _categories(dataset: Dataset) -> bool:
    return any(item.categories for item in dataset.metadata())


MEASURES: dict[str, Measure] = {
    "probing": probe,
    "lists": lists,
    "weights": weights,
    "losses": curves.losses,
    "gradients": curves.gradients,
    "chain": curves.chain,
    "steps": curves.steps,
}
