"""SequenceBatch: frozen, and moved as one."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from dimerec.batch import SequenceBatch


def batch() -> SequenceBatch:
    return SequenceBatch(
        history=torch.tensor([[0, 1, 2]]),
        targets=torch.tensor([[0, 2, 3]]),
        negatives=torch.tensor([4, 5]),
        log_q=torch.tensor([-1.0, -2.0]),
    )


def test_a_batch_is_frozen():
    for field in fields(SequenceBatch):
        with pytest.raises(FrozenInstanceError):
            setattr(batch(), field.name, torch.zeros(1, 3))


def test_moving_moves_everything_and_changes_nothing():
    one, moved = batch(), batch().to("meta")
    for field in fields(SequenceBatch):
        before, after = getattr(one, field.name), getattr(moved, field.name)
        assert after.device.type == "meta"
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert torch.equal(getattr(one.to("cpu"), field.name), before)
