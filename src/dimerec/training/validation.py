"""Ranking metrics on the validation split while a model trains."""

import torch

from dimerec.config import RunConfig
from dimerec.data.dataset import Dataset
from dimerec.evaluation import metrics
from dimerec.evaluation.ranking import ranks
from dimerec.model import SequentialModel

# Reported beside the metric that chooses the weights.
REPORTED = ("hr@20", "ndcg@20")


def validate(
    model: SequentialModel, dataset: Dataset, config: RunConfig, device: torch.device
) -> dict[str, float]:
    """Metrics over the full catalogue, seen items kept; empty when there is no validation query.

    Every position of the validation segments counts, up to `training.validation_queries` evenly
    spread. Always the same queries and the same noise, so that validations can be compared.
    """
    training = config.training
    queries = dataset.queries("valid", "every-position", training.validation_queries)
    if len(queries) == 0:
        return {}
    found = ranks(model, queries, length=config.length, seed=config.seed, device=device)
    values = {}
    for name in dict.fromkeys((training.metric, *REPORTED)):
        kind, _, n = name.partition("@")
        values[name] = float(metrics.METRICS[kind](found, int(n)).mean())
    return values
