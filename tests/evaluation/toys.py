"""A small dataset of whole test users, and bundles with random weights on it."""

from pathlib import Path

import numpy as np
import torch

from dimerec import bundle as bundles
from dimerec import config as configs
from dimerec import plugins
from dimerec.bundle import Bundle
from dimerec.data import dataset as datasets
from dimerec.data.dataset import Dataset
from dimerec.vocabulary import Item, Vocabulary

V, USERS = 121, 60


def whole_users(path: Path) -> Dataset:
    """60 users of 6 to 30 events, every fifth one tests; the last ten items are never trained on."""
    rng = np.random.default_rng(0)
    n = rng.integers(6, 31, USERS)
    test = np.arange(USERS) % 5 == 0
    popularity = 1 / np.arange(1, V)
    items = rng.choice(np.arange(1, V), n.sum(), p=popularity / popularity.sum())
    of_test = np.repeat(test, n)
    items[~of_test] = np.minimum(items[~of_test], V - 11)
    return datasets.write(
        path,
        vocabulary=Vocabulary([f"i{i}" for i in range(1, V)]),
        users=Vocabulary([f"u{u}" for u in range(USERS)]),
        offsets=np.cumsum([0, *n]),
        items=items,
        times=np.arange(n.sum()),
        train_end=np.where(test, 0, n),
        valid_end=np.where(test, 0, n),
        card={"name": "toy", "protocol": {"name": "users-8-1-1"}},
        metadata=[Item(categories=("odd",) if i % 2 else ("even", "more")) for i in range(1, V)],
    )


def made(folder: Path, dataset: Dataset, name: str, length: int = 8) -> Bundle:
    """A bundle with random weights."""
    config = configs.load(
        name, [f"length={length}", "options.width=16"][: 1 if name == "popularity" else 2]
    )
    catalogue = dataset.catalogue(config.length)
    model = plugins.load("dimerec.models", config.model).Model(config.model_config(), catalogue)
    if name == "popularity":
        model.counts += catalogue.counts
    rng = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=rng)
    return bundles.write(
        folder / name,
        model=model,
        config=config,
        vocabulary=dataset.vocabulary,
        items=dataset.metadata(),
        counts=dataset.counts(),
        origin={"dataset": "toy", "digest": dataset.digest, "protocol": "users-8-1-1"},
    )
