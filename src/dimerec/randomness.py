"""Named, counter-based generators: every random number is a pure function of (seed, names).

`stream(seed, "negatives", rank, epoch)` gives the same numbers whatever ran before it, so a
resumed run, another worker count or a batch neighbour cannot change them.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key(seed: int, *names: str | int) -> int:
    """128-bit key of the stream called `names` under `seed`."""
    text = "\x1f".join([str(seed), *(f"{type(n).__name__}:{n}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator (Philox) of the named stream."""
    return np.random.Generator(np.random.Philox(key=key(seed, *names)))


def torch_stream(
    seed: int, *names: str | int, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """Torch generator of the named stream, living on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(key(seed, *names) % 2**63)


@contextmanager
def torch_scope(seed: int, *names: str | int) -> Iterator[None]:
    """Initialise stock torch modules from a named stream; the global generator is put back after."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(key(seed, *names) % 2**63)
        yield
