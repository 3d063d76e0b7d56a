"""Checks of an audit that warn: what makes results harder to read or to compare."""

import numpy as np

from dimerec.data.card import POSITIONS
from dimerec.data.dataset import Dataset
from dimerec.data.findings import Finding, rows, same_user
from dimerec.data.splits import times_are_positions
from dimerec.randomness import stream

BURST = 100  # events inside one minute


def queries(dataset: Dataset) -> Finding:
    """Warns when a split has nothing to score."""
    numbers: dict[str, float] = {}
    for split in ("valid", "test"):
        for positions in POSITIONS:
            numbers[f"{split}_{positions}"] = len(dataset.queries(split, positions))
    empty = [name for name, number in numbers.items() if not number]
    message = f"nothing to score in {', '.join(empty)}" if empty else "every split has queries"
    return Finding("warn" if empty else "ok", "queries", numbers, message)


def repeats(dataset: Dataset) -> Finding:
    """Warns when more than 1 % of the events repeat the user's event before."""
    return _same_as_before(dataset, "repeats", dataset.items, "repeat the item just before")


def cold(dataset: Dataset) -> Finding:
    """Warns when evaluation targets were never seen in training: no model can learn them."""
    seen = dataset.counts() > 0
    numbers: dict[str, float] = {}
    for split in ("valid", "test"):
        items = dataset.items[dataset.segment(split)]
        unseen = ~seen[items]
        numbers[f"{split}_items"] = len(np.unique(items[unseen]))
        numbers[f"{split}_events"] = int(unseen.sum())
        numbers[f"{split}_share"] = float(unseen.mean()) if len(items) else 0.0
    message = (
        f"{numbers['test_share']:.2%} of the test events ({numbers['test_items']} items) and "
        f"{numbers['valid_share']:.2%} of the validation events are of items never seen in training"
    )
    unseen_any = numbers["valid_events"] or numbers["test_events"]
    return Finding("warn" if unseen_any else "ok", "cold", numbers, message)


def drift(dataset: Dataset) -> Finding:
    """Warns when test items are distributed otherwise than training items, beyond chance.

    Total variation is half the sum of the absolute differences of the shares, 0 (alike) to 1
    (apart). Chance is what two samples of these sizes from one distribution show; 0.1 more warns.
    """
    size = dataset.vocabulary.size
    train = dataset.counts().astype(np.int64)
    test = np.bincount(dataset.items[dataset.segment("test")], minlength=size)
    if not train.sum() or not test.sum():
        return Finding("ok", "drift", {}, "nothing to compare")
    pooled = (train + test) / (train + test).sum()
    rng = stream(0, "audit")
    alike = [rng.multinomial(int(part.sum()), pooled) for part in (train, test)]
    distance, chance = _variation(train, test), _variation(*alike)
    numbers = {"total_variation": distance, "by_chance": chance}
    message = (
        f"training and test items are {distance:.2f} apart in total variation, {chance:.2f} is "
        "expected by chance"
    )
    return Finding("warn" if distance > chance + 0.1 else "ok", "drift", numbers, message)


def ties(dataset: Dataset) -> Finding:
    """Warns when more than 1 % of the events share their time with the user's event before."""
    what = "have the time of the one before: their order is arrival"
    return _same_as_before(dataset, "ties", dataset.times, what)


def _same_as_before(dataset: Dataset, name: str, values: np.ndarray, what: str) -> Finding:
    same = (np.diff(values) == 0) & same_user(dataset)
    share = float(same.sum() / len(values))
    numbers = {"events": int(same.sum()), "share": share}
    return Finding(
        "warn" if share > 0.01 else "ok", name, numbers, f"{share:.1%} of the events {what}"
    )


def bots(dataset: Dataset) -> Finding:
    """Warns of users who are hardly people.

    Too many: at least 1,000 events and 50 times the median user's. Too fast: 100 events inside
    one minute, where times are known.
    """
    n = np.diff(dataset.offsets)
    many = (n >= 1000) & (n > 50 * np.median(n))
    fast = 0
    if not times_are_positions(dataset.offsets, dataset.times) and len(dataset.times) >= BURST:
        row = rows(dataset)
        burst = dataset.times[BURST - 1 :] - dataset.times[: -(BURST - 1)] < 60
        inside = row[BURST - 1 :] == row[: -(BURST - 1)]
        fast = len(np.unique(row[BURST - 1 :][burst & inside]))
    numbers = {
        "users_too_many": int(many.sum()),
        "users_too_fast": fast,
        "largest": int(n.max()),
        "largest_share": float(n.max() / n.sum()),
    }
    message = (
        f"{numbers['users_too_many']} users have 50 times the median's events, {fast} had {BURST} "
        f"in a minute; the largest has {n.max()} of {n.sum()}"
    )
    return Finding("warn" if many.any() or fast else "ok", "bots", numbers, message)


def _variation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)
