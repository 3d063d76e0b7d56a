"""Losses that judge a target and its sampled negatives one by one, or two by two: BCE, gBCE, BPR.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (BCE); Petrov and
Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
Sampling", RecSys 2023 (gBCE); Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit
Feedback", UAI 2009.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def gbce_beta(calibration: float, draws: int, size: int) -> float:
    """gBCE's power of the target's probability, alpha (t (1 - 1/alpha) + 1/alpha).

    1 (plain BCE) for t = 0; the sampling rate alpha itself for t = 1, where the model's
    probabilities are calibrated. alpha is M / (V - 2): the share of the items that are not the
    target. With replacement M may be larger than that; alpha is 1 then, and so is beta.

    Args:
        calibration: t, 0 to 1.
        draws: M, negatives drawn for a target.
        size: V, padding included.
    """
    alpha = min(1.0, draws / max(1, size - 2))
    return alpha * calibration + 1 - calibration


def bce(
    positive: Float[Tensor, " N"],
    others: Float[Tensor, "N C"],
    weight: Float[Tensor, " C"] | None,
    draws: int,
    beta: float = 1.0,
) -> Float[Tensor, " N"]:
    """-(log sigmoid(s+)^beta + sum_j log(1 - sigmoid(s_j))) / (1 + M); gBCE where beta < 1.

    Args:
        positive, others: logits of targets and negatives; those of masked negatives are -inf, and
            cost nothing.
        weight: how many draws each column of `others` stands for; None: one.
        draws: M, masked ones included.
    """
    rest = F.softplus(others)
    total = (rest if weight is None else rest * weight).sum(1)
    return (beta * F.softplus(-positive) + total) / (1 + draws)


def bpr(
    positive: Float[Tensor, " N"],
    others: Float[Tensor, "N C"],
    weight: Float[Tensor, " C"] | None,
    draws: int,
) -> Float[Tensor, " N"]:
    """-(1/M) sum_j log sigmoid(s+ - s_j); arguments as those of `bce`."""
    rest = F.softplus(others - positive.unsqueeze(1))
    return (rest if weight is None else rest * weight).sum(1) / draws
