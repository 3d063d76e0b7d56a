"""Checks of an audit that fail: leakage, and data whose meaning is broken."""

import numpy as np

from dimerec.data.dataset import Dataset
from dimerec.data.findings import Finding, Level, positions, rows, same_user
from dimerec.data.queries import hashed
from dimerec.data.splits import numbered, times_are_positions
from dimerec.errors import DataError

DISTINCT = 5  # items a session needs before its twin is no chance: see `duplicates`
CHANCE_TWINS = 0.01


def content(dataset: Dataset) -> Finding:
    """Fails when the files are not those whose digest the card states."""
    try:
        dataset.verify()
    except DataError as e:
        return Finding("fail", "content", {}, str(e))
    return Finding("ok", "content", {}, "the files are those that were written")


def order(dataset: Dataset) -> Finding:
    """Fails when a user's times go backwards: the future would stand in a history."""
    back = (np.diff(dataset.times) < 0) & same_user(dataset)
    events, users = int(back.sum()), len(np.unique(rows(dataset)[1:][back]))
    message = f"{events} events of {users} users are earlier than the event before them"
    level = "fail" if events else "ok"
    return Finding(level, "order", {"events": events, "users": users}, message)


def boundaries(dataset: Dataset) -> Finding:
    """Fails when users are cut in a way their protocol does not allow.

    Where whole users are dealt out, an evaluation user with training events leaks; under
    "leave-one-out" all but the last two events must train, in "global-time" `future` looks at the
    times instead.
    """
    name = dataset.card.protocol.name
    n = np.diff(dataset.offsets)
    train, valid = dataset.train_end, dataset.valid_end
    wrong = (train < 0) | (valid < train) | (valid > n)
    if name == "leave-one-out":
        short = n < 3
        wrong |= (train != np.where(short, n, n - 2)) | (valid != np.where(short, n, n - 1))
    elif name != "global-time":
        wrong |= ~np.where(train > 0, train == n, (valid == 0) | (valid == n))
    users = int(wrong.sum())
    message = f"{users} users are cut as {name} never does"
    if users:
        row = int(wrong.argmax())
        message += (
            f": {dataset.users.ids([row + 1])[0]!r} trains on {train[row]} of {n[row]} events "
            f"and is tested from event {valid[row]} on"
        )
    return Finding("fail" if users else "ok", "boundaries", {"users": users}, message)


def duplicates(dataset: Dataset) -> Finding:
    """Looks for evaluation users whose whole sequence is another user's training sequence.

    Short sessions repeat naturally: in public click logs a fifth of the sessions of two items
    have a twin, but of those with five distinct items about one in a thousand. So it fails when
    more than 1 % of the evaluation users with five distinct items or more have a twin, or when a
    twin of three events or more has the very same times (one session under two names). Fewer
    twins of five distinct items warn.
    """
    n = np.diff(dataset.offsets)
    at = positions(dataset)
    evaluated = dataset.train_end < n
    keys = hashed(dataset.items.astype(np.uint64) + hashed(at.astype(np.uint64)))
    twins = _twins(dataset, keys, at, evaluated)
    copies = np.zeros(len(n), bool)
    if not times_are_positions(dataset.offsets, dataset.times):
        timed = hashed(keys + hashed(dataset.times.astype(np.uint64)))
        copies = _twins(dataset, timed, at, evaluated) & (n >= 3)
    varied = _distinct(dataset) >= DISTINCT
    long, alike, same = (int(x.sum()) for x in (evaluated & varied, twins & varied, copies))
    share = alike / max(long, 1)
    numbers = {
        "twins": int(twins.sum()),
        "twins_of_5_items": alike,
        "share_of_5_items": share,
        "twins_in_time": same,
    }
    message = (
        f"{alike} of {long} evaluation users with {DISTINCT} distinct items or more repeat a "
        f"training user item for item, {same} of three events or more to the second"
    )
    level: Level = "fail" if same or share > CHANCE_TWINS else "warn" if alike else "ok"
    return Finding(level, "duplicates", numbers, message)


def future(dataset: Dataset) -> Finding:
    """Under the protocols of time fails when an event stands on the wrong side of a cut.

    "global-time": training before the first cut, validation before the second, test after it.
    "sessions-by-time": no training session ends after an evaluation session, nor a validation
    session after a test session; "sessions-in-order": the same of their numbers. Other protocols
    train on events later than their targets by design: that warns with the share of test targets
    older than the latest training event.
    """
    protocol = dataset.card.protocol
    train, valid, test = (dataset.segment(s) for s in ("train", "valid", "test"))
    times = dataset.times
    if protocol.name == "global-time" and protocol.cuts:
        first, second = protocol.cuts
        wrong = int((train & (times >= first)).sum())
        wrong += int((valid & ((times < first) | (times >= second))).sum())
        wrong += int((test & (times < second)).sum())
        message = f"{wrong} events stand on the wrong side of the cuts {first}, {second}"
        return Finding("fail" if wrong else "ok", "future", {"events": wrong}, message)
    if protocol.name in ("sessions-by-time", "sessions-in-order"):
        by_time = protocol.name == "sessions-by-time"
        ends = times[dataset.offsets[1:] - 1] if by_time else numbered(dataset.users)
        n = np.diff(dataset.offsets)
        is_train, is_test = dataset.train_end > 0, (dataset.valid_end < n)
        is_valid = ~is_train & ~is_test
        sooner = ends[~is_train].min(initial=np.iinfo(np.int64).max)
        wrong = int((ends[is_train] > sooner).sum())
        if is_test.any():
            wrong += int((ends[is_valid] > ends[is_test].min()).sum())
        message = (
            f"{wrong} sessions {'end' if by_time else 'stand'} after a session of a later part"
        )
        return Finding("fail" if wrong else "ok", "future", {"sessions": wrong}, message)
    if not train.any() or not test.any():
        return Finding("ok", "future", {}, "nothing to compare")
    share = float((times[test] < times[train].max()).mean())
    message = (
        f"{share:.1%} of the test targets are older than the latest training event: "
        f"{protocol.name} does not separate by time"
    )
    return Finding("warn" if share else "ok", "future", {"share": share}, message)


def _twins(dataset: Dataset, keys: np.ndarray, at: np.ndarray, evaluated: np.ndarray) -> np.ndarray:
    """bool `[U]`: evaluated users whose events hash to another user's training events.

    `keys` uint64 and `at` (positions) are `[N]`; the hash of a sequence is the sum of its keys.
    """
    start = dataset.offsets[:-1]
    training = at < dataset.train_end[rows(dataset)]
    learned = np.add.reduceat(np.where(training, keys, np.uint64(0)), start)
    return evaluated & np.isin(np.add.reduceat(keys, start), learned[dataset.train_end > 0])


def _distinct(dataset: Dataset) -> np.ndarray:
    """int64 `[U]`: distinct items of each user."""
    size = dataset.vocabulary.size
    pairs = np.unique(rows(dataset) * size + dataset.items)
    return np.bincount(pairs // size, minlength=len(dataset.users))
