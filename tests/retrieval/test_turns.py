"""Readers together, writers alone, and no writer waits for ever."""

import threading
import time

from dimerec.retrieval.turns import Turns

PATIENCE = 20


def test_readers_share_and_writers_do_not():
    turns = Turns()
    together = threading.Barrier(3, timeout=PATIENCE)
    inside, worst = [0], [0]

    def read():
        with turns.reading():
            together.wait()  # all three are inside at once, or this breaks

    def write():
        for _ in range(200):
            with turns.writing():
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    def mixed():
        for _ in range(200):
            with turns.reading():
                worst[0] = max(worst[0], 1 + inside[0])

    for work in ([read] * 3, [write, write, mixed, mixed]):
        threads = [threading.Thread(target=w) for w in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert worst == [1]


def test_a_writer_goes_before_readers_that_come_later():
    turns = Turns()
    order = []
    first_in, release = threading.Event(), threading.Event()

    def first():
        with turns.reading():
            first_in.set()
            release.wait(PATIENCE)
            order.append("first")

    def write():
        with turns.writing():
            order.append("write")

    def late():
        with turns.reading():
            order.append("late")

    threads = [threading.Thread(target=w) for w in (first, write, late)]
    threads[0].start()
    assert first_in.wait(PATIENCE)
    threads[1].start()
    while not turns._writers:
        time.sleep(0.001)
    threads[2].start()
    time.sleep(0.05)
    assert order == []
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert order == ["first", "write", "late"]


def test_an_error_inside_gives_the_turn_back():
    turns = Turns()
    for turn in (turns.reading, turns.writing):
        try:
            with turn():
                raise KeyError
        except KeyError:
            pass
    with turns.writing():
        pass
