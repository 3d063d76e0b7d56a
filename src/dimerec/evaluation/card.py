"""The protocol card: what a result's numbers mean, so that two results can be compared."""

import os
import platform

import numpy as np
import torch

from dimerec import __version__
from dimerec.bundle import Bundle
from dimerec.config import Struct
from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.data.splits import Protocol
from dimerec.evaluation.ranking import TIES
from dimerec.model import SequentialModel


class Machine(Struct, frozen=True):
    """What it ran on: processors, torch threads, device (its name, for a GPU)."""

    cpus: int
    threads: int
    device: str


class ProtocolCard(Struct, frozen=True):
    """How an evaluation was done.

    Attributes:
        dataset, digest: name and `Dataset.digest`.
        trained_on: digest of the dataset that the bundle was trained on; another one than
            `digest` may have had these targets in training.
        protocol: how the dataset was cut, as its card states it.
        split, positions: which events were targets.
        queries, users: how many were scored; `available` queries there were before any limit.
        cold_targets: queries whose target has no training event; they count like all others.
        candidates: what each target was ranked against.
        hide_seen: whether the user's earlier items were left out of the candidates.
        ties: how ranks are counted.
        lists: queries whose lists gave coverage and categories, evenly spread.
        model, weights: the model's name and the digest of its weights file.
        length: L, the longest history the model was given.
        seeds: of the training and of the evaluation's noise.
        sampling: samples and steps of a generative model; empty for others.
        versions: of dimerec, torch, numpy and python.
        machine: what it ran on.
    """

    dataset: str
    digest: str
    trained_on: str
    protocol: Protocol
    split: str
    positions: str
    queries: int
    available: int
    users: int
    cold_targets: int
    candidates: str
    hide_seen: bool
    ties: str
    lists: int
    model: str
    weights: str
    length: int
    seeds: dict[str, int]
    sampling: dict[str, int]
    versions: dict[str, str]
    machine: Machine


def describe(device: torch.device) -> Machine:
    """This machine, with `device` doing the work."""
    name = str(device)
    if device.type == "cuda":
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    return Machine(cpus=os.cpu_count() or 1, threads=torch.get_num_threads(), device=name)


def make(
    bundle: Bundle,
    dataset: Dataset,
    model: SequentialModel,
    queries: Queries,
    *,
    split: str,
    positions: str,
    hide_seen: bool,
    seed: int,
    device: torch.device,
    lists: int,
) -> ProtocolCard:
    """The card of one evaluation; arguments as in `evaluator.evaluate`."""
    everything = slice(0, len(queries))
    cold = dataset.counts()[queries.targets(everything)] == 0
    items = dataset.vocabulary.size - 1
    return ProtocolCard(
        dataset=dataset.card.name,
        digest=dataset.digest,
        trained_on=bundle.manifest.origin.digest,
        protocol=dataset.card.protocol,
        split=split,
        positions=positions,
        queries=len(queries),
        available=dataset.card.splits[split].queries[positions],
        users=len(np.unique(queries.users(everything))),
        cold_targets=int(cold.sum()),
        candidates=f"full catalogue: {items} items"
        + (", less the user's earlier ones" if hide_seen else ""),
        hide_seen=hide_seen,
        ties=TIES,
        lists=lists,
        model=bundle.config.model,
        weights=bundle.weights_digest,
        length=bundle.config.length,
        seeds={"training": bundle.config.seed, "evaluation": seed},
        sampling=dict(model.sampling),
        versions={
            "dimerec": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        machine=describe(device),
    )
