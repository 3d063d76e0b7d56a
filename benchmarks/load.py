"""Open-loop load: requests leave at times that are fixed beforehand, whatever became of others.

Latency counts from the time a request was meant to leave, so a server that stalls cannot slow its
own measurement down, and neither can this generator: what it is late with is in the figures. Where
it was late too often, the load was not what it says, and the run is void: more than `SHARE` of the
sends of a step left more than `--late` seconds after their time. Prints one JSON object.

    python benchmarks/load.py http://127.0.0.1:8000 --steps 200x5 1000x5 200x3 --bodies asks.jsonl

A step is a rate (requests a second) x seconds; `asks.jsonl` holds one body a line, taken in turn.
One request at a time on each of at most `--connections` connections, kept alive; when all are
taken, sends are late. Only this machine can be asked.
"""

import argparse
import gc
import json
import math
import random
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

LATE, SHARE = 0.005, 0.005
IDLE = 4.0  # seconds after which a connection is not used again: the server may be closing it
LAST = 5.0  # seconds after the last send in which answers are awaited
MOST_REQUESTS, MOST_SECONDS, MOST_CONNECTIONS = 500_000, 600.0, 4096
LOOPBACK = ("127.0.0.1", "localhost")
REFUSALS = (429, 503)
LOST = 0  # the status of a request that got no answer


@dataclass(frozen=True)
class Step:
    """`rate` requests a second, for some seconds."""

    rate: float
    seconds: float

    @classmethod
    def parse(cls, text: str) -> "Step":
        """From "200x5"."""
        rate, _, seconds = text.partition("x")
        step = cls(float(rate), float(seconds))
        if not (0 < step.rate < math.inf and 0 < step.seconds < math.inf):
            raise ValueError(f"a step is a rate x seconds, both above 0, not {text!r}")
        return step


@dataclass(slots=True)
class Request:
    """Seconds since the start: `due` to leave, left, answered; and what the answer was."""

    step: int
    due: float
    sent: float = math.inf
    ended: float = math.inf
    status: int = LOST
    retry_after: bool = False
    degraded: str = ""


@dataclass(slots=True)
class Connection:
    socket: socket.socket
    request: Request | None = None
    since: float = 0.0
    buffer: bytearray = field(default_factory=bytearray)


def schedule(steps: Sequence[Step], arrivals: str, seed: int) -> list[Request]:
    """When each request is due, steps one after the other.

    Args:
        arrivals: "poisson", with exponential gaps, as of many who know nothing of one another;
            or "even".
    """
    total = sum(step.seconds for step in steps), sum(step.seconds * step.rate for step in steps)
    if total[0] > MOST_SECONDS or total[1] > MOST_REQUESTS:
        raise ValueError(f"at most {MOST_SECONDS:.0f} s and {MOST_REQUESTS} requests, not {total}")
    rng = random.Random(seed)
    out: list[Request] = []
    began = 0.0
    for number, step in enumerate(steps):
        gap = 1 / step.rate
        due = rng.expovariate(step.rate) if arrivals == "poisson" else 0.0
        while due < step.seconds:
            out.append(Request(number, began + due))
            due += rng.expovariate(step.rate) if arrivals == "poisson" else gap
        began += step.seconds
    return out


class Generator:
    """Sends a schedule from one thread.

    Attributes:
        opened: connections that were opened.
    """

    def __init__(
        self,
        url: str,
        path: str,
        bodies: Sequence[bytes],
        connections: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in LOOPBACK or not parts.port:
            raise ValueError(f"only this machine is asked, http://127.0.0.1:PORT, not {url}")
        if not 0 < connections <= MOST_CONNECTIONS or not bodies:
            raise ValueError(f"1 to {MOST_CONNECTIONS} connections and at least one body, please")
        self._address = ("127.0.0.1", parts.port)
        self._messages = [_message(path, parts.port, body) for body in bodies]
        self._most = connections
        self._clock = clock
        self._open: dict[int, Connection] = {}
        self._free: list[Connection] = []  # the one used last is used next
        self._waiting: deque[Request] = deque()
        self._epoll = select.epoll()
        self._turn = 0
        self._pending = 0
        self.opened = 0

    def run(self, plan: Sequence[Request]) -> None:
        """Send it all; the plan's requests are filled in."""
        self._start = start = self._clock()
        at, count = 0, len(plan)
        end = plan[-1].due + LAST if plan else 0.0
        while at < count or self._pending:
            now = self._clock() - start
            while at < count and plan[at].due <= now:
                self._pending += 1
                self._send(plan[at])
                at += 1
            wait = plan[at].due - now if at < count else end - now
            if at == count and (wait <= 0 or not self._pending):
                break
            # select() of the epoll waits to the microsecond, epoll alone to the millisecond
            select.select([self._epoll], [], [], max(0.0, wait))
            for descriptor, _ in self._epoll.poll(0):
                self._read(self._open[descriptor])
        for connection in list(self._open.values()):
            self._close(connection)

    def _now(self) -> float:
        return self._clock() - self._start

    def _send(self, request: Request) -> None:
        now = self._now()
        while self._free:
            connection = self._free.pop()
            if now - connection.since < IDLE:
                break
            self._close(connection)
        else:
            if len(self._open) >= self._most:
                self._waiting.append(request)
                return
            try:
                opened = socket.create_connection(self._address, timeout=1.0)
            except OSError:
                request.sent = now
                return self._end(request)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setblocking(False)
            connection = Connection(opened)
            self._open[opened.fileno()] = connection
            self._epoll.register(opened, select.EPOLLIN)
            self.opened += 1
        connection.request = request
        message = self._messages[self._turn % len(self._messages)]
        self._turn += 1
        request.sent = self._now()
        try:
            if connection.socket.send(message) != len(message):
                self._close(connection)
        except OSError:
            self._close(connection)

    def _read(self, connection: Connection) -> None:
        try:
            part = connection.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            return self._close(connection)
        connection.buffer += part
        answer = _answer(connection.buffer)
        request = connection.request
        if answer is None or request is None:
            return
        request.status, request.retry_after, request.degraded, keep = answer
        request.ended = self._now()
        connection.buffer.clear()
        connection.request = None
        self._pending -= 1
        if not keep:
            return self._close(connection)
        connection.since = request.ended
        self._free.append(connection)
        if self._waiting:
            self._send(self._waiting.popleft())

    def _close(self, connection: Connection) -> None:
        if self._open.pop(connection.socket.fileno(), None) is None:
            return
        self._epoll.unregister(connection.socket)
        connection.socket.close()
        if connection in self._free:
            self._free.remove(connection)
        if connection.request is not None:
            self._end(connection.request)
        if self._waiting and len(self._open) < self._most:
            self._send(self._waiting.popleft())

    def _end(self, request: Request) -> None:
        """It gets no answer."""
        request.ended = self._now()
        self._pending -= 1


def _message(path: str, port: int, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _answer(buffer: bytearray) -> tuple[int, bool, str, bool] | None:
    """Status, whether there is Retry-After, why degraded, whether to keep the connection; None
    while the answer is not whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower() + b"\r\n"
    at = head.index(b"content-length:") + 15
    if len(buffer) < end + 4 + int(head[at : head.index(b"\r\n", at)]):
        return None
    reason = ""
    mark = buffer.find(b'"degraded_reason":"', end)
    if mark >= 0:
        reason = buffer[mark + 19 : buffer.index(b'"', mark + 19)].decode()
    keep = b"\r\nconnection: close" not in head
    return int(head[9:12]), b"\r\nretry-after: " in head, reason, keep


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the (sorted) values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def report(
    steps: Sequence[Step], plan: Sequence[Request], within: float, late: float = LATE
) -> dict:
    """What became of the plan, by step, and why it is void, if it is.

    Goodput counts answers that came while their step lasted, and within `within` seconds.
    """
    rows, why = [], None
    end = 0.0
    for number, step in enumerate(steps):
        end += step.seconds
        own = [request for request in plan if request.step == number]
        good = [r for r in own if r.status == 200 and r.ended - r.due <= within]
        refused = [r for r in own if r.status in REFUSALS]
        behind = sorted(r.sent - r.due for r in own)
        tardy = sum(seconds > late for seconds in behind)
        row = {
            "rate": step.rate,
            "seconds": step.seconds,
            "sent": len(own),
            "good": len(good),
            "goodput": round(sum(r.ended <= end for r in good) / step.seconds, 1),
            "refused": len(refused),
            "refused_without_retry_after": sum(not r.retry_after for r in refused),
            "statuses": {str(k): v for k, v in Counter(r.status for r in own).items()},
            "degraded": dict(Counter(r.degraded for r in own if r.degraded)),
            **_milliseconds("", [r.ended - r.due for r in good]),
            **_milliseconds("refused_", [r.ended - r.due for r in refused]),
            "late": tardy,
            "latest_ms": _ms(behind[-1]) if behind else None,
        }
        rows.append(row)
        if why is None and tardy > SHARE * len(own):
            why = (
                f"{tardy} of {len(own)} sends at {step.rate:g}/s were over {1000 * late:g} ms late"
            )
    return {"void": why, "steps": rows}


def _milliseconds(prefix: str, seconds: list[float]) -> dict[str, float | None]:
    seconds.sort()
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {f"{prefix}{name}_ms": _ms(quantile(seconds, share)) for name, share in shares.items()}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else round(1000 * seconds, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("url")
    parser.add_argument(
        "--steps", nargs="+", type=Step.parse, required=True, metavar="RATExSECONDS"
    )
    parser.add_argument("--bodies", type=Path, required=True, help="one JSON body a line")
    parser.add_argument("--path", default="/v1/recommend")
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--within", type=float, default=1.0, help="seconds an answer is good for")
    parser.add_argument("--late", type=float, default=LATE, help="seconds")
    given = parser.parse_args()
    plan = schedule(given.steps, given.arrivals, given.seed)
    bodies = given.bodies.read_bytes().splitlines()
    generator = Generator(given.url, given.path, bodies, given.connections)
    gc.disable()
    print("started", file=sys.stderr, flush=True)
    generator.run(plan)
    found = report(given.steps, plan, given.within, given.late)
    found |= {"connections": generator.opened, "processor_s": round(time.process_time(), 2)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
