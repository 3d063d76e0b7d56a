"""Every shipped recipe loads, says what it is, and its model can be built."""

import re

import pytest
import torch

from dimerec import config, plugins
from dimerec.model import Catalogue, SequentialModel


def test_the_recipes_of_the_paper_and_the_default_are_shipped():
    assert {"dimerec", "dimerec-none", "dimerec-paper", "dimerec-rollout"} <= set(config.shipped())


@pytest.mark.parametrize("name", config.shipped())
def test_a_shipped_recipe_loads_and_builds(name: str):
    recipe = config.load(name)
    assert len(recipe.about.strip()) > 10, "say in one line what this recipe is"
    assert "\n" not in recipe.about
    catalogue = Catalogue(size=30, length=recipe.length, counts=torch.ones(30))
    model = plugins.load("dimerec.models", recipe.model).Model(recipe.model_config(), catalogue)
    assert isinstance(model, SequentialModel)


def test_recipes_are_different_runs():
    prints = {config.load(name).fingerprint for name in config.shipped()}
    assert len(prints) == len(config.shipped())


LOSS = (
    r"softmax|cross-entropy|BCE|BPR|squared error|likelihood|same losses|default loss|best .*of ten"
)
COUNTING = {"cooccurrence", "itemknn", "popularity", "sknn"}
TRAINED = [name for name in config.shipped() if config.load(name).model not in COUNTING]


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_says_which_loss_it_has(name: str):
    """A `-strong` one may leave it to the recipe that it was looked for from."""
    about = config.load(name).about
    assert re.search(LOSS, about), f"{name}: {about!r} names no loss"
    assert len(about) <= 100
