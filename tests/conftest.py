"""What every test runs under: checked shapes, one thread, repeatable Hypothesis examples."""

import os
import signal
import sys

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
