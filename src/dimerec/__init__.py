"""DimeRec: sequential recommendation by diffusion, from an interaction log to recommendations.

The public names below load on first use, so `import dimerec` stays quick and loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimerec.bundle import Bundle
    from dimerec.config import RunConfig
    from dimerec.config import load as load_config
    from dimerec.data.dataset import Dataset
    from dimerec.data.interactions import InteractionLog
    from dimerec.data.prepare import prepare
    from dimerec.errors import (
        BundleError,
        ConfigError,
        DataError,
        DeadlineExceeded,
        DimeRecError,
        Overloaded,
        ServingError,
        StoreUnavailable,
        TrainingDiverged,
    )
    from dimerec.evaluation.evaluator import evaluate
    from dimerec.recommender import Recommender
    from dimerec.training.loop import train

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "ConfigError",
    "DataError",
    "Dataset",
    "DeadlineExceeded",
    "DimeRecError",
    "InteractionLog",
    "Overloaded",
    "Recommender",
    "RunConfig",
    "ServingError",
    "StoreUnavailable",
    "TrainingDiverged",
    "evaluate",
    "load_config",
    "prepare",
    "train",
]

_HOMES = {
    "Bundle": "dimerec.bundle",
    "Dataset": "dimerec.data.dataset",
    "InteractionLog": "dimerec.data.interactions",
    "Recommender": "dimerec.recommender",
    "RunConfig": "dimerec.config",
    "evaluate": "dimerec.evaluation.evaluator",
    "load_config": "dimerec.config:load",
    "prepare": "dimerec.data.prepare",
    "train": "dimerec.training.loop",
}


def __getattr__(name: str) -> Any:
    """Import a public name's home on first use; everything not in `_HOMES` is an error class."""
    if name not in __all__:
        raise AttributeError(f"module 'dimerec' has no attribute {name!r}")
    module, _, attribute = _HOMES.get(name, "dimerec.errors").partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
