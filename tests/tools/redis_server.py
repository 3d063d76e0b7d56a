"""A real redis-server for a test: its own port, its own folder, and it may be killed."""

import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


def _free_port() -> int:
    """One that no outgoing connection is given: it must be free again after a kill."""
    for port in random.Random().sample(range(20_000, 32_000), 100):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


class RedisServer:
    """`redis-server` on a free port, with its data in `folder`."""

    def __init__(self, folder: Path, *options: str) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("there is no redis-server here; Debian's package has one")
        self.port = _free_port()
        self.folder, self.options = folder, options or DURABLE
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        """Start it, again or for the first time; returns when it answers."""
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [*words, "--dir", str(self.folder), *self.options], stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self.command("PING") == "+PONG":
                    return
            except OSError:
                pass
            assert self._process.poll() is None, (self.folder / "log.txt").read_text()
            time.sleep(0.01)
        raise AssertionError("redis-server does not answer")

    def command(self, *words: str) -> str:
        """The first line of the answer to a command, over a socket of its own."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return connection.makefile().readline().strip()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
