"""Which items may come: allow-lists, categories, and the most popular of what is allowed.

All that costs a pass over the catalogue is done once, when a `Shelf` is made.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from dimerec.errors import DataError
from dimerec.retrieval.diversity import table
from dimerec.vocabulary import Item

MANY = 2**12  # up to so many allowed items are scored one by one; for more there is a bitmap
SHOWN = 12  # categories in a message
UNIONS = 256  # unions of categories that are remembered


class Allowed:
    """A set of item numbers, shared by all the rows that ask for it.

    Attributes:
        numbers: int64 `[m]`, ascending and distinct.
        size: V; the numbers are in 1..V-1.
        popular: the same numbers, most popular first, where that is known.
    """

    def __init__(self, numbers: np.ndarray, size: int, popular: np.ndarray | None = None) -> None:
        """`numbers` int64 `[x]`; those of no item and repeats are dropped."""
        distinct = np.unique(np.asarray(numbers, np.int64))
        self.numbers = distinct[(distinct > 0) & (distinct < size)]
        self.size = size
        self.popular = popular

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def bits(self) -> np.ndarray:
        """uint8 `[ceil(V / 8)]`: bit n % 8 of byte n // 8 is set where number n is allowed."""
        mask = np.zeros(self.size, bool)
        mask[self.numbers] = True
        return np.packbits(mask, bitorder="little")

    def mask(self, size: int) -> np.ndarray:
        """bool `[size]`, True where allowed; nothing is from V on."""
        bits = self.bits[: -(-size // 8)]
        out = np.zeros(size, bool)
        known = np.unpackbits(bits, count=min(size, 8 * len(bits)), bitorder="little")
        out[: len(known)] = known
        return out

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """bool `[m]`: which of the numbers `[m]`, none negative, are allowed."""
        byte = self.bits[np.minimum(numbers >> 3, len(self.bits) - 1)]
        return (byte >> (numbers & 7).astype(np.uint8) & 1).astype(bool) & (numbers < self.size)


def grouped(allow: Sequence[Allowed | None]) -> Iterator[tuple[np.ndarray, Allowed | None]]:
    """The rows that share one set, int64 `[r]`, with that set."""
    rows: dict[int, list[int]] = {}
    for row, allowed in enumerate(allow):
        rows.setdefault(id(allowed), []).append(row)
    for some in rows.values():
        yield np.array(some, np.int64), allow[some[0]]


class Shelf:
    """The catalogue by popularity and by category. Not changed by use."""

    def __init__(self, counts: np.ndarray, items: Sequence[Item] = ()) -> None:
        """
        Args:
            counts: float32 `[V]` training events of each item.
            items: V - 1 titles and categories; empty where no categories are known.

        Raises:
            DataError: items do not fit the counts.
        """
        if len(items) not in (0, len(counts) - 1):
            raise DataError(f"{len(items)} items, but counts of {len(counts) - 1}")
        self.size = len(counts)
        self.counts = np.asarray(counts, np.float32)
        self._order = 1 + np.argsort(-self.counts[1:], kind="stable")  # numbers, by rank
        self._rank = np.zeros(self.size, np.int64)
        self._rank[self._order] = np.arange(self.size - 1)
        self.table: np.ndarray | None = None  # int64 [V, G], see `diversity.table`
        self._categories: dict[str, Allowed] = {}
        if any(item.categories for item in items):
            self.table, names = table(items), _names(items)
            self._categories = dict(zip(names, self._members(self.table, len(names)), strict=True))
        self._union = lru_cache(UNIONS)(self._united)

    def named(self) -> str:
        """Some names of categories, for a message."""
        names = sorted(self._categories)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return ", ".join(names[:SHOWN]) + more

    def __contains__(self, category: str) -> bool:
        return category in self._categories

    def allowed(self, only: np.ndarray | None, categories: Sequence[str]) -> Allowed | None:
        """The items of `only` (numbers; None for all) that are in any of `categories`.

        Args:
            categories: known names; empty for all.

        Returns:
            The set; the very same object for the same categories. None where all may come.
        """
        inside = self._union(frozenset(categories)) if categories else None
        if only is None:
            return inside
        if inside is not None:
            only = only[inside.holds(only)]
        return Allowed(only, self.size)

    def popular(self, n: int, taken: np.ndarray, allowed: Allowed | None) -> np.ndarray:
        """The n most popular allowed items that are not `taken`, int64 `[<= n]`, best first.

        Of equally popular ones the smaller number comes first.
        """
        if allowed is None:
            first = self._order[: n + len(taken)]
        elif allowed.popular is not None:
            first = allowed.popular[: n + len(taken)]
        else:
            first = self._order[np.sort(self._rank[allowed.numbers])]
        return first[~np.isin(first, taken)][:n]

    def _members(self, categories: np.ndarray, count: int) -> list[Allowed]:
        """The items of each category 1.., from the table of categories."""
        ranked = categories[self._order]  # [V - 1, G]
        held = ranked.ravel().argsort(kind="stable")
        ends = np.bincount(ranked.ravel(), minlength=count + 1).cumsum()
        parts = np.split(self._order[held // ranked.shape[1]], ends[:-1])[1:]
        return [self._made(part) for part in parts]

    def _united(self, names: frozenset[str]) -> Allowed:
        if len(names) == 1:
            return self._categories[next(iter(names))]
        numbers = np.concatenate([self._categories[name].numbers for name in names])
        return self._made(self._order[np.unique(self._rank[numbers])])

    def _made(self, popular: np.ndarray) -> Allowed:
        popular = popular[np.sort(np.unique(popular, return_index=True)[1])]  # an item's repeats
        allowed = Allowed(popular, self.size, popular)
        if len(allowed) > MANY:
            _ = allowed.bits  # made now, not by the first that asks
        return allowed


def _names(items: Sequence[Item]) -> list[str]:
    """Category names in the order of their numbers in `diversity.table`."""
    return list(dict.fromkeys(name for item in items for name in item.categories))
