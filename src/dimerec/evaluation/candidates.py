"""Ranking among a few random items: the legacy of one target against a hundred others.

Sampled ranks are not consistent with full ones (Krichene and Rendle, "On Sampled Metrics for Item
Recommendation", KDD 2020); they stand here so that old figures can be read.
"""

import numpy as np
import torch

from dimerec.data.dataset import Dataset
from dimerec.data.queries import Queries
from dimerec.errors import DataError
from dimerec.evaluation.ranking import TOLERANCE, evaluating, inputs
from dimerec.model import SequentialModel
from dimerec.randomness import stream


def others(dataset: Dataset, queries: Queries, number: int) -> np.ndarray:
    """`number` different items for each query that its user never took, int64 `[Q, number]`.

    Uniform over those items, and frozen: a pure function of the dataset's digest and the query.

    Raises:
        DataError: a user took so many items that fewer than `number` are left.
    """
    items = dataset.vocabulary.size - 1
    out = np.empty((len(queries), number), np.int64)
    users = dataset.users.ids((queries.rows + 1).tolist())
    for q, (user, row) in enumerate(zip(users, queries.rows.tolist(), strict=True)):
        taken = np.unique(dataset.items[dataset.offsets[row] : dataset.offsets[row + 1]])
        left = items - len(taken)
        if left < number:
            raise DataError(
                f"{dataset.path}: user {user!r} took {len(taken)} of {items} items, so there are "
                f"no {number} others to rank against: leave one-against-{number} out"
            )
        rng = stream(0, "one-against", dataset.digest, user, int(queries.positions[q]))
        free = rng.choice(left, number, replace=False) + 1
        # the k-th item that was not taken: k and as many as were taken before it
        out[q] = free + np.searchsorted(taken - np.arange(len(taken)), free, side="right")
    return out


def candidate_ranks(
    model: SequentialModel,
    queries: Queries,
    candidates: np.ndarray,
    *,
    length: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch: int = 256,
) -> np.ndarray:
    """Rank of each target among itself and its row of `candidates` `[Q, C]`, float32 `[Q]`.

    Counted and tied as in `ranking.ranks`, by the model's own `scores`.
    """
    out = np.empty(len(queries), np.float32)
    with evaluating(model, device):
        for start in range(0, len(queries), batch):
            part = slice(start, min(start + batch, len(queries)))
            history, noise = inputs(model, queries, part, length, seed, device)
            targets = torch.from_numpy(queries.targets(part)).to(device)
            among = torch.from_numpy(candidates[part]).to(device)
            if model.has_vectors:
                q, items = model.encode(history, noise).float(), model.item_vectors().float()
                score = torch.einsum("bkd,bd->bk", q, items[targets]).amax(dim=1)
                rival = torch.einsum("bkd,bcd->bkc", q, items[among]).amax(dim=1)
                scale = q.norm(dim=2).amax(dim=1) * items[targets].norm(dim=1)
            else:
                table = model.scores(history, noise).float()
                score = table.gather(1, targets[:, None]).squeeze(1)
                rival = table.gather(1, among)
                scale = score.abs()
            slack = (TOLERANCE * scale)[:, None]
            above = (rival > score[:, None] + slack).sum(dim=1)
            level = (rival >= score[:, None] - slack).sum(dim=1) - above
            out[part] = (1 + above + level / 2).cpu().numpy()
    return out
