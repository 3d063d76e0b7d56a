"""Measures that are curves: over the training, along the chain, over the number of steps.

Figure 4 is taken while a model trains: its losses are in the run's `metrics.jsonl`, and beside each
validation stand the cosines between their gradients, which `watch` computes there.
"""

import time
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec
import torch
from torch import Tensor

from dimerec import randomness
from dimerec.bundle import Bundle
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.errors import DataError
from dimerec.experiments import denoising
from dimerec.model import CountingModel, SequentialModel
from dimerec.training.run import Run

POINTS = 40  # of a curve of losses
BATCHES = 4  # whose gradient is taken
CHAIN_CUTOFF, CHAIN_QUERIES = 50, 5000
STEPS, CALLS = (1, 2, 5, 10, 20, 50, 100), 20


def losses(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """Every named loss over the training, `loss-gem/STEP`: the mean over the steps up to there."""
    entries = [e for e in _log(run.path) if "losses" in e]
    size = -(-len(entries) // POINTS) or 1
    values = {}
    for start in range(0, len(entries), size):
        some = entries[start : start + size]
        for name in some[0]["losses"]:
            values[f"loss-{name}/{some[-1]['step']}"] = mean(e["losses"][name] for e in some)
    return values


def gradients(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """What `watch` has noted, `cosine-recon-ssm/STEP`, and the mean of each over the training.

    Raises:
        DataError: the run was trained without being watched.
    """
    watched = {e["step"]: e["watched"] for e in _log(run.path) if "watched" in e}
    if not watched:
        raise DataError(f"{run.path}: trained without watching the gradients; train it anew")
    values = {f"{n}/{step}": v for step, found in watched.items() for n, v in found.items()}
    names = next(iter(watched.values()))
    return values | {n: mean(found[n] for found in watched.values()) for n in names}


def watch(model: SequentialModel, batches: Batches) -> Mapping[str, float]:
    """Cosines between the gradients of each two parts of the loss: `cosine-recon-ssm`, over all
    weights that both depend on, and `cosine-items-recon-ssm`, over the item vectors alone.

    Always of the same four training batches and the same noise, whose gradients are added up
    before they are compared: single batches are mostly noise, which is at right angles to itself.
    """
    if isinstance(model, CountingModel):
        return {}
    weights = dict(model.named_parameters())
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}  # counters of steps
    sums: dict[str, dict[str, Tensor]] = {}
    for step in range(BATCHES):
        device = next(iter(weights.values())).device
        rng = randomness.torch_stream(0, "watch", step, device=device)
        parts = model.loss(batches.batch(step).to(device), rng).parts
        for name, part in parts.items():
            if not part.requires_grad:
                continue
            found = torch.autograd.grad(
                part, list(weights.values()), retain_graph=True, allow_unused=True
            )
            into = sums.setdefault(name, {})
            for key, value in zip(weights, found, strict=True):
                if value is not None:
                    into[key] = into[key] + value if key in into else value
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
    values = {}
    for one, other in combinations(sums, 2):
        shared = [k for k in sums[one] if k in sums[other]]
        values[f"cosine-{one}-{other}"] = _cosine(sums[one], sums[other], shared)
        items = [k for k in shared if k == "items.weight"]
        values[f"cosine-items-{one}-{other}"] = _cosine(sums[one], sums[other], items)
    return values


def chain(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """Hit rate at 50 along the reverse chain of T steps (the paper's Figure 5).

    `chain-noisy/N` retrieves with x_t, the state after N steps, `chain-clean/N` with x_0-hat of
    the N-th step. Of at most 5,000 queries.
    """
    bundle = Bundle.open(run.bundle)
    if not _diffuses(bundle):
        return {}
    found = denoising.along_chain(
        bundle, dataset, positions=positions, seed=seed, n=CHAIN_CUTOFF, limit=CHAIN_QUERIES
    )
    noisy = {f"chain-noisy/{n}": share for n, share in enumerate(found.noisy)}
    return noisy | {f"chain-clean/{n}": share for n, share in enumerate(found.clean, start=1)}


def steps(run: Run, dataset: Dataset, positions: str, seed: int) -> dict[str, float]:
    """Quality and time by the number of reverse steps: `steps-hr@50/N`, and `microseconds/N` of
    making the query of one history (the thread's time, median of 20 calls, not compiled)."""
    bundle = Bundle.open(run.bundle)
    if not _diffuses(bundle):
        return {}
    total = bundle.config.model_config().schedule.steps
    numbers = [n for n in STEPS if n <= total]
    values = {}
    for n, found in denoising.by_steps(
        bundle, dataset, numbers, positions=positions, seed=seed
    ).items():
        values[f"steps-hr@50/{n}"] = found.metrics["hr@50"]
        values[f"microseconds/{n}"] = _microseconds(bundle.with_options({"steps": n}))
    return values


def _microseconds(bundle: Bundle) -> float:
    model: Any = bundle.model()
    history = torch.ones(1, bundle.config.length, dtype=torch.int64)
    noise = torch.randn(
        1, model.noise_draws, model.width, generator=randomness.torch_stream(0, "latency")
    )
    taken = []
    with torch.inference_mode():
        for _ in range(CALLS):
            start = time.thread_time()
            model.encode(history, noise)
            taken.append(time.thread_time() - start)
    return 1e6 * median(taken)


def _diffuses(bundle: Bundle) -> bool:
    """Whether it is a DimeRec with a chain."""
    return bundle.config.model == "dimerec" and bundle.config.model_config().space != "none"


def _cosine(one: dict[str, Tensor], other: dict[str, Tensor], keys: list[str]) -> float:
    """Of two gradients over the weights `keys`; 0 where one of them vanishes."""
    dot = sum(float((one[k] * other[k]).sum()) for k in keys)
    size = [sum(float(g[k].square().sum()) for k in keys) for g in (one, other)]
    return dot / (size[0] * size[1]) ** 0.5 if all(size) else 0.0


def _log(folder: Path) -> list[dict[str, Any]]:
    file = folder / "metrics.jsonl"
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
