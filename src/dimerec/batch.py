"""SequenceBatch: what the data side makes and the models eat."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class SequenceBatch:
    """B histories with the next item of every position.

    Attributes:
        history: int64 `[B, L]` item numbers, left-padded with 0, oldest first.
        targets: int64 `[B, L]` the item that followed each position; 0 where none counts.
        negatives: int64 `[M]` shared by the batch, `[B, L, M]` private to each position, or
            `[0]` when the loss needs none.
        log_q: float32, the shape of `negatives`: log-probability with which the sampler draws
            each of them (one draw).
    """

    history: "Tensor"
    targets: "Tensor"
    negatives: "Tensor"
    log_q: "Tensor"

    def to(self, device: "torch.device | str") -> "SequenceBatch":
        """The same batch on `device`."""
        names = ("history", "targets", "negatives", "log_q")
        return replace(self, **{n: getattr(self, n).to(device, non_blocking=True) for n in names})
