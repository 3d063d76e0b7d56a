"""Bundles of the tiny models, for the tests of whatever reads bundles.

They are found while `tiny_models` lasts, or with `MODELS` on `dimerec.models.__path__`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import dimerec.models
from dimerec import bundle
from dimerec.batch import SequenceBatch
from dimerec.bundle import Bundle
from dimerec.config import RunConfig
from dimerec.model import Catalogue, SequentialModel
from dimerec.vocabulary import Id, Item, Vocabulary
from tests.tools.models import tiny, tiny_counts

SIZE = 60
COUNTS = torch.tensor([0.0] + [float(1 + n % 7) for n in range(1, SIZE)])
MODELS = str(Path(tiny.__file__).parent)
ORIGIN = {"dataset": "toy", "digest": "d" * 64, "protocol": "leave-one-out"}


@contextmanager
def tiny_models() -> Iterator[None]:
    """`tiny` and `tiny_counts` are found as models, as those in a user's own folder would be."""
    dimerec.models.__path__.append(MODELS)
    try:
        yield
    finally:
        dimerec.models.__path__.remove(MODELS)


def build(name: str, seed: int, options: dict) -> SequentialModel:
    catalogue = Catalogue(size=SIZE, length=6, counts=COUNTS)
    rng = torch.Generator().manual_seed(seed)
    if name == "tiny":
        model = tiny.Model(tiny.Config(**options), catalogue)
        with torch.no_grad():
            model.table[1:] = torch.randn(SIZE - 1, model.width, generator=rng)
        return model
    counts = tiny_counts.Model(tiny_counts.Config(), catalogue)
    history = torch.randint(1, SIZE, (40, 6), generator=rng)
    nothing = torch.zeros(0, dtype=torch.int64)
    counts.observe(SequenceBatch(history, history.roll(-1, 1), nothing, nothing.float()))
    counts.finish()
    return counts


def write(path: Path, name: str = "tiny", seed: int = 0, **changes) -> Bundle:
    options = {"noise": 0.1} if name == "tiny" else {}
    ids: list[Id] = [f"item {n}" for n in range(1, SIZE)]
    parts = {
        "model": build(name, seed, options),
        "config": RunConfig(model=name, seed=seed, length=6, options=options),
        "vocabulary": Vocabulary(ids),
        "items": [Item(title=f"Title {n}", categories=("a", "b")) for n in range(1, SIZE)],
        "counts": COUNTS,
        "origin": ORIGIN,
    }
    return bundle.write(path, **{**parts, **changes})
