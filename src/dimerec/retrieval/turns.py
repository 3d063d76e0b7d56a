"""Many may read at once; one that changes things waits for them, and they for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock for readers and writers. A waiting writer goes before readers that come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0  # waiting or at work

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Among other readers. Not to be nested: a writer may wait between the two."""
        with self._changed:
            while self._writers:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers and self._writers:
                    self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone."""
        with self._changed:
            self._writers += 1
            try:
                while self._readers:
                    self._changed.wait()
                yield  # holding the condition keeps readers and other writers out
            finally:
                self._writers -= 1
                self._changed.notify_all()
