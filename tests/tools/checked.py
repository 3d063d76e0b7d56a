"""The run-time type checker that the import hook of `tests/conftest.py` puts on every function."""

from collections.abc import Callable
from typing import TypeVar

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception

F = TypeVar("F", bound=Callable)


def checked(function: F) -> F:
    """`function` checked by beartype; left alone where it speaks of `Self`.

    The hook decorates functions one by one, and beartype knows `Self` only inside classes.
    """
    try:
        return beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function
