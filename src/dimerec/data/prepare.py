"""From an InteractionLog to a Dataset on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from dimerec.data import columns as cols
from dimerec.data import dataset as store
from dimerec.data import filters as flt
from dimerec.data import splits
from dimerec.data.card import Filter, Provenance
from dimerec.data.interactions import InteractionLog
from dimerec.data.metadata import describe
from dimerec.data.tables import open_table
from dimerec.errors import DataError
from dimerec.vocabulary import Id, Vocabulary


def prepare(
    log: InteractionLog,
    out: str | Path,
    *,
    protocol: str | splits.Protocol = "users-8-1-1",
    seed: int = 0,
    min_user_events: int = 2,
    min_item_events: int = 1,
    iterate: bool = True,
    items: Any = None,
    given: Mapping[Id, str] | Any = None,
    name: str | None = None,
    overwrite: bool = False,
) -> store.Dataset:
    """Filter `log`, number its ids, cut it by `protocol` and write the dataset `out`.

    Item numbers and user rows follow the sorted ids, so the order of the log's rows leaves no
    trace. The directory appears whole or not at all.

    Args:
        protocol: a name of `splits.PROTOCOLS`, or a `Protocol` with its own fractions or cuts.
        seed: of a protocol given by name.
        min_user_events, min_item_events: users and items with fewer events are dropped.
        iterate: repeat both until every user and item has enough (k-core); otherwise rare items
            go once, then short users once.
        items: table with an item id, and a title or categories (a list, or text separated by
            "|"), as a path or frame.
        given: for protocol "given", user ids with "train", "valid" or "test": a mapping, or a
            table with a user and a split column.
        name: of the dataset; the log's by default.
        overwrite: replace a dataset that stands at `out`.

    Raises:
        DataError: nothing usable is left, the protocol does not fit, or `out` must not be written.
    """
    out = Path(out)
    store.may_write(out, overwrite)
    if min_user_events < 1 or min_item_events < 1:
        raise DataError(
            f"users with under {min_user_events} and items with under {min_item_events} events "
            "cannot be dropped: give 1 (drops none) or more"
        )
    if isinstance(protocol, str):
        protocol = splits.Protocol(name=cast("splits.Name", protocol), seed=seed)
    user_ids, user_codes = _codes(log.frame["user"])
    item_ids, item_codes = _codes(log.frame["item"])
    kept, filters = _thinned(log, user_codes, item_codes, min_user_events, min_item_events, iterate)
    users, rows = _renumbered(user_ids, user_codes[kept])
    vocabulary, numbers = _renumbered(item_ids, item_codes[kept])
    numbers += 1
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)
    if log.timed:
        times = log.frame["time"].to_numpy()[kept]
    else:
        times = np.arange(len(rows), dtype=np.int64) - offsets[rows]
    known = Vocabulary(users.to_list())
    cut = splits.split(
        protocol, offsets=offsets, times=times, users=known, given=_parts(given, user_ids.dtype)
    )
    return store.write(
        out,
        vocabulary=Vocabulary(vocabulary.to_list()),
        users=known,
        offsets=offsets,
        items=numbers,
        times=times,
        train_end=cut.train_end,
        valid_end=cut.valid_end,
        metadata=None if items is None else describe(items, vocabulary),
        card=Provenance(
            name=name or log.name,
            protocol=cut.protocol,
            origin=log.report,
            filters=(*log.filters, *filters),
        ),
        overwrite=overwrite,
    )


def _codes(values: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Distinct `values`, sorted, and the index of each value among them, int32 `[N]`."""
    ids = values.unique().sort().alias("id")
    known = ids.to_frame().lazy().with_row_index("code")
    events = values.alias("id").to_frame().lazy()
    joined = events.join(known, on="id", how="left", maintain_order="left")
    codes = joined.select(pl.col("code").cast(pl.Int32)).collect(engine="streaming")
    return ids, codes["code"].to_numpy()


def _renumbered(ids: pl.Series, codes: np.ndarray) -> tuple[pl.Series, np.ndarray]:
    """The `ids` that `codes` still use, and the codes as indices among those, int32 `[N]`."""
    used = np.bincount(codes, minlength=len(ids)) > 0
    return ids.filter(pl.Series(used)), (np.cumsum(used, dtype=np.int32) - 1)[codes]


def _thinned(
    log: InteractionLog,
    users: np.ndarray,
    items: np.ndarray,
    min_user: int,
    min_item: int,
    iterate: bool,
) -> tuple[np.ndarray, list[Filter]]:
    """Which events stay, bool `[N]`, and the account."""
    keep = np.ones(len(users), bool)
    filters: list[Filter] = []
    rare = f"items with under {min_item} events"
    short = f"users with under {min_user} events"
    if iterate and min_user > 1 and min_item > 1:
        plan = [(f"{rare} and {short}, until stable", min_user, min_item)]
    else:
        plan = [(rare, 1, min_item), (short, min_user, 1)]
    for name, user, item in plan:
        if user == 1 and item == 1:
            continue
        at = np.flatnonzero(keep)
        stays = flt.core(users[at], items[at], user=user, item=item)
        gone = Filter(
            name=name,
            events_removed=int((~stays).sum()),
            users_removed=_distinct(users[at]) - _distinct(users[at[stays]]),
            items_removed=_distinct(items[at]) - _distinct(items[at[stays]]),
        )
        filters.append(gone)
        keep[at[~stays]] = False
        if not stays.any():
            if np.bincount(users).max() < 2 and min_item == 1 and not log.filters:
                raise DataError(
                    f"{log.name}: no user has 2 events, so there is no history to learn from; "
                    f"is {log.report.get('columns', {}).get('user', 'user')!r} the user column?"
                )
            start = len(log) + sum(f.events_removed for f in log.filters)
            raise flt.account(log.name, start, [*log.filters, *filters])
    return keep, filters


def _distinct(codes: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(codes)))


def _parts(given: Any, kind: Any) -> Mapping[Id, str] | None:
    if given is None or isinstance(given, Mapping):
        return given
    table = open_table(given)
    user = cols.first_alias(table.columns, cols.ALIASES["user"])
    part = cols.first_alias(table.columns, ["split", "part", "fold"])
    if user is None or part is None:
        raise DataError(
            f"{table.name}: a split file has a user column and a split column; "
            f"found: {', '.join(table.columns)}"
        )
    raw = table.read([user, part])
    ids = cols.ids(table, raw, user).cast(kind, strict=False)
    return dict(zip(ids.to_list(), raw[part].cast(pl.String).to_list(), strict=True))
