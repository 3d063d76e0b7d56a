"""Findings of an audit, and what its checks need to know of every event."""

from typing import Literal

import msgspec
import numpy as np

from dimerec.data.dataset import Dataset

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One check: what it is called, what it measured, and a sentence for people."""

    level: Level
    name: str
    numbers: dict[str, float]
    message: str


def rows(dataset: Dataset) -> np.ndarray:
    """int64 `[N]`: the user row of every event."""
    return np.repeat(np.arange(len(dataset.users)), np.diff(dataset.offsets))


def positions(dataset: Dataset) -> np.ndarray:
    """int64 `[N]`: the position of every event inside its user."""
    return np.arange(len(dataset.items)) - dataset.offsets[rows(dataset)]


def same_user(dataset: Dataset) -> np.ndarray:
    """bool `[N-1]`: whether event i + 1 is of the same user as event i."""
    same = np.ones(len(dataset.items) - 1, bool)
    same[dataset.offsets[1:-1] - 1] = False
    return same
