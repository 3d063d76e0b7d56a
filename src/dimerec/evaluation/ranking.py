"""Ranks of the targets over the full catalogue, counted in cache-sized blocks, never sorted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from dimerec.data.queries import Queries
from dimerec.errors import TrainingDiverged
from dimerec.model import SequentialModel
from dimerec.randomness import history_keys, normal

# Two scores are tied when they differ by no more than this share of |query| |target vector| (of
# |target score| for counting models): some ten times what float32 sums of products differ by
# between one block shape and another, and free of the scale of the scores.
TOLERANCE = 1e-6
TIES = (
    "rank = 1 + items above + half of the other items tied; tied within "
    f"{TOLERANCE:g} of |query| |item| (counting models: of |score|)"
)
# Scores of one block: they stay in a core's L2 cache while they are counted.
BLOCK = {"cpu": 2**18, "cuda": 2**26}
Fill = Callable[[Tensor, int, int], None]  # (out [b, n], first item, one past the last)


def ranks(
    model: SequentialModel,
    queries: Queries,
    *,
    length: int,
    hide_seen: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch: int = 512,
    block: int = 0,
) -> np.ndarray:
    """Rank of each query's target among all items, float32 `[Q]`, 1 is best.

    `1 + #{items above the target} + 1/2 #{other items tied with it}`, see `TIES`. Padding is
    never a candidate. Neither the batch, nor the block, nor the order of the queries matters.

    Args:
        model: moved to `device`; its training mode is put back afterwards.
        queries: the targets and their histories.
        length: L, the longest history the model is given.
        hide_seen: no earlier item of the user is a candidate, unless it is the target.
        seed: with a query's key it decides the query's noise.
        batch: queries encoded at once.
        block: scores held at once, b x K x items; 0 takes what suits the device.

    Raises:
        TrainingDiverged: the model scores with NaN.
    """
    out = np.empty(len(queries), np.float32)
    with evaluating(model, device):
        block = block or BLOCK.get(torch.device(device).type, BLOCK["cpu"])
        vectors = _finite(model.item_vectors().float(), model) if model.has_vectors else None
        for part in _parts(len(queries), batch):
            history, noise = inputs(model, queries, part, length, seed, device)
            targets = torch.from_numpy(queries.targets(part)).to(device)
            if vectors is not None:
                q = _finite(model.encode(history, noise).float(), model)
                fill, score, scale = _products(q, vectors, targets)
                size, rows = len(vectors), q.shape[0] * q.shape[1]
            else:
                table = model.scores(history, noise).float()
                fill, score, scale = _columns(table, targets, model)
                rows, size = table.shape
            hidden = targets.unsqueeze(1)
            if hide_seen:
                seen = torch.from_numpy(queries.seen(part)).to(device)
                hidden = torch.cat([hidden, seen], dim=1)
            slack = TOLERANCE * scale
            step = min(max(block // max(rows, 1), 64), size - 1)
            counts = _count(fill, size, step, score - slack, score + slack, hidden)
            out[part] = (1 + counts / 2).cpu().numpy()
    return out


def best(
    model: SequentialModel,
    queries: Queries,
    n: int,
    *,
    length: int,
    hide_seen: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The n best items of each query, best first, int64 `[Q, n]`; 0 where fewer exist.

    Args and errors as in `ranks`.
    """
    out = np.zeros((len(queries), n), np.int64)
    with evaluating(model, device):
        batch = 256
        for part in _parts(len(queries), batch):
            history, noise = inputs(model, queries, part, length, seed, device)
            scores = _no_nan(model.scores(history, noise).float(), model).clone()
            scores[:, 0] = -torch.inf
            if hide_seen:
                seen = torch.from_numpy(queries.seen(part)).to(device)
                scores.scatter_(1, seen, -torch.inf)
            top, items = scores.topk(min(n, scores.shape[1]), dim=1)
            items[top == -torch.inf] = 0
            out[part, : items.shape[1]] = items.cpu().numpy()
    return out


def inputs(
    model: SequentialModel,
    queries: Queries,
    part: slice,
    length: int,
    seed: int,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """What the model is given for some queries: history `[b, L]` and noise `[b, S, d]`."""
    history = queries.histories(part, length)
    shape = (len(history), model.noise_draws, model.width)
    noise = torch.zeros(shape)
    if model.noise_draws:
        noise = torch.from_numpy(normal(seed, history_keys(history), shape[1:]))
    return torch.from_numpy(history).to(device), noise.to(device)


@contextmanager
def evaluating(model: SequentialModel, device: torch.device | str) -> Iterator[None]:
    """`model` on `device`, in evaluation mode and without gradients; its mode is put back."""
    training = model.training
    model.to(device).eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _parts(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _products(q: Tensor, vectors: Tensor, targets: Tensor) -> tuple[Fill, Tensor, Tensor]:
    """Fill a block with `max_k <q_k, v_i>`; the targets' scores and the scale of rounding, [b]."""
    b, K, d = q.shape
    stacked = q.transpose(0, 1).reshape(K * b, d)  # one product for all interests
    wide = stacked.new_empty(0)

    def fill(out: Tensor, first: int, stop: int) -> None:
        nonlocal wide
        items = vectors[first:stop].T
        if K == 1:
            torch.mm(stacked, items, out=out)
            return
        n = stop - first
        if len(wide) < K * b * n:
            wide = stacked.new_empty(K * b * n)
        scores = wide[: K * b * n].view(K * b, n)
        torch.mm(stacked, items, out=scores)
        torch.amax(scores.view(K, b, n), dim=0, out=out)

    wanted = vectors[targets]  # [b, d]
    score = torch.einsum("bkd,bd->bk", q, wanted).amax(dim=1)
    scale = q.norm(dim=2).amax(dim=1) * wanted.norm(dim=1)
    return fill, score, scale


def _columns(table: Tensor, targets: Tensor, model: SequentialModel) -> tuple[Fill, Tensor, Tensor]:
    """The same for a model that scores by itself; `table` `[b, V]` may be a view of its buffers."""
    _no_nan(table, model)

    def fill(out: Tensor, first: int, stop: int) -> None:
        out.copy_(table[:, first:stop])

    score = table.gather(1, targets.unsqueeze(1)).squeeze(1)
    return fill, score, score.abs().nan_to_num(posinf=0.0)


def _count(fill: Fill, size: int, step: int, low: Tensor, high: Tensor, hidden: Tensor) -> Tensor:
    """Items above plus items not below the target, float64 `[b]`; `hidden` `[b, h]` are no items.

    A hidden pair becomes NaN, which is neither above nor below anything: hiding one twice hides
    it once, and no score has to be computed again.
    """
    b = len(low)
    rows, columns = (hidden > 0).nonzero(as_tuple=True)
    items = hidden[rows, columns] - 1  # padding is left out of the blocks
    order = (items // step).argsort()
    rows, items = rows[order], items[order]
    starts = torch.arange(0, size - 1 + step, step, device=low.device)
    edges = torch.searchsorted(items // step, starts // step).tolist()
    scores, above = low.new_empty(b * step), low.new_empty(b * step)
    low, high = low.unsqueeze(1), high.unsqueeze(1)
    total = torch.zeros(b, dtype=torch.float64, device=low.device)
    for at, first in enumerate(range(0, size - 1, step)):
        n = min(step, size - 1 - first)
        block, more = scores[: b * n].view(b, n), above[: b * n].view(b, n)
        fill(block, first + 1, first + 1 + n)
        pairs = slice(edges[at], edges[at + 1])
        block.view(-1).index_fill_(0, rows[pairs] * n + items[pairs] - first, torch.nan)
        # comparing into floats and summing those is several times faster than counting booleans
        torch.gt(block, high, out=more)
        total += more.sum(dim=1)
        total += block.ge_(low).sum(dim=1)
    return total


def _finite(x: Tensor, model: SequentialModel) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise _diverged(model)
    return x


def _no_nan(x: Tensor, model: SequentialModel) -> Tensor:
    if bool(torch.isnan(x).any()):
        raise _diverged(model)
    return x


def _diverged(model: SequentialModel) -> TrainingDiverged:
    name = type(model).__module__
    return TrainingDiverged(
        f"{name} scores with numbers that are not finite, so nothing can be ranked: its weights "
        "have diverged; train again with a smaller learning rate"
    )
