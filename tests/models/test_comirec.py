"""ComiRec: its loss by a plain loop, and every interest a query."""

import pytest
import torch

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.comirec import Config, Model

V, L, D, K = 20, 5, 4, 3
every_kind = pytest.mark.parametrize("kind", ["self-attentive", "dynamic-routing", "mlp"])


def build(kind: str, **options) -> Model:
    guidance = {"kind": kind, "interests": K}
    made = config.convert({"width": D, "guidance": guidance} | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))
    return model.eval().requires_grad_(False)


def batch() -> SequenceBatch:
    history = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 6, 7, 8]])
    targets = torch.tensor([[0, 0, 2, 3, 9], [5, 6, 7, 8, 9]])
    return SequenceBatch(history, targets, torch.tensor([10, 11, 12]), torch.full((3,), -3.0))


@every_kind
@pytest.mark.parametrize("unit", [False, True])
def test_the_loss_is_that_of_the_interest_closest_to_the_target(kind: str, unit: bool) -> None:
    """Every target, from the history before it alone: Eq. 18, then the softmax (Eq. 19)."""
    model, data = build(kind, softmax={"unit": unit, "temperature": 0.5}), batch()
    table, losses, apart = model.item_vectors(), [], 0
    for row, at in (data.targets > 0).nonzero().tolist():
        items = [i for i in data.history[row, : at + 1].tolist() if i]
        interests = model.encode(torch.tensor([[0] * (L - len(items)) + items]), torch.zeros(1, 0))
        target, costs, fits = int(data.targets[row, at]), [], []
        for interest in interests[0]:
            query = interest / interest.norm() if unit else interest
            logits = torch.stack([query @ table[n] / 0.5 for n in (target, 10, 11, 12)])
            costs.append(-logits.log_softmax(0)[0])
            fits.append(float(query @ table[target]))
        losses.append(costs[fits.index(max(fits))])
        apart += float(torch.stack(costs).std()) > 1e-3
    assert apart >= 5  # so that another interest's loss is another loss
    got = model.loss(data, torch.Generator())
    assert got.weights == {"gem": 1.0}
    torch.testing.assert_close(got.total, torch.stack(losses).mean())


@every_kind
def test_every_interest_is_a_query(kind: str) -> None:
    model, history = build(kind), batch().history
    queries = model.encode(history, torch.zeros(2, 0))
    torch.testing.assert_close(queries, model.gem(model.items(history), history))
    best = torch.einsum("bkd,vd->bkv", queries, model.items.weight).amax(1)
    torch.testing.assert_close(model.scores(history, torch.zeros(2, 0))[:, 1:], best[:, 1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": {"interests": 0}}, "interests = 0: must be an integer >= 1"),
        ({"guidance": {"kind": "none"}}, "kind = 'none': must be one of"),
        ({"interests": 4}, "unknown key"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")
