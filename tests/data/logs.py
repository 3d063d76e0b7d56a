"""Small datasets for tests, and Hypothesis strategies of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from dimerec.data.dataset import Dataset, write
from dimerec.data.splits import Protocol
from dimerec.vocabulary import Id, Vocabulary


def flat(sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64 `[U+1]` and all values int64 `[N]` of the users' sequences."""
    offsets = np.cumsum([0, *(len(s) for s in sequences)])
    return offsets, np.array([x for s in sequences for x in s], np.int64)


def make(
    path: Path,
    sequences: Sequence[Sequence[int]],
    ends: Sequence[tuple[int, int]],
    *,
    times: Sequence[Sequence[int]] | None = None,
    protocol: str = "users-8-1-1",
    cuts: tuple[int, int] | None = None,
    users: Sequence[Id] | None = None,
    items: int = 0,
    overwrite: bool = False,
) -> Dataset:
    """A dataset of item numbers a user with (train_end, valid_end) a user.

    Item number i has id `"i<number>"`, user row r id `"u<row>"`; without `times` the events have
    positions alone.
    """
    offsets, numbers = flat(sequences)
    size = max(items, int(numbers.max(initial=0)))
    return write(
        path,
        vocabulary=Vocabulary([f"i{n}" for n in range(1, size + 1)]),
        users=Vocabulary(users or [f"u{r}" for r in range(len(sequences))]),
        offsets=offsets,
        items=numbers,
        times=flat(times or [range(len(s)) for s in sequences])[1],
        train_end=np.array([e[0] for e in ends], np.int64),
        valid_end=np.array([e[1] for e in ends], np.int64),
        card={"name": "small", "protocol": Protocol(name=protocol, cuts=cuts)},
        overwrite=overwrite,
    )


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Sequences of item numbers and their boundaries, any that a dataset allows."""
    sequence = st.lists(st.integers(1, 9), min_size=1, max_size=14)
    sequences = draw(st.lists(sequence, min_size=1, max_size=6))
    ends = []
    for s in sequences:
        low, high = sorted(draw(st.tuples(*[st.integers(0, len(s))] * 2)))
        ends.append((low, high))
    return sequences, ends
