"""Where every model drops what, and at which rate: all places of one pass of training, in order."""

import sys

import pytest
import torch
from torch import Generator, Tensor

from dimerec import config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.config import Struct
from dimerec.model import Catalogue, CountingModel, SequentialModel
from dimerec.nn import transformer

V, B, L, N = 20, 3, 5, 13  # N targets
Place = tuple[tuple[int, ...], float]  # what is dropped, and the rate


def sasrec(rate: float, d: int, heads: int) -> list[Place]:
    """A block of the shared transformer: attention weights, both layers of the feed-forward."""
    return [((B, heads, L, L), rate), ((B, L, d), rate), ((B, L, d), rate)]


def bert(rate: float, d: int, heads: int, length: int = L) -> list[Place]:
    """A block of BERT's: attention weights, what attention made, what the feed-forward made."""
    return [((B, heads, length, length), rate), ((B, length, d), rate), ((B, length, d), rate)]


def diffurec(rate: float, d: int, heads: int, reads: int) -> list[Place]:
    """A block of DiffuRec's: attention weights, what attention made, both layers of the
    feed-forward, and what the block made."""
    row = (B, reads, d), rate
    return [((B, heads, reads, L), rate), row, ((B, reads, 4 * d), rate), row, row]


NET = {"layers": 2, "heads": 2, "dropout": 0.25}
GUIDANCE = {"guidance": {"kind": "transformer", "transformer": NET}}
CASES: dict[str, tuple[str, dict, list[Place]]] = {
    "acvae": (
        "acvae",
        {"width": 6, "hidden": 4, "latent": 3, "dropout": 0.4},
        # the input's items; before z; and two places of the adversary, which is asked for the
        # divergence, about z, and about the prior
        [((B, L, 6), 0.4), ((B, L, 4), 0.4), *[((N, 128), 0.2), ((N, 3), 0.2)] * 3],
    ),
    "bert4rec": (
        "bert4rec",
        {"width": 8} | NET,
        [((B, L + 1, 8), 0.25), *bert(0.25, 8, 2, L + 1) * 2],
    ),
    "caser": (
        "caser",
        {"width": 4, "order": 3, "horizontal": 5, "vertical": 2, "dropout": 0.3},
        [((B, L, 2 * 4 + 5 * 3), 0.3)],  # what all filters found
    ),
    "comirec": ("comirec", {"width": 8} | GUIDANCE, [((B, L, 8), 0.25), *sasrec(0.25, 8, 2) * 2]),
    "diffrec": ("diffrec", {"dropout": 0.3}, [((B, V), 0.3)]),  # the entries of x_t
    "diffurec": (
        "diffurec",
        {"width": 8, "layers": 2, "heads": 2, "dropout": 0.1, "item_dropout": 0.3},
        # the history's items; two blocks, of which the last reads one position; what they made
        [((B, L, 8), 0.3), *diffurec(0.1, 8, 2, L), *diffurec(0.1, 8, 2, 1), ((B, 8), 0.1)],
    ),
    "dimerec": ("dimerec", {"width": 8} | GUIDANCE, [((B, L, 8), 0.25), *sasrec(0.25, 8, 2) * 2]),
    "dreamrec": (
        "dreamrec",
        {"width": 8, "transformer": NET},
        [((B, L, 8), 0.25), *sasrec(0.25, 8, 2) * 2],
    ),
    "gru4rec": (
        "gru4rec",
        {"width": 6, "layers": 2, "dropout_embedding": 0.1, "dropout_hidden": 0.3},
        [((B, L, 6), 0.1), *[((B, L, 6), 0.3)] * 2],  # the input vectors; every layer's states
    ),
    "multvae": ("multvae", {"dropout": 0.3}, [((B, L), 0.3)]),  # the entries of the bag
    "sasrec": (
        "sasrec",
        {"width": 8, "transformer": NET},
        [((B, L, 8), 0.25), *sasrec(0.25, 8, 2) * 2],
    ),
    "sasrec of BERT's blocks": (
        "sasrec",
        {"width": 8, "transformer": NET | {"kind": "bert"}},
        [((B, L, 8), 0.25), *bert(0.25, 8, 2) * 2],
    ),
}


def build(name: str, options: dict) -> SequentialModel:
    module = plugins.load("dimerec.models", name)
    made: Struct = config.convert(options, module.Config, "options")
    with randomness.torch_scope(0, "init"):
        return module.Model(made, Catalogue(size=V, length=L, counts=torch.ones(V)))


def places(model: SequentialModel, patch: pytest.MonkeyPatch) -> list[Place]:
    """What is dropped while the loss of a batch is computed."""
    found: list[Place] = []
    real = transformer.dropout

    def noted(x: Tensor, rate: float, rng: Generator | None) -> Tensor:
        if rng is not None:
            found.append((tuple(x.shape), rate))
        return real(x, rate, rng)

    for name, module in list(sys.modules.items()):
        if name.startswith("dimerec.") and vars(module).get("dropout") is real:
            patch.setattr(module, "dropout", noted)
    items = torch.randint(1, V, (B, L + 1), generator=Generator().manual_seed(0))
    items[1, :2] = 0
    targets = torch.where(items[:, :-1] > 0, items[:, 1:], 0)
    assert int((targets > 0).sum()) == N
    batch = SequenceBatch(items[:, :-1], targets, torch.arange(1, 5), torch.zeros(4))
    model.train().loss(batch, Generator().manual_seed(1))
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_place_drops_at_its_rate(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options, want = CASES[case]
    assert places(build(name, options), monkeypatch) == want


@pytest.mark.parametrize("name", plugins.names("dimerec.models"))
def test_the_others_drop_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in {model for model, _, _ in CASES.values()}:
        return
    model = build(name, {})
    assert isinstance(model, CountingModel) or places(model, monkeypatch) == []
