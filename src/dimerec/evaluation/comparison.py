"""Compare two results: read them back, refuse what cannot be compared, test the difference."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dimerec.config import Struct
from dimerec.errors import DataError
from dimerec.evaluation import statistics
from dimerec.evaluation.card import ProtocolCard
from dimerec.evaluation.evaluator import Evaluation
from dimerec.evaluation.intervals import Interval, resampled
from dimerec.evaluation.metrics import per_query
from dimerec.evaluation.statistics import Outcome

FAMILY = ("hr@10", "hr@20", "hr@50", "ndcg@10", "ndcg@20", "ndcg@50")
# What two results must share: the same targets, ranked in the same way, none of them in training.
SHARED = {
    "digest": "dataset",
    "trained_on": "dataset it was trained on",
    "protocol": "protocol",
    "split": "split",
    "positions": "positions",
    "queries": "number of queries",
    "candidates": "candidates",
    "hide_seen": "hiding of seen items",
    "ties": "rule for ties",
}
# What the seeds of one side must share besides.
ONE_MODEL = {"model": "model", "length": "history length", "sampling": "sampling"}


class Comparison(Struct, frozen=True):
    """One metric of two sides, `a` and `b`; a difference is that of `a` less `b`.

    Attributes:
        metric: such as "hr@20".
        a, b: its means over queries and seeds, as shares in 0..1.
        difference: and its 95 % bootstrap interval over users, the trained models given.
        relative: the difference as a share of `b`; None where `b` is 0.
        d_z, rank_biserial: effect sizes over users.
        users, wilcoxon: tests over users, the trained models given.
        seeds: test over training seeds; None unless both sides have the same two or more.
        both: test over users and seeds; None unless both sides have two seeds or more.
        p: of `both` where it is there, else of `users`.
        holm: `p` adjusted for all metrics of the comparison.
    """

    metric: str
    a: float
    b: float
    difference: Interval
    relative: float | None
    d_z: float
    rank_biserial: float
    users: Outcome
    wilcoxon: Outcome
    seeds: Outcome | None
    both: Outcome | None
    p: float
    holm: float


def read(folder: str | Path) -> Evaluation:
    """What `Evaluation.write` wrote into `folder`.

    Raises:
        DataError: `evaluation.json` or `ranks.npy` is missing, broken, or not of the other.
    """
    folder = Path(folder)
    file = folder / "evaluation.json"
    try:
        content = msgspec.json.decode(file.read_bytes())
        card = msgspec.convert(content["card"], ProtocolCard)
        values = msgspec.convert(content["metrics"], dict[str, float])
        file = folder / "ranks.npy"
        pairs = np.load(file, allow_pickle=False)
        ranks, users = pairs["rank"], pairs["user"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError) as e:
        raise DataError(
            f"{file}: not what an evaluation wrote ({e}); write it anew: "
            "dimerec evaluate BUNDLE DATASET --out FOLDER"
        ) from e
    if len(ranks) != card.queries:
        raise DataError(f"{file}: {len(ranks)} ranks, but evaluation.json speaks of {card.queries}")
    return Evaluation(values, card, ranks, users)


def read_side(folder: str | Path) -> list[Evaluation]:
    """The evaluations of one model: that in `folder`, or one of each training seed below it.

    In the order of their training seeds.

    Raises:
        DataError: there is none, or they are not seeds of one model under one protocol.
    """
    folder = Path(folder)
    places = [folder] if (folder / "evaluation.json").exists() else []
    places = places or sorted(p.parent for p in folder.rglob("evaluation.json"))
    if not places:
        raise DataError(
            f"{folder}: no evaluation.json in it or below it; make one: "
            f"dimerec evaluate BUNDLE DATASET --out {folder}"
        )
    found = sorted(((read(p), p) for p in places), key=lambda pair: _seed(pair[0]))
    for (before, where), (one, path) in pairwise(found):
        _same(before, one, {**SHARED, **ONE_MODEL}, str(where), str(path), "seeds of one model")
        if _seed(before) == _seed(one):
            raise DataError(
                f"{where} and {path} are both of training seed {_seed(one)}: keep one of them"
            )
    return [one for one, _ in found]


def compare(
    a: Sequence[Evaluation],
    b: Sequence[Evaluation],
    metrics: Sequence[str] = FAMILY,
    names: tuple[str, str] = ("the first", "the second"),
) -> list[Comparison]:
    """Compare two sides, each of one evaluation a training seed, metric by metric.

    Args:
        metrics: such as "hr@20"; they are one family for Holm's correction.
        names: of the sides, for errors.

    Raises:
        DataError: the two were not evaluated on the same data under the same protocol (says what
            differs), or there are fewer than two users.
        ConfigError: there is no such metric, or SciPy is not installed.
    """
    _same(a[0], b[0], SHARED, *names, "comparable")
    users = a[0].users
    for one in (*a, *b):
        if not np.array_equal(one.users, users):
            raise DataError(f"{names[0]} and {names[1]}: their queries are of different users")
    first = [np.stack([per_query(one.ranks, m) for one in a]) for m in metrics]
    second = [np.stack([per_query(one.ranks, m) for one in b]) for m in metrics]
    gaps = np.stack([x.mean(axis=0) - y.mean(axis=0) for x, y in zip(first, second, strict=True)])
    intervals = resampled(gaps, users)
    seeds = [[_seed(one) for one in side] for side in (a, b)]
    paired = seeds[0] == seeds[1] and len(a) > 1
    out = []
    for metric, x, y, gap in zip(metrics, first, second, intervals, strict=True):
        over_users = statistics.over_users(x, y, users)
        both = statistics.over_users_and_seeds(x, y, users) if min(len(a), len(b)) > 1 else None
        out.append(
            Comparison(
                metric=metric,
                a=float(x.mean()),
                b=float(y.mean()),
                difference=gap,
                relative=gap.value / float(y.mean()) if y.any() else None,
                d_z=statistics.cohen(x, y, users),
                rank_biserial=statistics.rank_biserial(x, y, users),
                users=over_users,
                wilcoxon=statistics.wilcoxon(x, y, users),
                seeds=statistics.over_seeds(x, y) if paired else None,
                both=both,
                p=(both or over_users).p,
                holm=1.0,
            )
        )
    adjusted = statistics.holm([one.p for one in out])
    return [msgspec.structs.replace(o, holm=p) for o, p in zip(out, adjusted, strict=True)]


def _seed(one: Evaluation) -> int:
    return one.card.seeds["training"]


def _same(
    one: Evaluation, other: Evaluation, fields: dict[str, str], a: str, b: str, what: str
) -> None:
    different = [
        f"{name} ({_shown(x)} and {_shown(y)})"
        for field, name in fields.items()
        if (x := getattr(one.card, field)) != (y := getattr(other.card, field))
    ]
    if different:
        raise DataError(
            f"{a} and {b} are not {what}: they differ in {', '.join(different)}; evaluate both "
            "on one dataset with the same options"
        )


def _shown(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value).decode()
    text = str(value)
    return text[:12] if len(text) == 64 else text
