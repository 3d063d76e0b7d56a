"""Window: the losses since the last log entry."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dimerec.training.checkpoint import State
from dimerec.training.logs import Entry


class Window:
    """Losses since the last log entry; kept on the device until they are fetched."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._names: list[str] = []
        self._waiting: list[tuple[int, Tensor]] = []
        self._fetched: list[list[float]] = []
        self._begin = (state.seconds, state.targets)

    def add(self, names: list[str], values: list[Tensor]) -> None:
        """Scalar losses of the step just done."""
        self._names = names
        self._waiting.append((self._state.step, torch.stack([v.detach().float() for v in values])))

    def fetch(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Bring the waiting steps over: their number and named losses."""
        rows = torch.stack([v for _, v in self._waiting]).tolist() if self._waiting else []
        self._fetched += rows
        steps = [s for s, _ in self._waiting]
        self._waiting = []
        for step, row in zip(steps, rows, strict=True):
            yield step, dict(zip(self._names, row, strict=True))

    def entry(self) -> Entry:
        """Mean of the fetched steps, which are then forgotten."""
        means = [sum(column) / len(self._fetched) for column in zip(*self._fetched, strict=True)]
        losses = dict(zip(self._names, means, strict=True))
        seconds, targets = self._begin
        state = self._state
        rate = (state.targets - targets) / max(state.seconds - seconds, 1e-9)
        self._fetched, self._begin = [], (state.seconds, state.targets)
        return {
            "step": state.step,
            "losses": {n: v for n, v in losses.items() if n != "total"},
            "total": losses["total"],
            "targets_per_second": rate,
            "seconds": state.seconds,
        }
