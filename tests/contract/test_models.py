"""What every model must satisfy. Every file in `models/` is found here by itself, with all the
shipped recipes that name it, or its default options where none does."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from torch import Tensor

from dimerec import bundle, config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.config import NegativesConfig, RunConfig
from dimerec.errors import ConfigError
from dimerec.model import Catalogue, CountingModel, SequentialModel
from dimerec.nn import pieces
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.vocabulary import Item, Vocabulary

V, L, USERS = 40, 6, 8
EVERYTHING = torch.arange(1, V)  # as shared negatives
COUNTS = torch.tensor([0.0] + [float(1 + n % 5) for n in range(1, V)])


def cases() -> Iterator[tuple[str, RunConfig]]:
    recipes = {name: config.load(name, [f"length={L}"]) for name in config.shipped()}
    yield from recipes.items()
    for model in plugins.names("dimerec.models"):
        if model not in {r.model for r in recipes.values()}:
            yield model, RunConfig(model=model, length=L)


CASES = dict(cases())
every_model = pytest.mark.parametrize("case", CASES)
ORIGIN = {"dataset": "toy", "digest": "0" * 64, "protocol": "leave-one-out"}


def build(case: str, seed: int = 0, observe: bool = True) -> SequentialModel:
    recipe = CASES[case]
    module = plugins.load("dimerec.models", recipe.model)
    catalogue = Catalogue(size=V, length=L, counts=COUNTS)
    with randomness.torch_scope(seed, "init"):
        model: SequentialModel = module.Model(recipe.model_config(), catalogue)
    if observe and isinstance(model, CountingModel):
        model.observe(users(model))
        model.finish()
    return model


@cache
def still(case: str) -> SequentialModel:
    """A model that no test changes. All its weights are shaken: some start at zero, where nobody
    sees what they are multiplied by. Vectors of padding stay as they are."""
    model, rng = build(case), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                weight = weight[1:] if isinstance(module, ItemEmbedding) else weight
                weight += 0.1 * torch.randn(weight.shape, generator=rng)
    return model


def needs_negatives(case: str) -> bool:
    """Whether the case's loss says that it cannot do without negatives."""
    try:
        structs.replace(CASES[case], negatives=NegativesConfig()).model_config()
    except ConfigError as e:
        assert "negatives.kind" in str(e)
        return True
    return False


def users(model: SequentialModel, negatives: Tensor | None = None) -> SequenceBatch:
    """Eight users whose next items are all different."""
    rng = torch.Generator().manual_seed(7)
    items = torch.stack([torch.randperm(V - 1, generator=rng)[: L + 1] + 1 for _ in range(USERS)])
    items[:, -1] = torch.randperm(V - 1, generator=rng)[:USERS] + 1
    history, targets = items[:, :-1].clone(), items[:, 1:].clone()
    history[1, :3] = 0
    targets[1, :3] = 0
    if model.targets == "last":
        targets[:, :-1] = 0
    if negatives is None:
        negatives = torch.zeros(0, dtype=torch.int64)
    return SequenceBatch(history, targets, negatives, torch.zeros(negatives.shape))


def noise(model: SequentialModel, rows: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, model.noise_draws, model.width, generator=rng)


def scores(model: SequentialModel, history: Tensor, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return model.eval().scores(history, noise(model, len(history), seed))


def assert_same(got: Tensor, want: Tensor) -> None:
    """Up to rounding, which grows with the scores."""
    largest = max(1.0, float(want.abs().max()))
    torch.testing.assert_close(got, want, atol=1e-5 * largest, rtol=1e-5)


@every_model
def test_shapes(case: str) -> None:
    model, history = still(case), users(still(case)).history
    assert scores(model, history).shape == (USERS, V)
    if model.has_vectors:
        queries, vectors = model.encode(history, noise(model, USERS)), model.item_vectors()
        assert queries.dim() == 3 and queries.shape[0] == USERS and queries.shape[1] >= 1
        assert vectors.shape == (V, model.width) and queries.shape[2] == model.width
        assert not bool(vectors[0].any()), "padding must have a zero vector"


@every_model
@settings(max_examples=10)
@given(data=st.data())
def test_padding_changes_nothing(case: str, data: st.DataObject) -> None:
    """A short history scores the same however much padding stands before it."""
    model = still(case)
    items = data.draw(st.lists(st.integers(1, V - 1), min_size=1, max_size=L - 1))
    tight = torch.tensor([items])
    padded = torch.tensor([[0] * (L - len(items)) + items])
    assert_same(scores(model, tight), scores(model, padded))


@every_model
@settings(max_examples=10)
@given(data=st.data())
def test_a_row_does_not_depend_on_its_batch(case: str, data: st.DataObject) -> None:
    model = still(case)
    row = st.lists(st.integers(0, V - 1), min_size=L, max_size=L).map(
        lambda r: [0] * r.count(0) + [i for i in r if i]
    )
    history = torch.tensor(data.draw(st.lists(row, min_size=2, max_size=5)))
    draws = noise(model, len(history))
    with torch.inference_mode():
        together = model.eval().scores(history, draws)
        alone = [model.scores(history[i : i + 1], draws[i : i + 1]) for i in range(len(history))]
    assert_same(together, torch.cat(alone))


@every_model
def test_a_batch_read_in_pieces_scores_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of every length, the empty one among them, two at a time."""
    model, history = still(case), torch.randint(1, V, (9, L), generator=torch.Generator())
    history *= torch.arange(L, 0, -1) <= torch.tensor([3, 6, 0, 1, 5, 2, 4, 3, 6])[:, None]
    whole = scores(model, history)
    monkeypatch.setattr(pieces, "PIECE", 2 * (L + 1))
    assert_same(scores(model, history), whole)


@every_model
def test_nothing_at_all_is_finite(case: str) -> None:
    assert bool(scores(still(case), torch.zeros(2, L, dtype=torch.int64)).isfinite().all())


@every_model
def test_bundle_gives_the_same_scores_and_no_padding(case: str, tmp_path: Path) -> None:
    model = still(case)
    written = bundle.write(
        tmp_path / "bundle",
        model=model,
        config=CASES[case],
        vocabulary=Vocabulary([f"i{n}" for n in range(1, V)]),
        items=[Item() for _ in range(1, V)],
        counts=COUNTS,
        origin=ORIGIN,
    )
    written.check()
    history = users(model).history
    torch.testing.assert_close(scores(written.model(), history), scores(model, history))
    answers = written.recommender().recommend([["i1", "i2"], ["i7"]], n=V + 5, hide_seen=False)
    for answer in answers:
        assert sorted(answer.items) == sorted(f"i{n}" for n in range(1, V))  # all once, no padding
        assert all(abs(s) < float("inf") for s in answer.scores)


@every_model
@pytest.mark.parametrize("negatives", ["none", "shared", "private"])
def test_losses_and_gradients_are_finite(case: str, negatives: str) -> None:
    model = build(case, observe=False)
    if isinstance(model, CountingModel):
        with pytest.raises(TypeError, match="no loss"):
            model.loss(users(model), torch.Generator())
        return
    rng = torch.Generator().manual_seed(0)
    drawn = {
        "none": None,
        "shared": torch.randint(1, V, (5,), generator=rng),
        "private": torch.randint(0, V, (USERS, L, 5), generator=rng),
    }[negatives]
    if negatives == "none" and needs_negatives(case):
        with pytest.raises(ConfigError, match=r"negatives\.kind"):
            model.loss(users(model), torch.Generator())
        return
    losses = model.train().loss(users(model, drawn), torch.Generator().manual_seed(1))
    assert set(losses.parts) == set(losses.weights)
    losses.total.backward()
    assert bool(losses.total.isfinite())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} is not learned"
        assert bool(parameter.grad.isfinite().all()), name


@every_model
def test_the_loss_draws_from_its_generator_alone(case: str) -> None:
    model = build(case, observe=False)
    if isinstance(model, CountingModel):
        return
    values, batch = [], users(model, EVERYTHING if needs_negatives(case) else None)
    for unrelated in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(unrelated)
            losses = model.train().loss(batch, torch.Generator().manual_seed(3))
            values.append(float(losses.total.detach()))
    assert values[0] == values[1]


@every_model
def test_eight_users_are_learned_by_heart(case: str) -> None:
    """At one of two rates: norms behind the residuals, as in BERT, cannot bear the first."""
    model = build(case)
    batch = users(model, EVERYTHING if needs_negatives(case) else None)
    if isinstance(model, CountingModel):  # it has no weights to learn by heart with
        above = outranked(model, batch)
        assert float(above.float().mean()) < V / 3
        return
    batch.targets[:, :-1] = 0
    for rate in (0.01, 0.003):
        model = build(case)
        adam = torch.optim.Adam(model.parameters(), lr=rate)
        for step in range(200):
            losses = model.train().loss(batch, torch.Generator().manual_seed(step))
            adam.zero_grad()
            losses.total.backward()
            adam.step()
            if step % 40 == 39:
                above = outranked(model, batch)
                if int((above == 0).sum()) >= USERS - 1:  # chance: 0.2 of 8
                    return
    raise AssertionError(f"targets are outranked by {above.tolist()} items")


def outranked(model: SequentialModel, batch: SequenceBatch) -> Tensor:
    """How many items score above each last target, int `[B]`."""
    found = scores(model, batch.history).clone()
    found[:, 0] = -torch.inf
    return (found > found.gather(1, batch.targets[:, -1:])).sum(1)
