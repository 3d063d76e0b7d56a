"""The history as a set: by hand, and against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dimerec import randomness
from dimerec.nn.bags import Taste, first_seen, pooled

rows = st.lists(st.integers(1, 4), min_size=0, max_size=6)


@given(rows)
def test_first_seen_is_its_definition(items: list[int]) -> None:
    row = [0] * (6 - len(items)) + items
    want = [i > 0 and i not in row[:n] for n, i in enumerate(row)]
    assert first_seen(torch.tensor([row]))[0].tolist() == want


def test_pooled_by_hand() -> None:
    """Items 3, 5, 3 after one padding, with vectors (1, 0), (3, 4), (1, 0), and power 1/2.

    Sums of the distinct ones: (1, 0), (4, 4), (4, 4), over sqrt 1, sqrt 2, sqrt 2.
    """
    vectors = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [3.0, 4.0], [1.0, 0.0]]])
    got = pooled(vectors, torch.tensor([[0, 3, 5, 3]]), 0.5)
    want = [[0.0, 0.0], [1.0, 0.0], [4 / 2**0.5, 4 / 2**0.5], [4 / 2**0.5, 4 / 2**0.5]]
    torch.testing.assert_close(got[0], torch.tensor(want))


@pytest.mark.parametrize("power", [0.0, 0.2, 1.0])
def test_pooled_against_a_loop(power: float) -> None:
    rng = np.random.default_rng(0)
    history = rng.integers(1, 5, (3, 6))
    history[0, :2] = 0
    table = rng.normal(size=(5, 2))
    got = pooled(torch.from_numpy(table[history]), torch.from_numpy(history), power)
    for b in range(3):
        for n in range(6):
            distinct = {int(i) for i in history[b, : n + 1] if i}
            total = sum((table[i] for i in distinct), np.zeros(2))
            want = total / max(1, len(distinct)) ** power
            np.testing.assert_allclose(got[b, n], want, atol=1e-9)


def test_taste_is_a_mean_and_nothing_of_nothing() -> None:
    with randomness.torch_scope(0, "init"):
        taste = Taste(6, 3)
    got = taste(torch.tensor([[0, 2, 4, 2]]))
    table = taste.items.table()
    want = torch.stack([torch.zeros(3), table[2], (table[2] + table[4]) / 2])
    torch.testing.assert_close(got[0, :3], want)
    torch.testing.assert_close(got[0, 3], want[2])
