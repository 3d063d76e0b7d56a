"""Write events into a store until done or killed, saying what was acknowledged as it happens.

`python -m tests.tools.history_writer URL ROUND THREADS COUNT`: each thread appends COUNT batches
of three events, one each of three users, and prints `ok ROUND THREAD NUMBER` after each; what the
store refused is printed as `no MESSAGE` and tried again.
`python -m tests.tools.history_writer URL steps`: does STEPS, printing the number of each when it
is done, and closes the store.
"""

import os
import sys
import threading
import time

from dimerec.errors import ServingError
from dimerec.serving.history import Event, HistoryStore, open_store

USERS = ("a", "b", "c")
STEPS: list[list[Event] | str] = [
    [Event("u", 1, 1, "1"), Event("v", 2, 2, "2")],
    [Event("u", 3, 1, "3"), Event("u", 9, 1, "1")],
    "u",
    [Event("u", 4, 0, "4"), *(Event("v", n, n, f"v{n}") for n in range(10, 300))],
    "v",
    [Event("v", 5, 5, "5")],
]


def batch(round: str, thread: int, number: int) -> list[Event]:
    return [Event(user, number, number, f"{round}-{thread}-{number}-{user}") for user in USERS]


def do(store: HistoryStore, step: list[Event] | str) -> None:
    """Append the events, or erase the user."""
    if isinstance(step, str):
        store.erase("t", step)
    else:
        store.append("t", step)


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write: lines of threads do not mix, none is buffered


def append(store: HistoryStore, round: str, thread: int, count: int) -> None:
    for number in range(count):
        while True:
            try:
                store.append("t", batch(round, thread, number))
                break
            except ServingError as e:
                say(f"no {e}")
                time.sleep(0.02)
        say(f"ok {round} {thread} {number}")


def main() -> None:
    url, round, *rest = sys.argv[1:]
    store = open_store(url)
    say("open")
    if round == "steps":
        for number, step in enumerate(STEPS, start=1):
            do(store, step)
            say(str(number))
    else:
        threads, count = map(int, rest)
        writers = [
            threading.Thread(target=append, args=(store, round, n, count)) for n in range(threads)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    store.close()
    say("closed")


if __name__ == "__main__":
    main()
