"""Named streams: pure functions of their names, apart from one another, and from global state."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from dimerec.randomness import key, stream, torch_scope, torch_stream

NAMES = st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=4)


def test_streams_repeat_whatever_ran_before():
    first = stream(7, "negatives", 0, 3).integers(0, 1000, 50)
    stream(7, "noise").normal(size=1000)
    np.random.default_rng(0).normal()
    assert (stream(7, "negatives", 0, 3).integers(0, 1000, 50) == first).all()


def test_streams_repeat_in_another_process():
    code = "from dimerec.randomness import stream; print(stream(7, 'a', 1).integers(2**62))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "123", "PATH": ""},
    ).stdout
    assert int(shown) == stream(7, "a", 1).integers(2**62)


@given(st.integers(), NAMES, st.integers(), NAMES)
def test_other_names_are_other_streams(a: int, first: list, b: int, second: list):
    assume((a, first) != (b, second))
    assume("\x1f" not in "".join(map(str, first + second)))
    assert key(a, *first) != key(b, *second)
    assert 0 <= key(a, *first) < 2**128


def test_a_number_and_its_text_are_different_names():
    assert key(0, 1) != key(0, "1")
    assert key(0, "a", "b") != key(0, "ab")
    assert key(1, 2) != key(12)


def test_neighbouring_streams_are_uncorrelated():
    draws = np.stack([stream(0, "noise", i).standard_normal(4000) for i in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 0.08  # 5 standard errors
    assert abs(draws.mean()) < 0.02 and abs(draws.std() - 1) < 0.02


def test_torch_streams_repeat_and_differ():
    draw = torch.rand(5, generator=torch_stream(3, "dropout", 1))
    assert torch.equal(draw, torch.rand(5, generator=torch_stream(3, "dropout", 1)))
    assert not torch.equal(draw, torch.rand(5, generator=torch_stream(3, "dropout", 2)))


def test_a_torch_scope_gives_the_global_generator_back():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with torch_scope(5, "init"):
        inside = torch.nn.Linear(3, 3).weight
    assert torch.equal(torch.rand(3), expected)
    with torch_scope(5, "init"):
        assert torch.equal(torch.nn.Linear(3, 3).weight, inside)
    with torch_scope(6, "init"):
        assert not torch.equal(torch.nn.Linear(3, 3).weight, inside)


def test_a_torch_scope_gives_the_generator_back_after_an_error():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(RuntimeError), torch_scope(5):
        torch.rand(1)
        raise RuntimeError
    assert torch.equal(torch.rand(3), expected)
