"""Parity: another form of `encode` against the model itself, its queries and its speed."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dimerec.config import Struct
from dimerec.errors import ServingError
from dimerec.model import SequentialModel
from dimerec.retrieval.exact import ExactIndex
from dimerec.serving.compiled import Encode, inputs

BATCHES = (1, 2, 8, 64)  # verified at every export
TOLERANCE = 1e-4  # largest difference of a query's coordinate, of the largest coordinate
AGREEMENT, TOP = 0.99, 20  # least share of the same items among the best `TOP`
SECONDS = 0.5  # spent on timing each batch size


class Check(Struct, frozen=True):
    """Compiled against eager at one batch size.

    Attributes:
        engine: "aotinductor" or "onnxruntime".
        batch: B.
        difference: largest difference of the queries' coordinates, of the largest coordinate.
        agreement: share of the compiled model's `TOP` best items that are the eager one's as well,
            scores within `TOLERANCE` of the last one's counting as equal to it.
        eager, compiled: seconds a call, median, taken in turns on one thread.
    """

    engine: str
    batch: int
    difference: float
    agreement: float
    eager: float
    compiled: float


def checked(model: SequentialModel, length: int, engine: str, encode: Encode) -> list[Check]:
    """`encode` against the model at every batch size; ServingError where it differs too much."""
    with torch.inference_mode():
        vectors = model.item_vectors().float()
        checks = [_compare(model, length, engine, encode, vectors, batch) for batch in BATCHES]
    for check in checks:
        if not (check.difference <= TOLERANCE and check.agreement >= AGREEMENT):
            raise ServingError(
                f"differs when {engine} runs it at batch {check.batch}: queries by "
                f"{check.difference:.1e} (at most {TOLERANCE:.0e}), the {TOP} best items the same "
                f"in {check.agreement:.1%} (at least {AGREEMENT:.0%})"
            )
    return checks


def _compare(
    model: SequentialModel,
    length: int,
    engine: str,
    encode: Encode,
    vectors: Tensor,
    batch: int,
) -> Check:
    given = inputs(model, length, batch)
    eager, compiled = model.encode(*given).float(), encode(*given).float()
    if compiled.shape != eager.shape or not bool(compiled.isfinite().all()):
        difference = agreement = float("nan")
    else:
        difference = float((eager - compiled).abs().max() / eager.abs().max().clamp_min(1e-30))
        agreement = _agreement(eager, compiled, vectors)
    slow, quick = _seconds(lambda: model.encode(*given), lambda: encode(*given))
    return Check(engine, batch, difference, agreement, slow, quick)


def _agreement(eager: Tensor, compiled: Tensor, vectors: Tensor) -> float:
    """See `Check`. Queries `[B, K, d]`, item vectors `[V, d]`."""
    n = min(TOP, len(vectors) - 1)
    index = ExactIndex.build(vectors.numpy())
    found = torch.from_numpy(index.search(compiled.numpy(), n)[0])  # [B, n]
    last = torch.from_numpy(index.search(eager.numpy(), n)[1])[:, -1:]  # [B, 1]
    scores = torch.einsum("bkd,bnd->bkn", eager, vectors[found]).amax(1)  # [B, n]
    return float((scores >= last - TOLERANCE * scores.abs().amax(1, keepdim=True)).float().mean())


def _seconds(*calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call, taken in turns."""
    for call in calls:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(taken[0]) < 3:
        for call, seconds in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return [float(np.median(seconds)) for seconds in taken]
