"""A store that hangs or fails is asked less and less, and the event loop never waits for it."""

import asyncio
import threading
import time

import pytest

from dimerec.errors import StoreUnavailable
from dimerec.serving.calls import FAILURES, PAUSE, StoreCalls


def fails():
    raise StoreUnavailable("down")


def test_results_and_errors_come_back():
    async def main():
        calls = StoreCalls("read", 2, 1.0)
        assert await calls.run(lambda: 5) == 5
        with pytest.raises(StoreUnavailable, match="down"):
            await calls.run(fails)
        with pytest.raises(KeyError):
            await calls.run(lambda: {}["x"])
        assert await calls.run(lambda: 6) == 6
        calls.close()

    asyncio.run(main())


def test_a_store_that_hangs_holds_nobody_up(figure):
    gate = threading.Event()
    now = [0.0]

    async def main():
        calls = StoreCalls("read", 2, 0.05, lambda: now[0])
        began = time.monotonic()
        many = [calls.run(lambda: gate.wait(10)) for _ in range(40)]
        results = await asyncio.gather(*many, return_exceptions=True)
        seconds = time.monotonic() - began
        assert seconds < 5
        assert all(isinstance(r, StoreUnavailable) for r in results)
        words = [str(r) for r in results]
        assert sum("took more than 0.05 s" in w for w in words) == 10  # two threads, eight wait
        assert sum("wait already" in w for w in words) == 5
        unasked = sum("in a row" in w for w in words)
        assert unasked == 25  # not even asked
        figure(
            f"{len(words)} calls of a store that hangs: over in {seconds:.2f} s, {unasked} unasked"
        )
        gate.set()
        while calls._pending:
            await asyncio.sleep(0.01)
        now[0] += PAUSE
        assert await calls.run(lambda: "well") == "well"
        calls.close()

    asyncio.run(main())


def test_after_failures_in_a_row_it_is_left_alone_for_a_moment():
    now = [0.0]
    asked = []

    def ask():
        asked.append(now[0])
        fails()

    async def main():
        calls = StoreCalls("read", 1, 1.0, lambda: now[0])
        for _ in range(FAILURES + 20):
            with pytest.raises(StoreUnavailable):
                await calls.run(ask)
        assert len(asked) == FAILURES
        now[0] += PAUSE
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await calls.run(ask)
        assert len(asked) == FAILURES + 1  # one look a pause, while it stays down
        now[0] += PAUSE
        assert await calls.run(lambda: 1) == 1
        with pytest.raises(StoreUnavailable):
            await calls.run(ask)
        assert await calls.run(lambda: 2) == 2
        calls.close()

    asyncio.run(main())
