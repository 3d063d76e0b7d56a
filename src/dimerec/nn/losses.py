"""Losses over items, the paper's three terms among them.

`softmax_loss` and `guidance_loss` are the full or the sampled softmax by default, and whatever
else `SoftmaxConfig.loss` says: every model with item logits has every loss through them.
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.errors import ConfigError
from dimerec.nn import pairwise
from dimerec.nn.embeddings import ItemEmbedding

ROWS = 256  # of the full softmax at once, so that their logits stay in a processor's cache
SPREAD = 32  # V / M up to which one product with all items is cheaper than M vectors a target


class SoftmaxConfig(Struct, frozen=True):
    """How item logits are made and corrected, and which loss they go into.

    Attributes:
        unit: logits between unit vectors (cosines) instead of raw inner products.
        temperature: logits are divided by it.
        logq: subtract log(M q_i) from the logit of a negative i drawn with probability q_i, which
            makes the sampled partition function an unbiased estimate of the full one. The
            softmax's alone.
        loss: "softmax" over the target and the negatives, or over all items where there are none;
            "bce", "gbce" and "bpr" need negatives (see `dimerec.nn.pairwise`).
        calibration: t of gBCE: 0 is BCE, 1 calibrates probabilities for uniform negatives.
        prior: of "bce" and "gbce": logits are lowered by log(M / beta), so that an inner product of
            0 means what a candidate is worth on average. Otherwise all item vectors have to say
            so by a part they share, and with many negatives it drowns what each is of its own.
    """

    unit: bool = False
    temperature: Annotated[float, Meta(gt=0.0)] = 1.0
    logq: bool = False
    loss: Literal["softmax", "bce", "gbce", "bpr"] = "softmax"
    calibration: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.75
    prior: bool = False

    def __post_init__(self) -> None:
        if self.logq and self.needs_negatives:
            raise ValueError(
                f'logq = true corrects the softmax: loss = "{self.loss}" needs logq = false'
            )
        if self.prior and self.loss not in ("bce", "gbce"):
            raise ValueError(
                f'prior = true lowers logits of "bce" and "gbce", not of "{self.loss}"'
            )

    @property
    def needs_negatives(self) -> bool:
        """Whether the loss is made of sampled negatives."""
        return self.loss != "softmax"


class Candidates:
    """The items that one batch of N training targets is compared with, gathered once.

    Args:
        items: owner of the item vectors.
        targets: int64 `[N]`, none of them padding.
        negatives: int64 `[M]` shared or `[N, M]` private; empty for the full softmax.
        log_q: float `[M]` or `[N, M]`, log-probability of one draw.

    Raises:
        ConfigError: the loss needs negatives, and there are none.
    """

    def __init__(
        self,
        config: SoftmaxConfig,
        items: ItemEmbedding,
        targets: Tensor,
        negatives: Tensor,
        log_q: Tensor,
    ) -> None:
        self.config, self.targets = config, targets
        self.kind = _kind(negatives)
        self.size = items.size
        self.draws = negatives.shape[-1]  # M
        self.count: Tensor | None = None  # draws of each column, where columns are merged
        if self.kind == "full":
            if config.needs_negatives:
                raise ConfigError(
                    f'options.softmax.loss = "{config.loss}" compares with sampled negatives: '
                    'set negatives.kind to one that draws them, or the loss to "softmax"'
                )
            self.others = items.table()  # [V, d]
            self.positive = F.embedding(targets, self.others)
            return
        correction = (
            log_q + math.log(negatives.shape[-1]) if config.logq else torch.zeros_like(log_q)
        )
        if self.kind == "shared":  # draws of the same item share one column, heavier by log(count)
            negatives, inverse, count = negatives.unique(return_inverse=True, return_counts=True)
            self.count = count
            merged = log_q.new_zeros(len(negatives))
            correction = merged.scatter(0, inverse, correction) - count.log()
            column = torch.searchsorted(negatives, targets).clamp_max(len(negatives) - 1)
            hit = (negatives[column] == targets).nonzero()[:, 0]
            self.hits = hit, column[hit]
        else:
            self.masked = (negatives == targets.unsqueeze(1)) | (negatives == 0)  # [N, M]
        self.correction = correction
        self.positive = items(targets)  # [N, d]
        # Not for the softmax, whose rounding is that of committed results.
        dense = config.needs_negatives and items.size <= SPREAD * self.draws
        self.picked = negatives if dense and self.kind == "private" else None  # out of all items
        self.others = items(negatives) if self.picked is None else items.table()

    @classmethod
    def of(
        cls, batch: SequenceBatch, at: Tensor, config: SoftmaxConfig, items: ItemEmbedding
    ) -> "Candidates":
        """Those of the batch's positions `at`, bool `[B, L]` with N of them true."""
        private = batch.negatives.dim() == 3
        negatives, log_q = (x[at] if private else x for x in (batch.negatives, batch.log_q))
        return cls(config, items, batch.targets[at], negatives, log_q)

    def losses(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q"]:
        """What every query costs by the configured loss."""
        if self.config.loss == "softmax":
            return -self.log_likelihood(queries)
        positive, others = self._logits(queries)
        flat = positive.flatten(), others.flatten(0, 1)
        weight = None if self.count is None else self.count.to(others.dtype)
        if self.config.loss == "bpr":
            return pairwise.bpr(*flat, weight, self.draws).view_as(positive)
        calibration = self.config.calibration if self.config.loss == "gbce" else 0.0
        beta = pairwise.gbce_beta(calibration, self.draws, self.size)
        if self.config.prior:
            lower = math.log(self.draws / beta)
            flat = flat[0] - lower, flat[1] - lower
        return pairwise.bce(*flat, weight, self.draws, beta).view_as(positive)

    def log_likelihood(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q"]:
        """log p(target | query) of every query, by the full or the sampled softmax."""
        if self.kind == "full":
            return self._full(queries)
        positive, others = self._logits(queries)
        private = self.kind == "private"
        others = others - (self.correction.unsqueeze(1) if private else self.correction)
        return -F.softplus(others.logsumexp(-1) - positive)

    def _full(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q"]:
        """By the full softmax, a piece of the rows at a time: V logits of every row at once would
        go through memory a dozen times."""
        rows, items = self._scaled(queries).flatten(0, 1), self.others[1:].T
        targets = (self.targets - 1).repeat_interleave(queries.shape[1])
        size = ROWS if rows.device.type == "cpu" else max(1, len(rows))
        pieces = zip(rows.split(size), targets.split(size), strict=True)
        costs = [F.cross_entropy(r @ items, t, reduction="none") for r, t in pieces]
        return -torch.cat(costs).view(queries.shape[:2])

    def _logits(
        self, queries: Float[Tensor, "N Q d"]
    ) -> tuple[Float[Tensor, "N Q"], Float[Tensor, "N Q C"]]:
        """Logits of the targets and of the drawn items; -inf where one is masked."""
        queries = self._scaled(queries)
        positive = (queries * self.positive.unsqueeze(1)).sum(-1)
        if self.kind == "private":
            if self.picked is None:
                others = queries @ self.others.transpose(1, 2)
            else:
                picked = self.picked.unsqueeze(1).expand(-1, queries.shape[1], -1)
                others = (queries @ self.others.T).gather(2, picked)
            return positive, others.masked_fill(self.masked.unsqueeze(1), -torch.inf)
        others = queries @ self.others.T
        row, column = self.hits
        others[row, :, column] = -torch.inf
        return positive, others

    def _scaled(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q d"]:
        """The queries, so that inner products are logits."""
        if self.config.unit:
            queries = F.normalize(queries, dim=-1)
        return queries / self.config.temperature


def _kind(negatives: Tensor) -> Literal["full", "shared", "private"]:
    if negatives.numel() == 0:
        return "full"
    return "private" if negatives.dim() == 2 else "shared"


def guidance_loss(candidates: Candidates, guidance: Float[Tensor, "N K d"]) -> Float[Tensor, ""]:
    """L_gem: the loss of the interest closest to the target, whichever `SoftmaxConfig` names; the
    negatives too are compared with that interest alone.

    Implements: Eqs. 18-19
    """
    if candidates.config.unit:
        guidance = F.normalize(guidance, dim=-1)
    chosen = closest(guidance, candidates.positive)
    return candidates.losses(chosen.unsqueeze(1)).mean()


def closest(guidance: Float[Tensor, "N K d"], target: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
    """g_u, the interest with the largest inner product with the target's vector (Eq. 18)."""
    best = torch.einsum("nkd,nd->nk", guidance, target).argmax(1)
    return guidance[torch.arange(len(best), device=best.device), best]


def reconstruction_loss(
    x0: Float[Tensor, "N d"], predicted: Float[Tensor, "N S d"]
) -> Float[Tensor, ""]:
    """L_recon: the mean squared distance, summed over the width.

    Implements: Eq. 21
    """
    return (x0.unsqueeze(1) - predicted).square().sum(-1).mean()


def softmax_loss(candidates: Candidates, predicted: Float[Tensor, "N S d"]) -> Float[Tensor, ""]:
    """L_ssm: the softmax loss of the predictions; S > 1 samples form a mixture,
    -log mean_s p(target | x_0-hat_s). For S = 1 also every other loss of `SoftmaxConfig`.

    Implements: Eq. 22

    Raises:
        ConfigError: S > 1 with a loss that gives no probability to mix.
    """
    if candidates.config.loss != "softmax":
        if predicted.shape[1] > 1:
            raise ConfigError(
                f'options.softmax.loss = "{candidates.config.loss}" has no mixture of '
                f'{predicted.shape[1]} samples: use one sample, or the loss "softmax"'
            )
        return candidates.losses(predicted).mean()
    likelihood = candidates.log_likelihood(predicted)  # [N, S]
    samples = torch.tensor(float(predicted.shape[1]))
    return -(likelihood.logsumexp(1) - samples.log()).mean()
