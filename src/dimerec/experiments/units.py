"""How metrics are shown: shares in percent, all else as it is."""

from dimerec.evaluation.metrics import METRICS

# Beginnings of metrics that are no shares.
PLAIN = ("categories", "cosine", "loss", "novelty", "gini", "microseconds", "frontier-categories")


def scale(metric: str) -> int:
    """What a metric is multiplied by to be shown: shares are in percent."""
    return 1 if metric.startswith(PLAIN) else 100


def shown(metric: str) -> str:
    """The name of a metric in a heading."""
    return metric.upper() if metric.partition("@")[0] in METRICS else metric
