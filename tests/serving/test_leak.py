"""No leak: memory, descriptors and threads after many requests and reloads."""

import http.client
import json
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.serving.servers import Server, serving, token, token_settings

REQUESTS, RELOADS, THREADS = 100_000, 20, 4
BODY = json.dumps({"history": ["item 3", "item 9"], "user": "leak", "n": 10})


def load(server: Server, count: int) -> None:
    host, port = server.address
    headers = {"content-type": "application/json", "authorization": f"Bearer {token('all')}"}

    def run() -> None:
        connection = http.client.HTTPConnection(host, port)
        for turn in range(count // THREADS):
            if turn % 500 == 499:
                connection.close()  # connections come and go
            connection.request("POST", "/v1/recommend", BODY, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def open_files(process: psutil.Process, before: list[int]) -> int:
    """Descriptors, when the server has had time to see that the connections are closed."""
    end, found = time.monotonic() + 2, process.num_fds()
    while found > (before[0] if before else 0) and time.monotonic() < end:
        time.sleep(0.05)
        found = min(found, process.num_fds())
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_grows(shelf: Path, tmp_path: Path, figure):
    (tmp_path / "s.toml").write_text(token_settings("all", ["read", "admin"]))
    words = ("--settings", tmp_path / "s.toml", "--store", f"sqlite:///{tmp_path / 'h.db'}")
    with serving(shelf, *words, "--set", "drain=0") as server:
        process = psutil.Process(server.process.pid)
        headers = {"authorization": f"Bearer {token('all')}"}

        def reload(turn: int) -> None:
            body = {"bundle": ("one", "two")[turn % 2]}
            server.ask("/v1/reload", body, headers=headers)

        for turn in range(4):  # warm: allocators, threads, caches
            reload(turn)
            load(server, REQUESTS // 50)
        memory, descriptors, threads = [], [], []
        for turn in range(RELOADS):
            reload(turn)
            load(server, REQUESTS // RELOADS)
            memory.append(process.memory_info().rss / 2**20)
            descriptors.append(open_files(process, descriptors))
            threads.append(process.num_threads())
        server.ask("/v1/reload", {"bundle": "one"}, headers=headers)
    slope = np.polyfit(np.arange(RELOADS), memory, 1)[0]  # MiB a reload and 5,000 requests
    figure(
        f"{REQUESTS:,} requests and {RELOADS} reloads: {memory[0]:.1f} to {memory[-1]:.1f} MiB, "
        f"slope {slope:.3f} MiB a reload; {descriptors[-1]} descriptors, {threads[-1]} threads"
    )
    assert slope < 0.25, memory
    assert memory[-1] < memory[0] + 8, memory
    assert max(descriptors[1:]) <= descriptors[0] + 2, descriptors
    assert max(threads) <= threads[0] + 1, threads
