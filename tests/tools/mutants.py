"""Mutants: real functions with one piece of their source replaced, while a `with` block lasts."""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def mutated(function: Callable[..., Any], old: str, new: str) -> Iterator[None]:
    """`function` runs with `old` replaced by `new` in its source, wherever it was imported.

    Its code object is exchanged in place, so every reference to it sees the mutant.
    """
    real: Any = inspect.unwrap(function)  # under pytest a type checker is wrapped round it
    source = textwrap.dedent(inspect.getsource(real))
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {real.__name__}"
    names = dict(vars(sys.modules[real.__module__]))
    exec(compile(source.replace(old, new), f"<mutant of {real.__name__}>", "exec"), names)
    code, real.__code__ = real.__code__, names[real.__name__].__code__
    try:
        yield
    finally:
        real.__code__ = code
