"""What every test runs under: checked shapes, one thread, repeatable Hypothesis examples."""

import fcntl
import json
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.tools import checked

if loaded := sorted(m for m in sys.modules if m.split(".")[0] == "dimerec"):
    raise RuntimeError(f"loaded before the shape checks could be installed: {', '.join(loaded)}")

# Annotations of the package are checked at run time by beartype, shapes included, in tests only.
install_import_hook("dimerec", f"{checked.__name__}.checked")

# Started in the background, a shell lets its children ignore Ctrl-C, and theirs with them.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# One thread: sums are always added in the same order. Child processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import torch  # noqa: E402

torch.set_num_threads(1)

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Notes what a test measured, for the table of promises, where DIMEREC_FIGURES names a file.

    Numbers given by name are added up over a test's parameters and examples of this run; the text
    names them in braces, and is then that of the test as a whole.
    """
    texts: dict[str, str] = {}
    sums: defaultdict[str, Counter] = defaultdict(Counter)

    def note(text: str, **numbers: int) -> None:
        test = os.environ["PYTEST_CURRENT_TEST"].removesuffix(" (call)")
        if numbers:
            test = test.partition("[")[0]
            sums[test].update({name: int(number) for name, number in numbers.items()})
        texts[test] = text

    yield note
    if name := os.environ.get("DIMEREC_FIGURES"):
        noted = {t: text.format(**sums[t]) if t in sums else text for t, text in texts.items()}
        with (request.config.rootpath / name).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # tests run in several processes
            file.seek(0)
            known = json.loads(file.read() or "{}")
            kept = {t: text for t, text in known.items() if t.partition("[")[0] not in noted}
            file.truncate(0)
            file.write(json.dumps({**kept, **noted}, indent=2, sort_keys=True) + "\n")
