"""The card of a dataset: where it comes from, what was removed, how it was cut, how large it is."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dimerec.data.splits import Protocol
from dimerec.errors import DataError

SCHEMA = 1
POSITIONS = ("every-position", "last", "last-20-percent")
SPLITS = ("valid", "test")


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One filter and what it removed."""

    name: str
    events_removed: int
    users_removed: int = 0
    items_removed: int = 0


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What only the writer of a dataset knows: its half of the card.

    Attributes:
        name: of the dataset.
        origin: where the log came from (files, digests, columns, versions), plain values.
        protocol: how it was cut.
        filters: in the order in which they were applied.
    """

    name: str
    protocol: Protocol
    origin: dict[str, Any] = {}
    filters: tuple[Filter, ...] = ()


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Events a user."""

    mean: float
    median: float
    min: int
    max: int


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Users and events of a split, and its number of queries for each choice of positions."""

    users: int
    events: int
    queries: dict[str, int] = {}


class Card(Provenance, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole card, `card.json`; `digest` is `Dataset.digest`."""

    schema: int = SCHEMA
    users: int
    items: int
    events: int
    lengths: Lengths
    splits: dict[str, Part]
    digest: str


def read(path: Path) -> Card:
    """The card at `path`; DataError naming the file when it is broken or of another version."""
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise DataError(
                f"{path}: schema {schema}, but this version reads {SCHEMA}: prepare again"
            )
        return msgspec.json.decode(content, type=Card)
    except (OSError, msgspec.DecodeError) as e:
        raise DataError(f"{path}: not the card of a dataset ({e})") from e


def target_ranges(
    split: str, positions: str, offsets: np.ndarray, train_end: np.ndarray, valid_end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last scored position of every user, int64 `[U]` each; equal where none.

    Raises:
        DataError: no such split or choice of positions.
    """
    if split not in SPLITS:
        raise DataError(f"no queries of split {split!r}: take one of {', '.join(SPLITS)}")
    if positions not in POSITIONS:
        raise DataError(f"no positions {positions!r}: take one of {', '.join(POSITIONS)}")
    n = np.diff(offsets)
    start, stop = (train_end, valid_end) if split == "valid" else (valid_end, n)
    first = np.maximum(start, 1)  # the history must not be empty
    if positions == "last":
        first = np.maximum(first, stop - 1)
    elif positions == "last-20-percent":
        first = np.maximum(first, -(-4 * n // 5))
    return np.minimum(first, stop), stop


def complete(
    known: Provenance,
    *,
    items: int,
    offsets: np.ndarray,
    train_end: np.ndarray,
    valid_end: np.ndarray,
    digest: str,
) -> Card:
    """The whole card of the arrays; `items` is V - 1."""
    n = np.diff(offsets)
    splits = {}
    for name, segment in (
        ("train", train_end),
        ("valid", valid_end - train_end),
        ("test", n - valid_end),
    ):
        queries = {}
        for positions in POSITIONS if name != "train" else ():
            first, stop = target_ranges(name, positions, offsets, train_end, valid_end)
            queries[positions] = int((stop - first).sum())
        splits[name] = Part(
            users=int((segment > 0).sum()), events=int(segment.sum()), queries=queries
        )
    return Card(
        **{f: getattr(known, f) for f in Provenance.__struct_fields__},
        users=len(n),
        items=items,
        events=int(offsets[-1]),
        lengths=Lengths(
            mean=float(n.mean()), median=float(np.median(n)), min=int(n.min()), max=int(n.max())
        ),
        splits=splits,
        digest=digest,
    )
