"""Every model with item logits has every shared loss, over every kind of negatives.

Models are found by themselves: every one whose `Config` has a `softmax`. Each combination learns
from a batch that the package's own sampler drew, or is refused when the recipe is loaded.
"""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from dimerec import config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.config import RunConfig
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset, write
from dimerec.errors import ConfigError
from dimerec.model import LossParts, SequentialModel
from dimerec.nn.losses import SoftmaxConfig
from dimerec.vocabulary import Vocabulary

SIZE, EVENTS, LENGTH = 30, 6, 4  # items, events of a user, history
TINY = {"width": "8", "hidden": "8", "latent": "8", "dims": "[8]", "layers": "1"}
# What a loss says by default and what else it needs to be this one.
ASKED = {"diffrec": ["options.loss=softmax"], "gru4rec": ["options.samples=0"]}
NEGATIVES = {
    "none": ["kind=none"],
    "uniform": ["kind=uniform"],
    "private uniform": ["kind=uniform", "private=true", "exclude=window"],
    "log-uniform": ["kind=log-uniform"],
    "in-batch": ["kind=in-batch"],
    "in-batch of others": ["kind=in-batch", "exclude=window"],
}
LOSSES = ("softmax", "bce", "gbce", "bpr")


def models() -> dict[str, str]:
    """A recipe of every model with item logits."""
    found: dict[str, str] = {}
    for name in config.shipped():
        recipe = config.load(name)
        if isinstance(getattr(recipe.model_config(), "softmax", None), SoftmaxConfig):
            found.setdefault(recipe.model, name)
    return found


MODELS = models()
every_combination = pytest.mark.parametrize(
    ("model", "loss", "logq", "negatives"),
    [
        pytest.param(*given, id="-".join([given[0], given[1], "logq" * given[2], given[3]]))
        for given in product(MODELS, LOSSES, (False, True), NEGATIVES)
        if given[1] == "softmax" or not given[2] or given[3] == "uniform"  # one refusal tells all
    ],
)


def test_models_are_found() -> None:
    shared = {"softmax": SoftmaxConfig()}
    for name in plugins.names("dimerec.models"):
        fields = plugins.load("dimerec.models", name).Config.__struct_fields__
        assert (name in MODELS) == bool(shared.keys() & set(fields)), f"{name} has no recipe"
    assert len(MODELS) >= 13


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six users; the item n stands about 1 / n as often as the first, the last ones never."""
    share = 1 / np.arange(1, SIZE + 1)
    share[-4:] = 0
    items = [
        np.random.default_rng(u).choice(SIZE, EVENTS, replace=False, p=share / share.sum()) + 1
        for u in range(6)
    ]
    ends = np.full(6, EVENTS)
    return write(
        tmp_path_factory.mktemp("losses") / "data",
        vocabulary=Vocabulary(list(range(SIZE))),
        users=Vocabulary(list(range(6))),
        offsets=np.arange(7) * EVENTS,
        items=np.concatenate(items),
        times=np.arange(6 * EVENTS),
        train_end=ends,
        valid_end=ends,
        card={"name": "toy", "protocol": {"name": "users-8-1-1"}, "origin": {}, "filters": []},
    )


@cache
def tiny(model: str) -> tuple[str, ...]:
    fields = plugins.load("dimerec.models", model).Config.__struct_fields__
    small = [f"options.{name}={value}" for name, value in TINY.items() if name in fields]
    return (*small, *ASKED.get(model, []), f"length={LENGTH}", "training.batch_size=4")


def loaded(model: str, loss: str, logq: bool, negatives: str) -> RunConfig:
    settings = ["private=false", "exclude=target", "number=7", *NEGATIVES[negatives]]
    logits = [f"options.softmax.loss={loss}", f"options.softmax.logq={str(logq).lower()}"]
    drawn = [f"negatives.{setting}" for setting in settings]
    return config.load(MODELS[model], [*tiny(model), *logits, *drawn])


def refusal(model: str, loss: str, logq: bool, negatives: str) -> str:
    """What is said of a combination that there is not; empty where there is one."""
    if loss == "softmax":
        return ""
    if logq:
        return (
            f"options of {model}: softmax: logq = true corrects the softmax: "
            f'loss = "{loss}" needs logq = false'
        )
    if negatives == "none":
        return (
            f"options of {model}: the loss is made of sampled negatives: set "
            'negatives.kind to "uniform", "log-uniform" or "in-batch"'
        )
    return ""


def built(recipe: RunConfig, dataset: Dataset) -> SequentialModel:
    module = plugins.load("dimerec.models", recipe.model)
    with randomness.torch_scope(0, "init"):
        made: SequentialModel = module.Model(
            recipe.model_config(), dataset.catalogue(recipe.length)
        )
    return made


def lost(model: SequentialModel, batch: SequenceBatch) -> LossParts:
    return model.train().loss(batch, torch.Generator().manual_seed(0))


@every_combination
def test_it_learns_or_is_refused_at_load(
    model: str, loss: str, logq: bool, negatives: str, dataset: Dataset
) -> None:
    if wanted := refusal(model, loss, logq, negatives):
        with pytest.raises(ConfigError) as caught:
            loaded(model, loss, logq, negatives)
        assert str(caught.value) == wanted
        return
    recipe = loaded(model, loss, logq, negatives)
    made = built(recipe, dataset)
    batch = Batches(dataset, recipe, made.targets).batch(0)
    total = lost(made, batch).total
    total.backward()
    assert bool(total.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)
    gradient = made.get_parameter("items.weight").grad
    assert gradient is not None
    moved = gradient.abs().sum(1) > 0
    assert not bool(moved[0]), "padding is learned"
    read = torch.cat([batch.history, batch.targets[:, -1:]], dim=1).unique()
    drawn = torch.arange(1, SIZE + 1) if negatives == "none" else batch.negatives.unique()
    met = torch.isin(torch.arange(SIZE + 1), torch.cat([read, drawn]))
    assert not bool(moved[~met].any()), "what is neither read nor compared with is learned"
    if negatives in ("none", "uniform", "log-uniform"):  # each is compared with every target
        assert bool(moved[drawn].all())
    else:  # those of some positions, and of some rows
        assert bool(moved[drawn].any())
    assert bool(moved[batch.targets[:, -1]].any())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("negatives", ["log-uniform", "in-batch"])
def test_each_setting_is_a_loss_of_its_own(model: str, negatives: str, dataset: Dataset) -> None:
    """By its value: what a model ignored would leave it as it was. The log-probabilities of the
    draws count with logQ alone."""
    values, names = {}, {}
    for loss, logq in [*((loss, False) for loss in LOSSES), ("softmax", True)]:
        recipe = loaded(model, loss, logq, negatives)
        made = built(recipe, dataset)
        batch = Batches(dataset, recipe, made.targets).batch(0)
        rarer = SequenceBatch(batch.history, batch.targets, batch.negatives, batch.log_q - 1)
        other = float(lost(made, rarer).total.detach())
        losses = lost(made, batch)
        values[loss, logq] = float(losses.total.detach())
        assert (values[loss, logq] != other) == logq
        names[loss] = set(losses.parts)
    assert len(set(values.values())) == len(LOSSES) + 1, values
    interests = {"comirec": {"gem"}, "dimerec": {"gem", "ssm", "recon"}}
    for loss in LOSSES[1:]:
        assert names[loss] >= interests.get(model, {loss})
