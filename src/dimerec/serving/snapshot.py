"""What is served: one immutable snapshot of a bundle, and its replacement by another.

A reload verifies every hash, opens, asks the golden queries, warms up, and then swaps one
reference. Work in flight keeps the snapshot it began with. Whatever fails on the way leaves the
old one serving.
"""

import logging
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dimerec import files
from dimerec.errors import BundleError, DataError, ServingError
from dimerec.recommender import Query, Recommendation
from dimerec.serving.engine import Engine, OpenIndex
from dimerec.serving.remote_index import IndexUnavailable
from dimerec.serving.wire import Answer
from dimerec.vocabulary import Id, Item

logger = logging.getLogger(__name__)
CURRENT = "CURRENT"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
HISTORY_UNAVAILABLE, MODEL_FAILED = "history-unavailable", "model-failed"
INDEX_UNAVAILABLE = "index-unavailable"


class BadName(ServingError):
    """A bundle's name that cannot be one, or that nothing goes by."""


class ReloadRunning(ServingError):
    """Another reload is under way."""


class Ask(msgspec.Struct, frozen=True):
    """A query, and what to ask in its place when nothing of its history is known."""

    query: Query
    context: list[Id] = []
    degraded: str | None = None


class Snapshot:
    """A verified, warmed-up bundle. Never changed, so every thread may use it.

    Attributes:
        name: of the bundle's directory.
        bundle: what was read.
        version: names the model in every answer: the start of the bundle's digest.
    """

    def __init__(self, path: Path, threads: int = 1, index: OpenIndex | None = None) -> None:
        """
        Args:
            threads: of the model.
            index: opens the index of the item vectors; without, it is the bundle's own.

        Raises:
            BundleError: not a bundle, a broken one, one whose answers are not its golden ones, or
                one whose index cannot be opened.
        """
        try:
            self._engine = Engine.open(path, index=index or "auto", threads=threads)
            self._engine.check_golden()
            self._engine.warm_up()
        except (DataError, IndexUnavailable) as e:
            raise BundleError(f"{path}: {e}") from e
        self.name = path.name
        self.bundle = self._engine.bundle
        self.version = self._engine.version

    def answer(self, asks: Sequence[Ask]) -> list[Answer | ServingError]:
        """An answer to each, by the history, the context, or popularity; an error for a query
        that cannot be answered. A model that fails on one fails on that one alone."""
        found = self._guarded([ask.query for ask in asks])
        again = [
            row
            for row, (ask, (result, _)) in enumerate(zip(asks, found, strict=True))
            if ask.context and isinstance(result, Recommendation) and result.source != "model"
        ]
        sources = ["context" if row in again else "model" for row in range(len(asks))]
        if again:
            replaced = [
                msgspec.structs.replace(asks[row].query, history=asks[row].context) for row in again
            ]
            for row, result in zip(again, self._guarded(replaced), strict=True):
                found[row] = result
        return [
            result
            if isinstance(result, ServingError)
            else Answer(
                items=result.items,
                scores=result.scores,
                source=source if result.source == "model" else result.source,
                degraded_reason=reason or ask.degraded,
                filled=result.filled,
                unknown=result.unknown,
            )
            for ask, source, (result, reason) in zip(asks, sources, found, strict=True)
        ]

    def similar(self, item: Id, n: int) -> tuple[list[Id], list[float]]:
        """The n items most like `item`, best first, and their scores.

        Raises:
            IndexUnavailable: the index does not answer.
            ServingError: no such item, or a model that cannot say.
        """
        found = self._engine.similar(item, n)
        return found.items, found.scores

    def describe(self, ids: Sequence[Id]) -> list[Item | None]:
        """What is known of each item; None for one that is not in the catalogue."""
        vocabulary, items = self.bundle.vocabulary, self.bundle.items
        parsed = (vocabulary.parse(id) if isinstance(id, str) else id for id in ids)
        return [items[n - 1] if n else None for n in vocabulary.numbers(parsed).tolist()]

    def _guarded(
        self, queries: Sequence[Query]
    ) -> list[tuple[Recommendation | ServingError, str | None]]:
        """The engine's answers, and why one is not what it should be."""
        try:
            answers = self._engine.recommend(queries)
            return [(a, self._failure(q, a)) for q, a in zip(queries, answers, strict=True)]
        except IndexUnavailable:
            return self._popular(queries)
        except ServingError as e:
            if len(queries) == 1:
                return [(e, None)]
        except Exception:
            if len(queries) == 1:
                logger.exception("the model failed on one query; popular items are answered")
                plain = msgspec.structs.replace(queries[0], history=[])
                return [(self._engine.recommend([plain])[0], MODEL_FAILED)]
        return [self._guarded([query])[0] for query in queries]

    def _popular(
        self, queries: Sequence[Query]
    ) -> list[tuple[Recommendation | ServingError, str | None]]:
        """Popular items without what was seen, where the index does not answer."""
        replace = msgspec.structs.replace
        plain = [
            replace(q, history=[], exclude=q.exclude + q.history if q.hide_seen else q.exclude)
            for q in queries
        ]
        reasons = [INDEX_UNAVAILABLE if any(self.describe(q.history)) else None for q in queries]
        return list(zip(self._engine.recommend(plain), reasons, strict=True))

    def _failure(self, query: Query, answer: Recommendation) -> str | None:
        """A model with vectors that gives nothing for a known history gave NaN."""
        if answer.source == "model" or not self.bundle.manifest.sizes.width:
            return None
        return MODEL_FAILED if any(self.describe(query.history)) else None


class Shelf:
    """Where bundles come from: one bundle, or a folder of bundles with a file `CURRENT`."""

    def __init__(self, path: Path, threads: int = 1, index: OpenIndex | None = None) -> None:
        """
        Args:
            path: a bundle, a run folder with one, or a folder of bundles with a file `CURRENT`.
            threads: of the model.
            index: see `Snapshot`.

        Raises:
            BundleError: none of these.
        """
        if (path / "bundle").is_dir():
            path = path / "bundle"
        self._path = path
        self._threads = threads
        self._index = index
        self._folder = (path / CURRENT).is_file()
        self._lock = threading.Lock()
        self.current = Snapshot(self._chosen(None), threads, index)

    def reload(self, name: str | None) -> tuple[Snapshot, Snapshot]:
        """Open the bundle called `name` (without: the one that is to be served, as it now is) and
        serve it from now on; returns the one before and the new one. Takes seconds: not for an
        event loop.

        Raises:
            BadName: no such bundle, or no name of one.
            ReloadRunning: another reload is under way.
            BundleError: it is broken. The old one goes on serving.
        """
        if not self._lock.acquire(blocking=False):
            raise ReloadRunning("another reload is under way; wait for it to end")
        try:
            began = time.monotonic()
            fresh = Snapshot(self._chosen(name), self._threads, self._index)
            if name is not None:
                files.write_file(self._path / CURRENT, name.encode() + b"\n")
            previous, self.current = self.current, fresh
            logger.info(
                "serving %s (%s) in place of %s, after %.1f s",
                *(fresh.version, fresh.name, previous.version, time.monotonic() - began),
            )
            return previous, fresh
        except OSError as e:
            raise BundleError(f"{self._path / CURRENT}: cannot be written ({e})") from e
        finally:
            self._lock.release()

    def _chosen(self, name: str | None) -> Path:
        if not self._folder:
            if name is None:
                return self._path
            raise BadName(
                f"one bundle is served, so there is none called {name[:80]!r}: leave the name out, "
                f"or serve a folder of bundles with a file {CURRENT}"
            )
        if name is None:
            try:
                name = (self._path / CURRENT).read_text("ascii").strip()
            except (OSError, UnicodeDecodeError) as e:
                raise BundleError(f"{self._path / CURRENT}: cannot be read ({e})") from e
        if not NAME.fullmatch(name):
            raise BadName(
                f"{name[:80]!r} cannot be the name of a bundle: up to 128 letters, digits, '.', "
                "'_' and '-', the first a letter or a digit"
            )
        path = self._path / name
        if path.is_symlink() or not path.is_dir():
            raise BadName(f"no bundle {name!r} in the folder that is served")
        return path
