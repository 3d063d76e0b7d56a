"""The batcher under a clock that the test turns: what runs, in which order, and what never does."""

import asyncio
import math
import threading
from collections.abc import Callable, Sequence

import pytest

from dimerec.errors import DeadlineExceeded, Overloaded
from dimerec.serving.batcher import Batcher, Done, WorkerGone

SOON = 5.0  # real seconds that a test waits at most


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Work that a test holds up: each batch waits until it is let through."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.began = threading.Semaphore(0)
        self.through = threading.Semaphore(0)

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.began.release()
        assert self.through.acquire(timeout=SOON)
        if "fault" in items:
            raise ValueError("a fault")
        if "end" in items:
            raise SystemExit
        return [item.upper() for item in items]


class Setting:
    def __init__(self, depth: int, size: int, patience: float) -> None:
        self.clock = Clock()
        self.model = Model()
        self.batcher: Batcher[str, str] = Batcher(
            self.model, depth=depth, size=size, patience=patience, clock=self.clock
        )

    def ask(self, item: str, seconds: float = 60.0, weight: int = 1) -> "asyncio.Task[Done[str]]":
        return asyncio.ensure_future(self.batcher.submit(item, self.clock.now + seconds, weight))

    async def busy(self) -> "asyncio.Task[Done[str]]":
        """A first request that the worker has begun and is held up at."""
        while self.model.began.acquire(blocking=False):
            pass  # of batches before, that nobody asked about
        task = self.ask("first")
        await asyncio.sleep(0)
        assert await asyncio.to_thread(self.model.began.acquire, timeout=SOON)
        return task

    def let(self, batches: int) -> None:
        for _ in range(batches):
            self.model.through.release()


def run(test: Callable, depth: int = 4, size: int = 4, patience: float = math.inf) -> Setting:
    """Run the coroutine function `test` with a started batcher."""
    setting = Setting(depth, size, patience)

    async def main() -> None:
        setting.batcher.start()
        try:
            async with asyncio.timeout(4 * SOON):
                await test(setting)
        finally:
            setting.let(100)
            await asyncio.to_thread(setting.batcher.close)

    asyncio.run(main())
    return setting


def test_an_idle_worker_takes_a_request_at_once():
    async def test(s: Setting) -> None:
        s.let(1)
        done = await s.ask("one")
        assert (done.result, done.batch, done.queued) == ("ONE", 1, 0.0)

    assert run(test).model.batches == [["one"]]


def test_batches_form_while_the_worker_is_busy_and_keep_the_order():
    async def test(s: Setting) -> None:
        first = await s.busy()
        rest = [s.ask(name) for name in "abcdef"]
        await asyncio.sleep(0)
        assert s.batcher.waiting == 6
        s.let(3)
        assert [(await task).result for task in rest] == list("ABCDEF")
        assert (await first).result == "FIRST"
        assert [(await task).batch for task in rest] == [4, 4, 4, 4, 2, 2]

    assert run(test, depth=6).model.batches == [["first"], list("abcd"), list("ef")]


def test_expired_work_is_never_computed(figure):
    expired = []

    async def test(s: Setting) -> None:
        first = await s.busy()
        short, long, shorter = s.ask("short", 2.0), s.ask("long", 9.0), s.ask("shorter", 1.0)
        await asyncio.sleep(0)
        s.clock.now += 2.0  # exactly the deadline is too late
        s.let(2)
        for name, task in (("short", short), ("shorter", shorter)):
            with pytest.raises(DeadlineExceeded):
                await task
            expired.append(name)
        assert (await long).result == "LONG"
        assert (await long).queued == 2.0
        # what was under way when its time came was worked on, and is answered
        assert (await first).result == "FIRST"

    batches = run(test).model.batches
    assert batches == [["first"], ["long"]]
    computed = [name for batch in batches for name in batch]
    vain = len(set(expired) & set(computed))
    figure(f"{len(expired)} past their deadline, {vain} of them among the {len(computed)} computed")


def test_a_deadline_that_has_passed_is_refused_at_the_door():
    async def test(s: Setting) -> None:
        with pytest.raises(DeadlineExceeded):
            await s.ask("late", 0.0)
        with pytest.raises(DeadlineExceeded):
            await s.ask("later", -1.0)
        assert s.batcher.waiting == 0

    assert run(test).model.batches == []


def test_nobody_waits_past_the_deadline_for_a_worker_that_hangs():
    async def test(s: Setting) -> None:
        first = await s.busy()
        waiting = s.ask("waiting", 0.05)  # the event loop's own timer, in real seconds
        with pytest.raises(DeadlineExceeded):
            await waiting
        assert not first.done()
        s.clock.now += 31
        assert s.batcher.busy_for() == 31
        s.let(2)
        await first

    # given up, it is not computed, although the turned clock would allow it
    assert run(test).model.batches == [["first"]]


def test_the_queue_is_bounded_by_weight():
    async def test(s: Setting) -> None:
        first = await s.busy()
        kept = [s.ask("a", weight=3), s.ask("b")]
        await asyncio.sleep(0)
        assert s.batcher.full
        with pytest.raises(Overloaded):
            await s.ask("c")
        s.let(9)
        assert [(await task).result for task in kept] == ["A", "B"]
        assert not s.batcher.full
        await first
        assert (await s.ask("c")).result == "C"

    run(test)


def test_no_more_may_wait_than_the_latest_pace_works_off_in_time():
    async def test(s: Setting) -> None:
        for seconds in (3.0, 3.0, 0.0):  # a batch; the pace is an average of the latest ones
            first = await s.busy()
            s.clock.now += seconds
            s.let(1)
            await first
        pace = 0.2 * (3 + 0.8 * 3) * 0.8
        first = await s.busy()
        room = int(2 * 2.5 / pace)  # batches of two, and 2.5 seconds of patience
        assert 2 < room < 9
        kept = [s.ask(str(number)) for number in range(room)]
        await asyncio.sleep(0)
        assert s.batcher.full and s.batcher.waiting == room
        with pytest.raises(Overloaded):
            await s.ask("one too many")
        s.clock.now += 40 * pace  # so slow that one batch is already too much; it may wait
        s.let(1 + (room + 1) // 2)
        await asyncio.gather(*kept, first)
        first = await s.busy()
        kept = [s.ask("a"), s.ask("b")]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await s.ask("c")
        s.let(9)
        await asyncio.gather(*kept, first)

    run(test, depth=99, size=2, patience=2.5)


def test_what_weighs_more_than_a_batch_goes_alone_and_what_does_not_fit_waits():
    async def test(s: Setting) -> None:
        first = await s.busy()
        tasks = [s.ask("a", weight=2), s.ask("b", weight=3), s.ask("c", weight=9), s.ask("d")]
        s.let(5)
        await asyncio.gather(first, *tasks)

    assert run(test, depth=99).model.batches == [["first"], ["a"], ["b"], ["c"], ["d"]]


def test_more_than_the_depth_is_taken_when_nothing_waits():
    async def test(s: Setting) -> None:
        s.let(1)
        assert (await s.ask("large", weight=50)).result == "LARGE"

    run(test)


def test_a_failure_is_that_batch_and_no_other():
    async def test(s: Setting) -> None:
        first = await s.busy()
        bad = s.ask("fault")
        s.let(2)
        with pytest.raises(ValueError, match="a fault"):
            await bad
        s.let(1)
        assert (await s.ask("next")).result == "NEXT"
        assert s.batcher.alive
        await first

    run(test)


def test_when_the_worker_ends_everything_that_waits_is_told():
    async def test(s: Setting) -> None:
        first = await s.busy()
        tasks = [s.ask("end"), s.ask("x", weight=4)]
        s.let(2)
        for task in tasks:
            with pytest.raises(WorkerGone):
                await task
        await first
        with pytest.raises(WorkerGone):
            await s.ask("after")
        assert not s.batcher.alive
        assert s.batcher.waiting == 0

    run(test, depth=9)


def test_closing_ends_the_batch_at_hand_and_refuses_the_rest():
    async def test(s: Setting) -> None:
        first = await s.busy()
        waiting = s.ask("waiting")
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(s.batcher.close))
        await asyncio.sleep(0.05)
        s.let(1)
        assert (await first).result == "FIRST"
        with pytest.raises(WorkerGone):
            await waiting
        await closing
        assert not s.batcher.alive

    assert run(test).model.batches == [["first"]]


def test_a_cancelled_request_is_not_computed():
    async def test(s: Setting) -> None:
        first = await s.busy()
        gone, stays = s.ask("gone"), s.ask("stays")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        s.let(2)
        await stays
        await first

    assert run(test).model.batches == [["first"], ["stays"]]
