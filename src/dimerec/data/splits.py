"""Protocols: how a log is cut into training, validation and test.

Every protocol is two boundaries inside each user: events `[0, train_end)` train, the events
`[train_end, valid_end)` are validation targets, `[valid_end, n)` test targets. Throughout,
`offsets` is int64 `[U+1]` (every user has at least one event), `times` int64 `[N]`, ascending
inside a user, and a result is a pair of int64 `[U]`, `train_end` and `valid_end`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np

from dimerec.errors import DataError
from dimerec.randomness import stream
from dimerec.vocabulary import Id, Vocabulary

Name = Literal[
    "users-8-1-1", "sessions-by-time", "sessions-in-order", "leave-one-out", "global-time", "given"
]
PROTOCOLS: tuple[str, ...] = get_args(Name)
Boundaries = tuple[np.ndarray, np.ndarray]
TRAIN, VALID, TEST = 0, 1, 2
PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A protocol and its parameters, as the card records them.

    Attributes:
        name: one of `PROTOCOLS`.
        seed: of the shuffle ("users-8-1-1"; "given" without a validation part).
        fractions: train, validation and test shares of the users, sessions or events; they are
            not negative and sum to 1.
        cuts: "global-time" only: the first validation time and the first test time, in the unit
            of the times; without them the fractions' quantiles of the event times are taken.

    Raises:
        DataError: fractions or cuts out of range.
    """

    name: Name
    seed: int = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    cuts: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise DataError(f"no protocol {self.name!r} (known: {', '.join(PROTOCOLS)})")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise DataError(f"fractions {self.fractions} of {self.name}: not shares summing to 1")
        if self.cuts is not None and self.cuts[0] > self.cuts[1]:
            raise DataError(f"cuts {self.cuts} of {self.name}: the first is after the second")


class Split(NamedTuple):
    """Boundaries int64 `[U]` and the protocol that made them, with `cuts` filled in."""

    train_end: np.ndarray
    valid_end: np.ndarray
    protocol: Protocol


def split(
    protocol: Protocol,
    *,
    offsets: np.ndarray,
    times: np.ndarray,
    users: Vocabulary,
    given: Mapping[Id, str] | None = None,
) -> Split:
    """Cut a log by `protocol`; `given` maps user ids to "train", "valid" or "test".

    Raises:
        DataError: nothing would be left to train on, the protocol needs times and there are
            none, or a user is missing from `given`.
    """
    name = protocol.name
    if name in ("sessions-by-time", "global-time") and times_are_positions(offsets, times):
        raise DataError(
            f"{name} needs event times, but this log has none: name its time column, "
            "or take users-8-1-1, leave-one-out or, where sessions are numbered in the order of "
            "time, sessions-in-order"
        )
    if name == "users-8-1-1":
        ends = users_8_1_1(offsets, users, protocol.seed, protocol.fractions)
    elif name == "sessions-by-time":
        ends = sessions_by_time(offsets, times, protocol.fractions)
    elif name == "sessions-in-order":
        ends = sessions_in_order(offsets, users, protocol.fractions)
    elif name == "leave-one-out":
        ends = leave_one_out(offsets)
    elif name == "global-time":
        cuts = protocol.cuts or time_cuts(times, protocol.fractions)
        protocol = msgspec.structs.replace(protocol, cuts=cuts)
        ends = global_time(offsets, times, cuts)
    else:
        if given is None:
            raise DataError("protocol given needs a split file: user ids with their part")
        ends = by_mapping(offsets, users, given, protocol.seed)
    if not ends[0].any():
        raise DataError(f"{name} leaves no training event: change its fractions or cuts")
    return Split(*ends, protocol)


def users_8_1_1(
    offsets: np.ndarray,
    users: Vocabulary,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Boundaries:
    """Whole users, shuffled by `seed` from the order of their ids: the file's order is nothing."""
    order = _sorted_rows(users)[stream(seed, "split").permutation(len(users))]
    return _whole_users(offsets, _parts(order, fractions))


def sessions_by_time(
    offsets: np.ndarray,
    times: np.ndarray,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Boundaries:
    """Whole sessions in the order of their last event (ties by row): the first ones train.

    Ordered by the last event, no training event is later than the end of any evaluation session.
    """
    order = np.argsort(times[offsets[1:] - 1], kind="stable")
    return _whole_users(offsets, _parts(order, fractions))


def sessions_in_order(
    offsets: np.ndarray,
    users: Vocabulary,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Boundaries:
    """Whole sessions in the order of their ids, which are numbers: the first ones train.

    For logs without times whose sessions are numbered in the order of time.

    Raises:
        DataError: an id is no whole number.
    """
    return _whole_users(offsets, _parts(np.argsort(numbered(users)), fractions))


def numbered(users: Vocabulary) -> np.ndarray:
    """The ids as int64 `[U]`; DataError where one is no whole number."""
    ids = users.ids(range(1, len(users) + 1))
    wrong = next((i for i in ids if not isinstance(i, int)), None)
    if wrong is not None:
        raise DataError(
            "sessions-in-order needs sessions that are numbered in the order of time, and "
            f"{wrong!r} is no number: take users-8-1-1 or leave-one-out"
        )
    return np.array(ids, np.int64)


def leave_one_out(offsets: np.ndarray) -> Boundaries:
    """Each user's last event tests and the one before validates; users under 3 events train."""
    n = np.diff(offsets)
    return np.where(n < 3, n, n - 2), np.where(n < 3, n, n - 1)


def global_time(offsets: np.ndarray, times: np.ndarray, cuts: tuple[int, int]) -> Boundaries:
    """Events before `cuts[0]` train, those before `cuts[1]` validate, the later ones test."""
    first, second = (np.add.reduceat(times < c, offsets[:-1], dtype=np.int64) for c in cuts)
    return first, second


def time_cuts(times: np.ndarray, fractions: tuple[float, float, float]) -> tuple[int, int]:
    """The times at which the fractions' quantiles of the events are reached."""
    last = len(times) - 1
    at = [min(last, _count(f, len(times))) for f in (fractions[0], fractions[0] + fractions[1])]
    first, second = np.partition(times, at)[at]
    return int(first), int(second)


def by_mapping(
    offsets: np.ndarray, users: Vocabulary, given: Mapping[Id, str], seed: int = 0
) -> Boundaries:
    """Whole users as `given` says; without a validation part, 10 % of the training users by seed.

    Raises:
        DataError: a user is missing, or a part is none of "train", "valid", "test".
    """
    ids = users.ids(range(1, len(users) + 1))
    missing = [i for i in ids if i not in given]
    if missing:
        raise DataError(
            f"the given split names no part for {len(missing)} users, {missing[0]!r} among them: "
            "add them, or drop their events"
        )
    wrong = [i for i in ids if given[i] not in PARTS]
    if wrong:
        raise DataError(
            f"the given split puts user {wrong[0]!r} into {given[wrong[0]]!r}: "
            "a part is train, valid or test"
        )
    parts = np.fromiter((PARTS[given[i]] for i in ids), np.int64, len(ids))
    if not (parts == VALID).any():
        rows = _sorted_rows(users)
        rows = rows[parts[rows] == TRAIN]
        carved = stream(seed, "split").permutation(rows)[: max(1, _count(0.1, len(rows)))]
        parts[carved] = VALID
    return _whole_users(offsets, parts)


def times_are_positions(offsets: np.ndarray, times: np.ndarray) -> bool:
    """Whether `times` holds no times but each event's position inside its user."""
    if times[offsets[:-1]].any():
        return False
    step = np.diff(times)
    step[offsets[1:-1] - 1] = 1
    return bool((step == 1).all())


def _count(fraction: float, n: int) -> int:
    return int(np.floor(fraction * n + 0.5))


def _sorted_rows(users: Vocabulary) -> np.ndarray:
    ids = users.ids(range(1, len(users) + 1))
    return np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)


def _parts(order: np.ndarray, fractions: tuple[float, float, float]) -> np.ndarray:
    """Part of each row `[U]` when the rows in `order` are dealt out by `fractions`.

    Every part with a share gets one row at least.
    """
    n = len(order)
    valid, test = (max(1, _count(f, n)) if f else 0 for f in fractions[1:])
    if valid + test >= n:
        raise DataError(f"{n} users are too few for parts of {fractions}: one each is needed")
    parts = np.full(n, TRAIN)
    parts[order[n - valid - test :]] = VALID
    parts[order[n - test :]] = TEST
    return parts


def _whole_users(offsets: np.ndarray, parts: np.ndarray) -> Boundaries:
    n = np.diff(offsets)
    return np.where(parts == TRAIN, n, 0), np.where(parts == TEST, 0, n)
