"""Dataset: the memory-mapped store of a prepared log, and its writing."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from dimerec import files
from dimerec.data import card as cards
from dimerec.data.card import Card, Provenance
from dimerec.data.queries import Queries
from dimerec.errors import DataError
from dimerec.vocabulary import Item, Vocabulary

if TYPE_CHECKING:
    from dimerec.model import Catalogue

DTYPES = {
    "offsets": np.dtype("<i8"),
    "items": np.dtype("<i4"),
    "times": np.dtype("<i8"),
    "train_end": np.dtype("<i8"),
    "valid_end": np.dtype("<i8"),
}


class Dataset:
    """A prepared log on disk, opened by memory map; made by `Dataset.open`.

    Attributes:
        path: its directory.
        card: counts, origin, filters, protocol.
        vocabulary, users: item ids and user ids; user row r has number r + 1.
        offsets: int64 `[U+1]`; the events of row r are `[offsets[r], offsets[r+1])`.
        items: int32 `[N]`, item numbers from 1.
        times: int64 `[N]`, Unix seconds, or positions inside the user where no times are known.
        train_end, valid_end: int64 `[U]`, boundaries inside the user (see `data.splits`).
    """

    def __init__(
        self,
        path: Path,
        card: Card,
        vocabulary: Vocabulary,
        users: Vocabulary,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self.path = path
        self.card = card
        self.vocabulary = vocabulary
        self.users = users
        self.offsets = arrays["offsets"]
        self.items = arrays["items"]
        self.times = arrays["times"]
        self.train_end = arrays["train_end"]
        self.valid_end = arrays["valid_end"]

    @classmethod
    def open(cls, path: str | Path) -> "Dataset":
        """Open and check a dataset; the events stay on disk.

        Raises:
            DataError: a file is missing, broken or of another version, or breaks a promise
                (shape, order, range); the message names the file.
        """
        path = Path(path)
        if not path.is_dir():
            raise DataError(f"{path}: no dataset directory there; `dimerec prepare` makes one")
        card = cards.read(path / "card.json")
        vocabulary = Vocabulary.read(path / "vocabulary.json")
        users = Vocabulary.read(path / "users.json")
        arrays = {name: _map(path / f"{name}.npy", dtype) for name, dtype in DTYPES.items()}
        _check(arrays, len(users), len(vocabulary), path)
        return cls(path, card, vocabulary, users, arrays)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the arrays, boundaries and ids, as the card states it."""
        return self.card.digest

    def verify(self) -> None:
        """Read everything once more and compare with the digest of the card.

        Raises:
            DataError: the files are not those that were written.
        """
        arrays = {name: getattr(self, name) for name in DTYPES}
        if fingerprint(self.vocabulary, self.users, arrays) != self.digest:
            raise DataError(f"{self.path}: its files differ from card.json's digest: prepare again")

    def metadata(self) -> list[Item]:
        """Titles and categories, V - 1 of them, in number order."""
        path = self.path / "items.json"
        try:
            items = msgspec.json.decode(path.read_bytes(), type=list[Item])
        except (OSError, msgspec.DecodeError) as e:
            raise DataError(f"{path}: not a list of items ({e})") from e
        if len(items) != len(self.vocabulary):
            raise DataError(
                f"{path}: {len(items)} items, but the vocabulary has {len(self.vocabulary)}"
            )
        return items

    def segment(self, split: Literal["train", "valid", "test"]) -> np.ndarray:
        """bool `[N]`: which events belong to the training, validation or test segments."""
        start, n = self.offsets[:-1], np.diff(self.offsets)
        bounds = {
            "train": (0, self.train_end),
            "valid": (self.train_end, self.valid_end),
            "test": (self.valid_end, n),
        }
        low, high = bounds[split]
        edges = np.zeros(len(self.items) + 1, np.int8)
        np.add.at(edges, start + low, np.int8(1))
        np.add.at(edges, start + high, np.int8(-1))
        return np.cumsum(edges[:-1], dtype=np.int8).astype(bool)

    def counts(self) -> np.ndarray:
        """float32 `[V]`: training events of each item; 0 for padding."""
        items = self.items[self.segment("train")]
        return np.bincount(items, minlength=self.vocabulary.size).astype(np.float32)

    def catalogue(self, length: int) -> "Catalogue":
        """What a model may know of the data before training; `length` is L."""
        import torch

        from dimerec.model import Catalogue

        return Catalogue(self.vocabulary.size, length, torch.from_numpy(self.counts()))

    def queries(self, split: str, positions: str, limit: int = 0) -> Queries:
        """The queries of `split` ("valid" or "test") at `positions`, by row, then position.

        `positions` is "every-position", "last" or "last-20-percent"; a `limit` above 0 keeps at
        most that many, evenly spread over the whole list.

        Raises:
            DataError: no such split or choice of positions.
        """
        first, stop = cards.target_ranges(
            split, positions, self.offsets, self.train_end, self.valid_end
        )
        ends = np.cumsum(stop - first)  # queries up to and with each row
        total = int(ends[-1])
        kept = np.arange(min(total, limit) if limit else total)
        if len(kept) < total:
            kept = kept * total // len(kept)
        rows = np.searchsorted(ends, kept, side="right")
        return Queries(
            items=self.items,
            offsets=self.offsets,
            rows=rows,
            positions=kept - ends[rows] + stop[rows],
        )


def write(
    path: str | Path,
    *,
    vocabulary: Vocabulary,
    users: Vocabulary,
    offsets: np.ndarray,
    items: np.ndarray,
    times: np.ndarray,
    train_end: np.ndarray,
    valid_end: np.ndarray,
    card: Provenance | Mapping[str, Any],
    metadata: Sequence[Item] | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset, whole or not at all, and open it.

    The arrays are those of `Dataset`; `card` holds what only the caller knows, the counts and
    the digest are added here. Without `metadata` no item has a title.

    Raises:
        DataError: the arrays break a promise, or `path` exists and is not to be overwritten (or
            is not a dataset).
    """
    path = Path(path)
    may_write(path, overwrite)
    given = {"offsets": offsets, "items": items, "times": times}
    given |= {"train_end": train_end, "valid_end": valid_end}
    arrays = {n: np.ascontiguousarray(a, dtype=DTYPES[n]) for n, a in given.items()}
    _check(arrays, len(users), len(vocabulary), path)
    titles = [Item()] * len(vocabulary) if metadata is None else list(metadata)
    if len(titles) != len(vocabulary):
        raise DataError(f"{path}: {len(titles)} items described, {len(vocabulary)} in the log")
    whole = cards.complete(
        msgspec.convert(msgspec.to_builtins(card), Provenance),
        items=len(vocabulary),
        offsets=arrays["offsets"],
        train_end=arrays["train_end"],
        valid_end=arrays["valid_end"],
        digest=fingerprint(vocabulary, users, arrays),
    )
    with files.new_directory(path) as new:
        for name, array in arrays.items():
            np.save(new / f"{name}.npy", array, allow_pickle=False)
        vocabulary.write(new / "vocabulary.json")
        users.write(new / "users.json")
        (new / "items.json").write_bytes(msgspec.json.encode(titles))
        content = msgspec.json.format(msgspec.json.encode(whole), indent=2)
        (new / "card.json").write_bytes(content)
    return Dataset.open(path)


def may_write(path: Path, overwrite: bool) -> None:
    """DataError when a dataset must not be written to `path`: something stands there."""
    if not path.exists():
        return
    if not overwrite:
        raise DataError(f"{path} exists already: choose another path, or overwrite it")
    if not (path / "card.json").is_file():
        raise DataError(f"{path} exists and is no dataset: it is not overwritten; remove it first")


def fingerprint(vocabulary: Vocabulary, users: Vocabulary, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over the ids and the five arrays."""
    digest = hashlib.sha256(f"{vocabulary.fingerprint} {users.fingerprint}".encode())
    for name, dtype in DTYPES.items():
        digest.update(f" {name} {len(arrays[name])} ".encode())
        digest.update(np.ascontiguousarray(arrays[name], dtype=dtype).data)
    return digest.hexdigest()


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"{path}: not a readable array ({e}): prepare the dataset again") from e
    if array.ndim != 1 or array.dtype != dtype:
        raise DataError(f"{path}: {array.dtype} {array.shape}, expected one row of {dtype}")
    return np.asarray(array)  # still the map, without the subclass's cost for every index


def _check(arrays: Mapping[str, np.ndarray], users: int, items: int, path: Path) -> None:
    offsets, numbers = arrays["offsets"], arrays["items"]

    def fail(name: str, what: str) -> None:
        raise DataError(f"{path / name}.npy: {what}")

    if users == 0 or items == 0 or len(numbers) == 0:
        raise DataError(f"{path}: {users} users, {items} items, {len(numbers)} events: empty")
    for name, length in (
        ("offsets", users + 1),
        ("times", len(numbers)),
        ("train_end", users),
        ("valid_end", users),
    ):
        if len(arrays[name]) != length:
            fail(name, f"{len(arrays[name])} entries, expected {length}")
    n = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(numbers):
        fail("offsets", f"runs {offsets[0]}..{offsets[-1]}, expected 0..{len(numbers)}")
    if n.min() < 1:
        fail("offsets", f"user row {int(n.argmin())} has {n.min()} events, expected one or more")
    if numbers.min() < 1 or numbers.max() > items:
        fail("items", f"numbers {numbers.min()}..{numbers.max()}, expected within 1..{items}")
    train_end, valid_end = arrays["train_end"], arrays["valid_end"]
    # (0, 0) is a test user; otherwise 0 <= train_end <= valid_end <= n
    wrong = (train_end < 0) | (valid_end < train_end) | (valid_end > n)
    if wrong.any():
        row = int(wrong.argmax())
        fail(
            "train_end" if train_end[row] < 0 else "valid_end",
            f"user row {row} is cut at {train_end[row]}, {valid_end[row]} of {n[row]} events",
        )
