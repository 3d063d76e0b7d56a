"""Transformer guidance: SASRec's latest states."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dimerec.batch import SequenceBatch
from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor
from dimerec.nn.transformer import Transformer


class TransformerStates(GuidanceExtractor):
    """The states of the latest K positions, latest first; K = 1 is SASRec itself.

    Where the history is shorter than K, its oldest state is repeated.
    """

    causal = True

    def __init__(self, config: GuidanceConfig, width: int, length: int) -> None:
        super().__init__()
        self.interests = config.interests
        self.transformer = Transformer(config.transformer, width, length)

    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        return self.every(hidden, history)[:, -1]

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        return self._latest(self.transformer(hidden, history), history)

    def train_on(
        self, hidden: Float[Tensor, "B L d"], batch: SequenceBatch, rng: Generator | None = None
    ) -> tuple[Float[Tensor, "N K d"], Bool[Tensor, "B L"]]:
        at = batch.targets > 0
        states = self.transformer(hidden, batch.history, rng)
        return self._latest(states, batch.history)[at], at

    def _latest(
        self, states: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        here = torch.arange(history.shape[1], device=history.device).unsqueeze(1)  # [L, 1]
        back = here - torch.arange(self.interests, device=history.device)  # [L, K]
        oldest = (history == 0).sum(1)[:, None, None]  # [B, 1, 1], the first real position
        index = back.maximum(oldest).minimum(here)  # [B, L, K]
        return states[torch.arange(states.shape[0], device=states.device)[:, None, None], index]
