"""FPMC's score by hand, its user, and what it learns."""

import math

import pytest
import torch

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.fpmc import Config, Model


def build(user: str, size: int = 4, width: int = 2) -> Model:
    options = {"width": width, "user": user, "softmax": {"loss": "bpr"}}
    made = config.convert(options, Config, "options")
    with randomness.torch_scope(0, "init"):
        return Model(made, Catalogue(size=size, length=3, counts=torch.ones(size)))


def test_score_and_loss_by_hand() -> None:
    """History 1, 2, 1 with d = 1: V^{L,I} = (2, 3, 5), V^U = (1, 4, 9), V^{I,L} = (1, 0, -1),
    V^{I,U} = (0, 2, 4) of the items 1, 2, 3.

    The last item is 1 with 2, the user the mean of 1 and 4 (each once), 2.5. Scores:
    1: 2 * 1 + 2.5 * 0 = 2; 2: 2 * 0 + 2.5 * 2 = 5; 3: 2 * -1 + 2.5 * 4 = 8.
    """
    model = build("history", width=1)
    model.last.weight.data = torch.tensor([[0.0], [2.0], [3.0], [5.0]])
    model.taste.items.weight.data = torch.tensor([[0.0], [1.0], [4.0], [9.0]])
    model.items.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-1.0, 4.0]])
    history = torch.tensor([[1, 2, 1]])
    got = model.scores(history, torch.zeros(1, 0, 2))
    assert got[0].tolist() == pytest.approx([0.0, 2.0, 5.0, 8.0])
    # The target 3 against the negative 2: -log sigmoid(8 - 5).
    batch = SequenceBatch(
        history, torch.tensor([[0, 0, 3]]), torch.tensor([[[0], [0], [2]]]), torch.zeros(1, 3, 1)
    )
    loss = model.loss(batch, torch.Generator())
    assert float(loss.parts["bpr"].detach()) == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)


def test_without_a_user_the_last_item_is_all() -> None:
    model = build("none")
    assert model.width == 2 and not hasattr(model, "taste")
    one, other = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 3]])
    torch.testing.assert_close(model.states(one)[:, -1], model.states(other)[:, -1])
    with_user = build("history")
    assert not torch.equal(with_user.states(one)[:, -1], with_user.states(other)[:, -1])


def test_every_position_knows_what_came_before_it_and_no_more() -> None:
    model = build("history", size=9)
    whole = model.states(torch.tensor([[5, 7, 8]]))
    for n in range(3):
        prefix = torch.tensor([[5, 7, 8][: n + 1]])
        torch.testing.assert_close(whole[:, n], model.states(prefix)[:, -1])


def test_a_chain_of_items_is_learned_without_a_user() -> None:
    """1 -> 2 -> 3 -> 1: the only structure is the last item."""
    model = build("none", width=4)
    history = torch.tensor([[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    targets = torch.tensor([[2, 3, 1], [3, 1, 2], [1, 2, 3]])
    batch = SequenceBatch(history, targets, torch.tensor([1, 2, 3]), torch.zeros(3))
    adam = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(100):
        adam.zero_grad()
        model.loss(batch, torch.Generator().manual_seed(step)).total.backward()
        adam.step()
    scores = model.scores(history, torch.zeros(3, 0, 4))[:, 1:]
    assert (scores.argmax(1) + 1).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("options.width=0", "width = 0: must be an integer >= 1"),
        ("options.user=id", "user = 'id': must be one of 'history', 'none'"),
        ("negatives.kind=none", "set negatives.kind"),
    ],
)
def test_wrong_options_fail_at_load(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load("fpmc", [override])


def test_the_recipe_is_the_published_loss() -> None:
    recipe = config.load("fpmc")
    assert recipe.model_config().softmax.loss == "bpr"
    assert (recipe.negatives.kind, recipe.negatives.number) == ("uniform", 1)
