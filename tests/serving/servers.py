"""Real servers for tests: bundles, settings, and processes with a socket."""

import hashlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

import dimerec.models
from dimerec import plugins
from dimerec.bundle import Bundle
from dimerec.config import RunConfig
from dimerec.model import Catalogue
from dimerec.randomness import torch_scope
from dimerec.vocabulary import Item
from tests.serving import launch
from tests.tools import bundles

SIZE = bundles.SIZE
COUNTS = torch.tensor([0.0] + [float(1 + n % 7) if n < 50 else 0.0 for n in range(1, SIZE)])
ITEMS = [
    Item(title=f"Title {n}", categories=("even", "odd")[n % 2 : n % 2 + 1]) for n in range(1, SIZE)
]
PATIENCE = 60  # seconds


def bundle(path: Path, model: str = "sasrec", seed: int = 0) -> Bundle:
    """A small bundle of an untrained model."""
    config = RunConfig(model=model, length=6, seed=seed, options={})
    dimerec.models.__path__.append(launch.MODELS)
    try:
        with torch_scope(seed, "test"):
            module = plugins.load("dimerec.models", model)
            catalogue = Catalogue(size=SIZE, length=6, counts=COUNTS)
            made = module.Model(config.model_config(), catalogue)
        return bundles.write(path, model=made, config=config, counts=COUNTS, items=ITEMS)
    finally:
        dimerec.models.__path__.remove(launch.MODELS)


def token(name: str) -> str:
    """The token of a principal."""
    return f"secret-of-{name}"


def digest(token: str) -> str:
    """What the settings hold of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_settings(name: str, roles: list[str], tenant: str = "default", rate: float = 0) -> str:
    return (
        f'[[tokens]]\nname = "{name}"\nsha256 = "{digest(token(name))}"\nroles = {roles!r}\n'
        f'tenant = "{tenant}"\nrate = {float(rate)}\n'
    )


class Server:
    """A running `dimerec serve`.

    Attributes:
        url: where it listens.
        http: a client without a token.
    """

    def __init__(self, path: Path, *words: object) -> None:
        command = [sys.executable, "-m", "tests.serving.launch", "serve", path, "--port", 0, *words]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.lines: list[str] = []
        self._started = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.http = httpx.Client(timeout=PATIENCE)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(line)
                if found := re.search(r" at (http://\S+)$", line.rstrip()):
                    self.url = found.group(1)
                if "routes" in line:
                    self._started.set()
        self._started.set()

    def wait(self) -> "Server":
        """Wait until it takes requests."""
        assert self._started.wait(PATIENCE), self.log
        assert self.url, self.log
        self.http.base_url = self.url
        return self

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def ask(self, path: str, body: Any = None, code: int = 200, **more: Any) -> Any:
        """POST `body` (or GET, without one): the decoded answer, which must have status `code`."""
        if body is None:
            answer = self.http.get(path, **more)
        else:
            answer = self.http.post(path, json=body, **more)
        assert answer.status_code == code, f"{answer.status_code} {answer.text}\n{self.log}"
        return answer.json()

    def asks(self, body: Any, code: int = 200, **more: Any) -> Any:
        """Recommendations."""
        return self.ask("/v1/recommend", body, code, **more)

    def metric(self, name: str, **labels: str) -> float:
        """One value of /metrics; 0 where it is not there."""
        return sum(value for _, value in self.metrics(name, **labels))

    def metrics(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        from prometheus_client.parser import text_string_to_metric_families

        for family in text_string_to_metric_families(self.http.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield dict(sample.labels), sample.value

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self._reader.join(PATIENCE)


@contextmanager
def serving(path: Path, *words: object) -> Iterator[Server]:
    """A server for the length of a block; it must end well."""
    server = Server(path, *words)
    try:
        yield server.wait()
    finally:
        server.stop()
