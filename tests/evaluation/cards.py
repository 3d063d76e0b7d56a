"""Evaluations made up of ranks and users."""

from typing import Any

import msgspec
import numpy as np

from dimerec.data.splits import Protocol
from dimerec.evaluation.card import Machine, ProtocolCard
from dimerec.evaluation.evaluator import Evaluation
from dimerec.evaluation.metrics import summary

CARD = ProtocolCard(
    dataset="made up",
    digest="d" * 64,
    trained_on="d" * 64,
    protocol=Protocol(name="leave-one-out"),
    split="test",
    positions="last",
    queries=0,
    available=0,
    users=0,
    cold_targets=0,
    candidates="full catalogue: 99 items",
    hide_seen=False,
    ties="",
    lists=0,
    model="toy",
    weights="w" * 64,
    length=1,
    seeds={"training": 0, "evaluation": 0},
    sampling={},
    versions={},
    machine=Machine(cpus=1, threads=1, device="cpu"),
)


def scored(ranks: Any, users: Any, seed: int = 0, **changes: Any) -> Evaluation:
    """An evaluation of training seed `seed`; `changes` are fields of its card."""
    ranks, users = np.array(ranks, np.float32), np.array(users, np.int64)
    own = {"queries": len(ranks), "available": len(ranks), "users": len(np.unique(users))}
    own |= {"seeds": {"training": seed, "evaluation": 0}}
    card = msgspec.structs.replace(CARD, **{**own, **changes})
    return Evaluation(summary(ranks), card, ranks, users)
