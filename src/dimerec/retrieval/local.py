"""An index in this process: its item vectors, which of them are gone, and its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from dimerec.errors import DataError
from dimerec.retrieval import RetrievalIndex, checked, storage
from dimerec.retrieval.filters import Allowed

VECTORS, GONE = "vectors.npy", "gone.npy"
ROOM = 1.25  # a table that grows gets so many times the rows it needs


class LocalIndex(RetrievalIndex):
    """Base of the indexes that hold their item vectors.

    Attributes:
        vectors: float32 `[V, d]`. The caller's own array until the first change.
        gone: int64 `[g]`, ascending: numbers under V that are no items now.
    """

    kind: ClassVar[str]

    def __init__(self, vectors: np.ndarray, gone: np.ndarray | None = None) -> None:
        super().__init__()
        self._table, self._owned = vectors, False  # the table may have spare rows at its end
        self.vectors = vectors
        self.size, self.width = vectors.shape
        self.gone = np.zeros(0, np.int64) if gone is None else gone
        self._file: Path | None = None  # what it is mapped from

    @classmethod
    def build(cls, vectors: np.ndarray) -> Self:
        """An index of float32 `[V, d]`, kept as they are, without a copy where possible."""
        return cls(checked(vectors))

    def save(self, path: str | Path) -> None:
        """Write the index to the directory `path`, whole or not at all; replaces one there.

        Raises:
            DataError: something else stands there, or the disk refuses.
        """
        with self._turns.reading():
            storage.write(path, self.kind, self.digest, self._settings(), self._files())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the item vectors and of which are gone."""
        return storage.digest(self.vectors, self.gone)

    @property
    def items(self) -> int:
        """How many items there are."""
        return self.size - 1 - len(self.gone)

    def _count(self, allowed: Allowed | None) -> int:
        """How many of the allowed items there are."""
        if allowed is None:
            return self.items
        return (
            len(allowed) - int(allowed.holds(self.gone).sum()) if len(self.gone) else len(allowed)
        )

    def _add(self, numbers: np.ndarray, vectors: np.ndarray) -> None:
        self._changeable()
        size = max(self.size, int(numbers[-1]) + 1)
        if not self._owned or size > len(self._table):
            rows = size if size <= len(self._table) else int(ROOM * size)
            table = np.zeros((rows, self.width), np.float32)
            table[: self.size] = self.vectors
            self._table, self._owned = table, True
        self._table[numbers] = vectors
        gaps = np.arange(self.size, size)
        self.gone = np.setdiff1d(np.concatenate([self.gone, gaps]), numbers)
        self.vectors, self.size = self._table[:size], size

    def _remove(self, numbers: np.ndarray) -> None:
        self._changeable()
        self.gone = np.union1d(self.gone, numbers)

    def _changeable(self) -> None:
        if self._file is not None:
            raise DataError(
                f"this index is mapped from {self._file}, so it cannot be changed; load it with "
                "mmap=False"
            )

    def _settings(self) -> dict[str, int | str]:
        """What `_load` needs besides the vectors."""
        return {}

    def _files(self) -> dict[str, storage.Writer]:
        """What writes each file of the index."""
        return {
            VECTORS: lambda file: np.save(file, self.vectors, allow_pickle=False),
            GONE: lambda file: np.save(file, self.gone, allow_pickle=False),
        }

    @classmethod
    def _load(cls, path: Path, settings: Mapping[str, int | str], mmap: bool) -> Self:
        """The index of verified files."""
        built = cls(*cls._arrays(path, mmap))
        built._file = path if mmap else None
        return built

    @staticmethod
    def _arrays(path: Path, mmap: bool) -> tuple[np.ndarray, np.ndarray]:
        # "c": torch wants writable memory; what was never written stays shared with the file. A
        # plain array over it, for every part of a memmap is made a memmap, which takes its time.
        vectors = np.load(path / VECTORS, mmap_mode="c" if mmap else None, allow_pickle=False)
        return vectors.view(np.ndarray), np.load(path / GONE, allow_pickle=False)
