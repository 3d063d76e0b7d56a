"""Softmax losses over items, full or sampled, and the paper's three terms."""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor

from dimerec.config import Struct
from dimerec.nn.embeddings import ItemEmbedding


class SoftmaxConfig(Struct):
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
        self.full = negatives.numel() == 0
        if self.full:
            self.others = items.table()  # [V, d]
            self.positive = F.embedding(targets, self.others)
            return
        self.positive = items(targets)  # [N, d]
        self.others = items(negatives)  # [M, d] or [N, M, d]
        self.collision = (negatives == targets.unsqueeze(1)) | (negatives == 0)  # [N, M]
        if config.logq:
            self.correction = log_q + torch.log(torch.tensor(float(negatives.shape[-1])))

    def log_likelihood(self, queries: Float[Tensor, "N Q d"]) -> Float[Tensor, "N Q"]:
        """log p(target | query) of every query, by the full or the sampled softmax."""
        if self.config.unit:
            queries = F.normalize(queries, dim=-1)
        queries = queries / self.config.temperature
        positive = (queries * self.positive.unsqueeze(1)).sum(-1)  # [N, Q]
        if self.full:
            logits = queries @ self.others[1:].T  # [N, Q, V-1]: padding is no candidate
            return positive - logits.logsumexp(-1)
        shared = self.others.dim() == 2
        other = queries @ (self.others.T if shared else self.others.transpose(1, 2))  # [N, Q, M]
        if self.config.logq:
            other = other - (self.correction if shared else self.correction.unsqueeze(1))
        other = other.masked_fill(self.collision.unsqueeze(1), -torch.inf)
        return -F.softplus(other.logsumexp(-1) - positive)


def guidance_loss(
    candidates: Candidates, guidance: Float[Tensor, "N K d"]
) -> Float[Tensor, ""]:
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
