"""Evaluate a bundle on a dataset: what is evaluated is what is served."""

import io
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from dimerec import files
from dimerec.bundle import Bundle
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, DataError
from dimerec.evaluation import card as cards
from dimerec.evaluation import metrics
from dimerec.evaluation.card import ProtocolCard
from dimerec.evaluation.ranking import best, ranks

__all__ = ["Evaluation", "evaluate", "ranks"]

LIST_LENGTH = 100  # categories are counted in so long a list


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        metrics: "hr@10", "ndcg@10", "mrr@10" and so on at 20 and 50, as shares in 0..1;
            "coverage@10" and so on; "categories@100" where the dataset knows categories.
        card: how it was done.
        ranks: float32 `[Q]`, of each query's target.
        users: int64 `[Q]`, user row of each query, for tests that pair or resample users.
    """

    metrics: dict[str, float]
    card: ProtocolCard
    ranks: np.ndarray
    users: np.ndarray

    def write(self, folder: str | Path) -> Path:
        """Write `evaluation.json` (metrics and card) and `ranks.npy` into `folder`; returns it.

        `ranks.npy` is a structured array `[Q]` with the fields `rank` (float32) and `user` (int64).
        Files of those names are replaced, each whole or not at all.

        Raises:
            DataError: the folder cannot be written to.
        """
        folder = Path(folder)
        content = msgspec.json.encode({"metrics": self.metrics, "card": self.card})
        pairs = np.empty(len(self.ranks), [("rank", "<f4"), ("user", "<i8")])
        pairs["rank"], pairs["user"] = self.ranks, self.users
        array = io.BytesIO()
        np.save(array, pairs, allow_pickle=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files.write_file(folder / "ranks.npy", array.getvalue())
            files.write_file(folder / "evaluation.json", msgspec.json.format(content, indent=2))
        except OSError as e:
            raise DataError(f"{folder}: the evaluation cannot be written ({e})") from e
        return folder

    def table(self) -> str:
        """The metrics and what they mean, as text; shares in percent."""
        rows = [f"{'':<10}" + "".join(f"{'@' + str(n):>10}" for n in metrics.CUTOFFS)]
        for name in (*metrics.METRICS, "coverage"):
            values = [self.metrics.get(f"{name}@{n}") for n in metrics.CUTOFFS]
            if None not in values:  # lists may have been left out
                rows.append(f"{name:<10}" + "".join(f"{value:>10.2%}" for value in values))
        if (found := self.metrics.get(f"categories@{LIST_LENGTH}")) is not None:
            rows.append(f"categories in the top {LIST_LENGTH}: {found:.2f}")
        card = self.card
        limited = f" of {card.available}" if card.queries < card.available else ""
        rows += [
            f"{card.model} on {card.dataset} ({card.protocol.name}), {card.split}, "
            f"{card.positions}: {card.queries}{limited} queries of {card.users} users",
            f"candidates: {card.candidates}; targets never trained on: {card.cold_targets}",
            card.ties,
        ]
        return "\n".join(rows)


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    *,
    split: str = "test",
    positions: str = "every-position",
    hide_seen: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
    limit: int = 0,
    lists: int = 2000,
) -> Evaluation:
    """Rank every target of a split against the full catalogue.

    Items without a training event are candidates and targets like all others.

    Args:
        bundle: of a model trained on this catalogue.
        dataset: opened; its vocabulary is the bundle's.
        split: "test" or "valid".
        positions: "every-position", "last" or "last-20-percent".
        hide_seen: leave the user's earlier items out of the candidates (not the target itself).
        seed: of a generative model's noise.
        device: "auto" takes CUDA where it is there.
        limit: at most so many queries, evenly spread; 0 takes all.
        lists: at most so many queries, evenly spread, give coverage and categories; 0 none.

    Raises:
        DataError: the bundle is of another catalogue, the split holds no query, or there is no
            such split or choice of positions.
        ConfigError: there is no such device.
        TrainingDiverged: the model scores with NaN.
    """
    check_vocabulary(bundle, dataset)
    queries = dataset.queries(split, positions, limit)
    if not len(queries):
        raise DataError(
            f"{dataset.path}: no query in split {split!r} at {positions!r}: choose another "
            "split, or prepare with a protocol that fills it"
        )
    chosen = device_named(device)
    model = bundle.model(chosen)
    how = {"length": bundle.config.length, "hide_seen": hide_seen, "seed": seed, "device": chosen}
    found = ranks(model, queries, **how)
    values = metrics.summary(found)
    sample = dataset.queries(split, positions, min(lists, limit or lists)) if lists else None
    if sample is not None:
        top = best(model, sample, LIST_LENGTH, **how)
        for n in metrics.CUTOFFS:
            values[f"coverage@{n}"] = metrics.coverage(top[:, :n], dataset.vocabulary.size)
        known = [item.categories for item in dataset.metadata()]
        if any(known):
            values[f"categories@{LIST_LENGTH}"] = metrics.categories(top, known)
    card = cards.make(
        bundle,
        dataset,
        model,
        queries,
        split=split,
        positions=positions,
        hide_seen=hide_seen,
        seed=seed,
        device=chosen,
        lists=len(sample) if sample is not None else 0,
    )
    return Evaluation(values, card, found, queries.users(slice(0, len(queries))))


def check_vocabulary(bundle: Bundle, dataset: Dataset) -> None:
    """DataError where the bundle's items are not the dataset's."""
    ours, theirs = bundle.vocabulary, dataset.vocabulary
    if ours.fingerprint != theirs.fingerprint:
        raise DataError(
            f"{bundle.path} knows {len(ours)} items (vocabulary {ours.fingerprint}), but "
            f"{dataset.path} has {len(theirs)} (vocabulary {theirs.fingerprint}): evaluate on "
            "the dataset that the bundle was trained on, or train on this one"
        )


def device_named(name: torch.device | str) -> torch.device:
    """The device called `name`; "auto" is CUDA where it is there. ConfigError: there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise ConfigError(f"no device {name!r}: take auto, cpu or cuda") from e
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: this machine or this PyTorch has no CUDA; take cpu")
    return device
