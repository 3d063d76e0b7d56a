"""The exception tree: one root, and the branches people catch."""

import inspect

import pytest

from dimerec import errors

TREE = {
    "ConfigError": "DimeRecError",
    "DataError": "DimeRecError",
    "BundleError": "DimeRecError",
    "TrainingDiverged": "DimeRecError",
    "ServingError": "DimeRecError",
    "Overloaded": "ServingError",
    "DeadlineExceeded": "ServingError",
    "StoreUnavailable": "ServingError",
}


def test_every_error_stands_in_the_tree():
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    assert {n: c.__bases__[0].__name__ for n, c in classes.items() if n != "DimeRecError"} == TREE
    assert classes["DimeRecError"].__base__ is Exception


@pytest.mark.parametrize("name", TREE)
def test_the_message_is_what_was_said(name: str):
    with pytest.raises(errors.DimeRecError, match="^where: what$"):
        raise getattr(errors, name)("where: what")
