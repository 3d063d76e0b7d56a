"""Softmax losses over items, full or sampled, and the paper's three terms."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.nn.embeddings import ItemEmbedding


class SoftmaxConfig(Struct, frozen=True):
    """How item logits are made and corrected.

    Attributes:
        unit: logits between unit vectors (cosines) instead of raw inner products.
        temperature: logits are divided by it.
        logq: subtract log(M q_i) from the logit of a negative i drawn with probability q_i, which
            makes the sampled partition function an unbiased estimate of the full one.
    """

    unit: bool = False
    temperature: Annotated[float, Meta(gt=0.0)] = 1.0
    logq: bool = False


class Candidates:
    """The items that one batch of N training targets is compared with, gathered once.

    Args:
        items: owner of the item vectors.
        targets: int64 `[N]`, none of them padding.
        negatives: int64 `[M]` shared or `[N, M]` private; empty for the full softmax.
        log_q: float `[M]` or `[N, M]`, log-probability of one draw.
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
        if self.kind == "full":
            self.others = items.table()  # [V, d]
            self.positive = F.embedding(targets, self.others)
            return
        correction = (
            log_q + math.log(negatives.shape[-1]) if config.logq else torch.zeros_like(log_q)
        )
        if self.kind == "shared":  # draws of the same item share one column, heavier by log(count)
            negatives, inverse, count = negatives.unique(return_inverse=True, return_counts=True)
            merged = log_q.new_zeros(len(negatives))
            correction = merged.scatter(0, inverse, correction) - count.log()
            column = torch.searchsorted(negatives, targets).clamp_max(len(negatives) - 1)
            hit = (negatives[column] == targets).nonzero()[:, 0]
            self.hits = hit, column[hit]
        else:
            self.masked = (negatives == targets.unsqueeze(1)) | (negatives == 0)  # [N, M]
        self.correction = correction
        self.positive = items(targets)  # [N, d]
        self.others = items(negatives)  # [M, d] or [N, M, d]

    @classmethod
    def of(
        cls, batch: SequenceBatch, at: Tensor, config: SoftmaxConfig, items: ItemEmbedding
    ) -> "Candidates":
        """Those of the batch's positions `at`, bool `[B, L]` with N of them true."""
        private = batch.negatives.dim() == 3
        negatives, log_q = (x[at] if private else x for x in (batch.negatives, batch.log_q))
        return cls(config, items, batch.targets[at], negatives, log_q)

    def log_likelihood(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q"]:
        """log p(target | query) of every query, by the full or the sampled softmax."""
        if self.config.unit:
            queries = F.normalize(queries, dim=-1)
        queries = queries / self.config.temperature
        positive = (queries * self.positive.unsqueeze(1)).sum(-1)  # [N, Q]
        return -F.softplus(self._rest(queries) - positive)

    def _rest(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q"]:
        """log of the summed exponentials of all candidates but the target."""
        if self.kind == "private":
            other = queries @ self.others.transpose(1, 2) - self.correction.unsqueeze(1)
            other = other.masked_fill(self.masked.unsqueeze(1), -torch.inf)  # [N, Q, M]
        elif self.kind == "shared":
            other = queries @ self.others.T - self.correction
            row, column = self.hits
            other[row, :, column] = -torch.inf
        else:
            other = queries @ self.others.T  # [N, Q, V]
            other[:, :, 0] = -torch.inf
            other[torch.arange(len(other), device=other.device), :, self.targets] = -torch.inf
        return other.logsumexp(-1)


def _kind(negatives: Tensor) -> Literal["full", "shared", "private"]:
    if negatives.numel() == 0:
        return "full"
    return "private" if negatives.dim() == 2 else "shared"


def guidance_loss(candidates: Candidates, guidance: Float[Tensor, "N K d"]) -> Float[Tensor, ""]:
    """L_gem: the softmax loss of the interest closest to the target.

    Implements: Eqs. 18-19
    """
    if candidates.config.unit:
        guidance = F.normalize(guidance, dim=-1)
    chosen = closest(guidance, candidates.positive)
    return -candidates.log_likelihood(chosen.unsqueeze(1)).mean()


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
    -log mean_s p(target | x_0-hat_s).

    Implements: Eq. 22
    """
    likelihood = candidates.log_likelihood(predicted)  # [N, S]
    samples = torch.tensor(float(predicted.shape[1]))
    return -(likelihood.logsumexp(1) - samples.log()).mean()
