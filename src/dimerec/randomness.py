"""Named, counter-based generators: every random number is a pure function of (seed, names).

`stream(seed, "negatives", rank, epoch)` gives the same numbers whatever ran before it, so a
resumed run, another worker count or a batch neighbour cannot change them.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
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


def normal(seed: int, keys: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of B things at once, float32 `[B, *shape]`.

    Row b is a pure function of (seed, keys[b]): its batch neighbours cannot change it, and a
    longer `shape` continues the same row. A splitmix64 counter stream for each key, turned by
    Box-Muller; magnitudes stay under 6.8. The bits are the same everywhere, the floats to the
    last digit or so of the processor's logarithm and cosine.

    Args:
        keys: uint64 `[B]`.
        shape: shape of one row's noise.
    """
    n = math.prod(shape)
    first, second = divmod(key(seed, "normal"), 2**64)
    if len(keys) <= FEW:
        states = [_mix(_mix(k ^ first) + second) for k in keys.tolist()]
        state = np.array(states, np.uint64)
    else:
        state = mix(mix(np.asarray(keys, np.uint64) ^ np.uint64(first)) + np.uint64(second))
    words = mix(state[:, None] + _counters((n + 1) // 2))  # [B, n/2]: one word, two normals
    high = (words >> np.uint64(32)).astype(np.float32)
    low = words.astype(np.uint32).astype(np.float32)
    radius = np.sqrt(np.float32(-2) * np.log((high + np.float32(0.5)) * np.float32(2**-32)))
    angle = low * np.float32(2 * math.pi * 2**-32)
    out = np.empty((len(state), words.shape[1], 2), np.float32)
    np.multiply(radius, np.cos(angle), out=out[..., 0])
    np.multiply(radius, np.sin(angle), out=out[..., 1])
    flat = out.reshape(len(state), 2 * words.shape[1])
    return np.ascontiguousarray(flat[:, :n]).reshape(len(state), *shape)


FEW = 4  # numbers that are mixed one by one: for a few, whole numbers are quicker than arrays
ALL = 2**64 - 1


def history_keys(history: np.ndarray) -> np.ndarray:
    """A 64-bit key of each left-padded history `[B, L]`, uint64 `[B]`; padding does not count.

    Whoever asks about a history, an evaluation or a service, gives the model the same noise.
    """
    if len(history) <= FEW:
        return np.array([_key(numbers) for numbers in history.tolist()], np.uint64)
    keys = np.zeros(len(history), np.uint64)
    for column in np.ascontiguousarray(history.T).astype(np.uint64):  # the L steps of a hash
        mixed = (keys ^ column) + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        keys = np.where(column > 0, mixed ^ (mixed >> np.uint64(31)), keys)
    return keys


def _key(numbers: list[int]) -> int:
    """`history_keys` of one history."""
    key = 0
    for number in numbers:
        if number:
            key = _mix((key ^ number) + 0x9E3779B97F4A7C15)
    return key


def _mix(x: int) -> int:
    """`mix` of one number of at least 0."""
    x &= ALL
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & ALL
    return x ^ x >> 31


@lru_cache(8)
def _counters(n: int) -> np.ndarray:
    """1..n times the golden ratio of 64 bits, not to be written to."""
    return np.arange(1, n + 1, dtype=np.uint64) * GOLDEN


GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (a bijection of 64 bits), elementwise on uint64, in place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x


@contextmanager
def torch_scope(seed: int, *names: str | int) -> Iterator[None]:
    """Initialise stock torch modules from a named stream; the global generator is put back."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, *names) % 2**63)
        yield
