"""A small dataset with validation and test users and categories, and tiny runs on it."""

from pathlib import Path

import numpy as np

from dimerec import config
from dimerec.data import dataset as datasets
from dimerec.data.dataset import Dataset
from dimerec.experiments.curves import watch
from dimerec.training.loop import train
from dimerec.training.run import Run
from dimerec.vocabulary import Item, Vocabulary

USERS, ITEMS = 90, 60


def walks(path: Path, categories: bool = True) -> Dataset:
    """Users who walk through the items by +1 or +2; 15 of them validate and 15 test."""
    rng = np.random.default_rng(0)
    n = rng.integers(4, 15, USERS)
    start = rng.integers(0, ITEMS, USERS)
    steps = [
        (s + np.cumsum(rng.integers(1, 3, k))) % ITEMS + 1 for s, k in zip(start, n, strict=True)
    ]
    user = np.arange(USERS)
    kinds = [("odd",) if i % 2 else ("even", "more") for i in range(1, ITEMS + 1)]
    return datasets.write(
        path,
        vocabulary=Vocabulary([f"i{i}" for i in range(ITEMS)]),
        users=Vocabulary(list(range(USERS))),
        offsets=np.concatenate([[0], np.cumsum(n)]),
        items=np.concatenate(steps),
        times=np.concatenate([np.arange(k) for k in n]),
        train_end=np.where(user >= USERS - 30, 0, n),
        valid_end=np.where(user >= USERS - 15, 0, n),
        card={"name": "walks", "protocol": {"name": "users-8-1-1"}},
        metadata=[Item(categories=k if categories else ()) for k in kinds],
    )


def tiny(data: Dataset, out: Path, recipe: str = "dimerec", *changes: str) -> Run:
    """A run of 60 watched steps, validated every 20."""
    own = ["options.width=8", "negatives.number=20"]
    if config.load(recipe).model in ("popularity", "cooccurrence"):
        own = []
    elif config.load(recipe).negatives.kind == "none":
        own = own[:1]
    chosen = config.load(
        recipe,
        [
            "length=6",
            *own,
            "training.batch_size=16",
            "training.max_steps=60",
            "training.validate_every=20",
            *changes,
        ],
    )
    return train(data, chosen, out, threads=1, progress=False, watch=watch)
