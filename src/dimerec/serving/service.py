"""The service behind the routes: what it holds, and what it does with a decoded request."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from dimerec.errors import DimeRecError, ServingError, StoreUnavailable
from dimerec.recommender import Query
from dimerec.serving.access import Access, Principal
from dimerec.serving.admission import InFlight, Rates
from dimerec.serving.batcher import Batcher, Done
from dimerec.serving.calls import StoreCalls
from dimerec.serving.history import Event, HistoryStore, open_store
from dimerec.serving.metrics import Metrics
from dimerec.serving.remote_index import opener
from dimerec.serving.settings import Settings
from dimerec.serving.snapshot import HISTORY_UNAVAILABLE, Ask, Shelf, Snapshot
from dimerec.serving.wire import Answer, RecommendRequest, Timings
from dimerec.vocabulary import Id

logger = logging.getLogger(__name__)
T = TypeVar("T")
READERS, WRITERS = 4, 16


class NotReady(ServingError):
    """Why requests should go elsewhere."""


class Near(msgspec.Struct, frozen=True):
    """A question for items like one."""

    item: Id
    n: int


Work = tuple[Snapshot, "list[Ask] | Near"]
Result = list[Answer | ServingError] | tuple[list[Id], list[float]] | ServingError


class Service:
    """One bundle (or folder of bundles), one store of histories, one worker for the model."""

    def __init__(self, settings: Settings, bundle: Path) -> None:
        """
        Raises:
            BundleError: there is nothing to serve.
            ConfigError, StoreUnavailable: the store of histories cannot be opened.
        """
        self.settings = settings
        self.shelf = Shelf(bundle, settings.threads, opener(settings))
        self.store: HistoryStore = open_store(settings.store)
        limits = settings.limits
        self.access = Access(settings)
        self.rates = Rates(limits.burst)
        self.in_flight = InFlight(limits.in_flight)
        self.metrics = Metrics()
        self.batcher: Batcher[Work, Result] = Batcher(
            self._work, depth=limits.queue, size=limits.batch, patience=limits.deadline / 2
        )
        self.draining = False
        self.connections = 0
        self._reads = StoreCalls("read", READERS, limits.store)
        self._writes = StoreCalls("write", WRITERS, limits.deadline)
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="dimerec-reload")
        self.metrics.gauge("in_flight", lambda: self.in_flight.now)
        self.metrics.gauge("connections", lambda: self.connections)
        self.metrics.gauge("queue", lambda: self.batcher.waiting)
        self.metrics.gauge("ready", lambda: float(not self.reasons()))
        self._name_bundle()

    async def start(self) -> None:
        """Start the worker, in the event loop that will serve."""
        self.batcher.start()

    def close(self) -> None:
        """End the worker and the store; takes up to some seconds."""
        self.batcher.close()
        self._reads.close()
        self._writes.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
        self.store.close()

    def dead(self) -> list[str]:
        """What only a new process can mend."""
        out = []
        if not self.batcher.alive:
            out.append("the model's worker has ended")
        if self.batcher.busy_for() > self.settings.limits.stalled:
            out.append(f"the model has been at one batch for {self.batcher.busy_for():.0f} s")
        return out

    def reasons(self) -> list[str]:
        """Why requests should go elsewhere for now; the store is no reason."""
        out = self.dead()
        if self.draining:
            out.append("shutting down")
        if self.batcher.full:
            out.append(f"{self.batcher.waiting} queries wait for the model")
        return out

    async def recommend(
        self, requests: Sequence[RecommendRequest], principal: Principal, began: float
    ) -> tuple[list[Answer], Snapshot, Timings]:
        """An answer to each request, all by one snapshot.

        Args:
            began: when the request arrived, on the monotonic clock.

        Raises:
            ServingError: a request that cannot be answered.
            Overloaded, DeadlineExceeded: see `Batcher.submit`.
        """
        histories, degraded = await self._histories(requests, principal.tenant)
        read = time.monotonic()
        snapshot = self.shelf.current
        asks = [
            Ask(_query(request, history), request.context, degraded if request.user else None)
            for request, history in zip(requests, histories, strict=True)
        ]
        done = await self._submit((snapshot, asks), began)
        answers: list[Answer] = []
        for answer in done.result if isinstance(done.result, list) else []:
            if isinstance(answer, ServingError):
                raise answer
            answers.append(answer)
            self.metrics.answers.labels(answer.source, answer.degraded_reason or "").inc()
        return answers, snapshot, _timings(began, done, read - began)

    async def similar(
        self, item: Id, n: int, began: float
    ) -> tuple[list[Id], list[float], Snapshot, Timings]:
        """The n items most like `item`, with their scores.

        Raises:
            ServingError: no such item, or a model that cannot say.
        """
        snapshot = self.shelf.current
        done = await self._submit((snapshot, Near(item, n)), began)
        if not isinstance(done.result, tuple):
            raise done.result if isinstance(done.result, ServingError) else TypeError
        return *done.result, snapshot, _timings(began, done, 0.0)

    async def ingest(self, events: Sequence[Event], tenant: str) -> list[bool]:
        """True for each event stored now, False for one that was there; durable on return.

        Raises:
            StoreUnavailable, Overloaded: nothing may be relied upon; send them all again.
        """
        stored = await self._stored(
            "append", self._writes, lambda: self.store.append(tenant, events)
        )
        self.metrics.events.labels("stored").inc(sum(stored))
        self.metrics.events.labels("duplicate").inc(len(stored) - sum(stored))
        return stored

    async def history(self, user: str, tenant: str) -> list[Id]:
        """The newest items of a user, oldest first; StoreUnavailable."""
        limit = self.settings.limits.history
        return await self._stored("read", self._reads, lambda: self.store.read(tenant, user, limit))

    async def erase(self, user: str, tenant: str) -> int:
        """Forget a user; how many events that were. StoreUnavailable."""
        return await self._stored("erase", self._writes, lambda: self.store.erase(tenant, user))

    async def reload(self, name: str | None) -> tuple[Snapshot, Snapshot]:
        """Serve another bundle: see `Shelf.reload`."""
        loop = asyncio.get_running_loop()
        try:
            pair = await loop.run_in_executor(self._loader, self.shelf.reload, name)
        except DimeRecError as e:
            self.metrics.reloads.labels("refused").inc()
            logger.warning("the bundle was not reloaded: %s", e)
            raise
        self.metrics.reloads.labels("served").inc()
        self._name_bundle()
        return pair

    async def _histories(
        self, requests: Sequence[RecommendRequest], tenant: str
    ) -> tuple[list[list[Id]], str | None]:
        """The history to ask for each request, and why not the stored ones."""
        users = {str(r.user) for r in requests if r.user is not None}
        stored: dict[str, list[Id]] = {}
        degraded = None
        if users:
            limit = self.settings.limits.history
            try:
                stored = await self._stored(
                    "read",
                    self._reads,
                    lambda: {user: self.store.read(tenant, user, limit) for user in users},
                )
            except ServingError:
                degraded = HISTORY_UNAVAILABLE
        return [stored.get(str(r.user)) or r.history for r in requests], degraded

    async def _stored(self, operation: str, calls: StoreCalls, call: Callable[[], T]) -> T:
        try:
            return await calls.run(call)
        except ServingError as e:
            self.metrics.store_errors.labels(operation).inc()
            logger.warning("history store, %s: %s", operation, e)
            raise
        except Exception as e:
            self.metrics.store_errors.labels(operation).inc()
            logger.exception("history store, %s", operation)
            raise StoreUnavailable(f"the history store failed to {operation}") from e

    async def _submit(self, work: Work, began: float) -> Done[Result]:
        deadline = began + self.settings.limits.deadline
        done = await self.batcher.submit(work, deadline, _weight(work[1]))
        self.metrics.queued.observe(done.queued)
        return done

    def _work(self, batch: Sequence[Work]) -> list[Result]:
        """A batch, in the worker's thread."""
        began = time.monotonic()
        try:
            return _answers(batch)
        finally:
            self.metrics.worked.observe(time.monotonic() - began)
            self.metrics.batch.observe(sum(_weight(what) for _, what in batch))

    def _name_bundle(self) -> None:
        served = self.shelf.current
        self.metrics.serving(served.version, served.bundle.config.model)


def _query(request: RecommendRequest, history: list[Id]) -> Query:
    return Query(
        history=history,
        n=request.n,
        hide_seen=request.hide_seen,
        exclude=request.exclude,
        only=request.only,
        categories=request.categories,
        diversity=request.diversity,
        seed=request.seed,
    )


def _timings(began: float, done: Done, store: float) -> Timings:
    total = time.monotonic() - began
    return Timings(*(round(1000 * s, 3) for s in (total, store, done.queued, done.worked)))


def _weight(what: "list[Ask] | Near") -> int:
    return 1 if isinstance(what, Near) else len(what)


def _answers(batch: Sequence[Work]) -> list[Result]:
    """The model's work: asks of one snapshot in one go, whatever request they came with."""
    out: list[Result] = [[] for _ in batch]
    asked: dict[int, tuple[Snapshot, list[tuple[int, list[Ask]]]]] = {}
    for row, (snapshot, what) in enumerate(batch):
        if isinstance(what, Near):
            try:
                out[row] = snapshot.similar(what.item, what.n)
            except ServingError as e:
                out[row] = e
        else:
            asked.setdefault(id(snapshot), (snapshot, []))[1].append((row, what))
    for snapshot, rows in asked.values():
        answers = iter(snapshot.answer([ask for _, part in rows for ask in part]))
        for row, part in rows:
            out[row] = [next(answers) for _ in part]
    return out
