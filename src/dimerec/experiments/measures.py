"""What a table measures of a trained run beside the ranking of its test split."""

from collections.abc import Callable

from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError
from dimerec.training.run import Run

Measure = Callable[[Run, Dataset, str, int], dict[str, float]]


def measure(name: str, run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """The numbers of one measure, by name.

    Raises:
        ConfigError: there is no such measure.
    """
    if name not in MEASURES:
        raise ConfigError(f"no measure {name!r}; there is {', '.join(sorted(MEASURES))}")
    return MEASURES[name](run, dataset, positions, seed)


MEASURES: dict[str, Measure] = {}
