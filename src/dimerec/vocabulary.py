"""Vocabulary: outside `id` <-> inside `number`. The only place where the two meet."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from dimerec.errors import DataError

Id = int | str
PADDING = 0


class Vocabulary:
    """Ids of one kind (all integers or all strings); id number i stands at `ids[i - 1]`.

    Number 0 is padding and belongs to no id. New ids are appended, so numbers never change.
    """

    def __init__(self, ids: Sequence[Id]) -> None:
        self._ids: list[Id] = list(ids)
        kinds = {type(i) for i in self._ids}
        if kinds - {int, str} or len(kinds) > 1:
            names = ", ".join(sorted(k.__name__ for k in kinds))
            raise DataError(f"ids must be all integers or all strings, got {names}")
        self._numbers = {id: n for n, id in enumerate(self._ids, start=1)}
        if len(self._numbers) != len(self._ids):
            raise DataError("ids must be unique, but the list repeats some")

    def __len__(self) -> int:
        """How many ids there are, padding not counted."""
        return len(self._ids)

    def __contains__(self, id: object) -> bool:
        return id in self._numbers

    @property
    def size(self) -> int:
        """V: ids plus padding, the number of rows of a table indexed by number."""
        return len(self._ids) + 1

    @property
    def integer(self) -> bool:
        """Whether ids are integers (else strings)."""
        return bool(self._ids) and isinstance(self._ids[0], int)

    def parse(self, text: str) -> Id:
        """The id a person typed: an integer where ids are integers, the text otherwise."""
        try:
            return int(text) if self.integer else text
        except ValueError:
            return text

    def numbers(self, ids: Iterable[Id]) -> np.ndarray:
        """Numbers of `ids`, int64 `[n]`; 0 for an id not in the vocabulary."""
        get = self._numbers.get
        return np.array([get(i, PADDING) for i in ids], np.int64)

    def ids(self, numbers: Iterable[int] | np.ndarray) -> list[Id]:
        """Ids of `numbers` (each in 1..len); raises DataError on padding or out of range."""
        if not isinstance(numbers, np.ndarray):
            numbers = np.array(list(numbers), np.int64)
        if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= len(self._ids):
            wrong = next(n for n in numbers.tolist() if not 1 <= n <= len(self._ids))
            raise DataError(f"number {wrong} stands for no id (valid: 1..{len(self._ids)})")
        if self._integers is not None:
            return self._integers.take(numbers - 1).tolist()
        ids = self._ids
        return [ids[n - 1] for n in numbers.tolist()]

    @cached_property
    def _integers(self) -> np.ndarray | None:
        """Integer ids as int64 `[V - 1]`, quicker to look up; None where one does not fit."""
        if not self.integer:
            return None
        try:
            return np.array(self._ids, np.int64)
        except OverflowError:
            return None

    def grow(self, ids: Iterable[Id]) -> "Vocabulary":
        """A vocabulary with the unseen ones of `ids` appended in order; old numbers stay."""
        fresh = dict.fromkeys(i for i in ids if i not in self._numbers)
        return Vocabulary([*self._ids, *fresh])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the ids in order."""
        return hashlib.sha256(msgspec.json.encode(self._ids)).hexdigest()

    def write(self, path: Path) -> None:
        """Write the ids as a JSON list."""
        path.write_bytes(msgspec.json.encode(self._ids))

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Read what `write` wrote; raises DataError naming the file."""
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=list[int | str]))
        except (OSError, msgspec.DecodeError, DataError) as e:
            raise DataError(f"{path}: not a vocabulary ({e})") from e


class Item(msgspec.Struct, frozen=True, gc=False):
    """What is known of an item from outside: a title and categories, both optional."""

    title: str | None = None
    categories: tuple[str, ...] = ()
