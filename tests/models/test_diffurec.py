"""DiffuRec's own rules: uncertainty injected by hand, its chain, its Approximator, its loss."""

import math

import pytest
import torch
from torch import Tensor, nn

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.diffurec import Approximator, Block, Config, Model, inject
from dimerec.nn import pieces

V, L = 20, 5
GENTLE = {"kind": "linear", "steps": 6, "first": 0.02, "last": 0.02}  # x_T is felt to the end


def build(length: int = L, **options) -> Model:
    small = {"width": 8, "layers": 2, "heads": 2, "schedule": {"steps": 6}}
    made = config.convert(small | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        return Model(made, Catalogue(size=V, length=length, counts=torch.ones(V))).eval()


def put(model: Model, **parts: nn.Module) -> None:
    for name, part in parts.items():
        setattr(model, name, part)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def histories() -> Tensor:
    items = torch.randint(1, V, (4, L), generator=torch.Generator().manual_seed(0))
    items[1, :2], items[3, :4] = 0, 0
    return items


def test_uncertainty_by_hand() -> None:
    """lambda = 0.1 (1 + draw) is (0.1, 0.2) for the first item and (0, 0.3) for the second."""
    items = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    x = torch.tensor([[10.0, -10.0]])
    draws = torch.tensor([[[0.0, 1.0], [-1.0, 2.0]]])
    want = [[1 + 1, 2 - 2], [3 + 0, 4 - 3]]
    torch.testing.assert_close(inject(items, x, draws, 0.1)[0], torch.tensor(want).float())


def test_lambda_has_delta_for_mean_and_standard_deviation() -> None:
    one, zero = torch.ones(1, 2), torch.zeros(1, 100_000, 2)
    spread = inject(zero, one, normal(1, *zero.shape), 0.3)
    assert float(spread.mean()) == pytest.approx(0.3, abs=5e-3)
    assert float(spread.std()) == pytest.approx(0.3, abs=5e-3)


class LastOf(nn.Module):
    """An Approximator that answers with the injected last item."""

    def forward(self, z: Tensor, seen: Tensor) -> Tensor:
        return z[:, -1]


class NoStep(nn.Module):
    def forward(self) -> Tensor:
        return torch.zeros(3, 2)


def test_the_chain_by_hand() -> None:
    """d = 2, L = 2, T = 2, every beta 1/2, delta 1/2; the last item is (1, 0).

    t = 2: x_2 = (2, -4), its draws (1, -1) make lambda (1, 0): x_0-hat = (3, 0). The posterior
    weighs x_0-hat and x_2 by 0.4714045 each and has variance 1/3; with noise (1, -1)
    x_1 = (2.3570226 + 0.5773503, -1.8856181 - 0.5773503) = (2.9343729, -2.4629684).
    t = 1: the draws turn to (-1, 1), lambda (0, 1): x_0-hat = (1, -2.4629684).
    """
    model = build(
        length=2,
        width=2,
        heads=1,
        uncertainty=0.5,
        schedule={"kind": "linear", "steps": 2, "first": 0.5, "last": 0.5},
    )
    put(model, norm=nn.Identity(), approximator=LastOf(), step=NoStep())
    with torch.no_grad():
        model.items.weight[1] = torch.tensor([1.0, 0.0])
    assert model.noise_draws == 4
    noise = torch.tensor([[[2.0, -4.0], [1.0, -1.0], [9.0, 9.0], [1.0, -1.0]]])
    got = model.encode(torch.tensor([[7, 1]]), noise)
    assert got.shape == (1, 1, 2)
    assert got[0, 0].tolist() == pytest.approx([1, -2.4629684])


def test_a_coordinate_draws_its_lambda_anew_at_every_step() -> None:
    """Captured lambdas: within the width's steps, no coordinate sees the same draw twice."""
    model = build(uncertainty=1.0, schedule=GENTLE)
    kept: list[Tensor] = []

    class Capture(nn.Module):
        def forward(self, z: Tensor, seen: Tensor) -> Tensor:
            kept.append(z.detach())
            return torch.zeros(len(z), 8)

    put(model, norm=nn.Identity(), approximator=Capture())
    with torch.no_grad():
        model.items.weight.zero_()
    noise = normal(2, 1, model.noise_draws, 8)
    noise[:, 0], noise[:, 1:6] = (
        1e4,
        0,
    )  # x is so large that the step embedding is nothing beside it
    model.encode(histories()[:1], noise)
    scale = [1e4]
    for t in range(6, 1, -1):
        scale.append(scale[-1] * model.schedule.posterior(t, t - 1)[0])
    spread = torch.stack([z[0] / s for z, s in zip(kept, scale)])  # [T, L, d]
    assert len(kept) == 6
    for i, got in enumerate(spread):  # step i's coordinate c is the row's coordinate c - i
        columns = [(c - i) % 8 for c in range(8)]
        torch.testing.assert_close(got, 1 + noise[0, 6:, columns], atol=1e-2, rtol=0)


@pytest.mark.parametrize("last", [False, True])
def test_a_block_against_plain_loops(last: bool) -> None:
    """Scores, softmax and values one by one; both ways, padding left out."""
    width, heads = 4, 2
    with randomness.torch_scope(1, "init"):
        block = Block(width, heads, rate=0.5)
    x = normal(3, 2, 3, width)
    seen = torch.tensor([[True, True, True], [False, True, True]])
    with torch.no_grad():
        got = block(x, seen[:, None, None], None, last)
        want = torch.zeros_like(x)
        for n in range(2):
            normed = [block.norm1(v) for v in x[n]]
            for i in range(3):
                mixed = torch.zeros(width)
                for h in range(heads):
                    part = slice(2 * h, 2 * h + 2)
                    q = block.q(normed[i])[part]
                    weight = {
                        j: math.exp(float(q @ block.k(normed[j])[part]) / math.sqrt(2))
                        for j in range(3)
                        if seen[n, j]
                    }
                    for j, w in weight.items():
                        mixed[part] += w / sum(weight.values()) * block.v(normed[j])[part]
                y = x[n, i] + block.o(mixed)
                a = block.inner(block.norm2(y))
                cubic = a + 0.044715 * a**3
                gelu = 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * cubic))
                want[n, i] = y + block.outer(gelu)
    torch.testing.assert_close(got, want[:, -1:] if last else want)


def test_attention_with_and_without_the_stock_kernel_agree() -> None:
    made = Config(width=8, layers=2, heads=2, dropout=1e-9)
    with randomness.torch_scope(0, "init"):
        net = Approximator(made)
    z, seen = normal(4, 4, L, 8), histories() > 0
    for given in (seen, None):
        dropped = net(z, given, torch.Generator().manual_seed(0))
        torch.testing.assert_close(net(z, given), dropped)


def test_a_history_is_a_set_with_a_marked_last_item() -> None:
    """Without positions the order before the last item cannot matter, the last item does."""
    model = build(uncertainty=0.0)
    noise = normal(5, 1, model.noise_draws, 8)
    a, b, c = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[4, 2, 1, 3, 5]]), [[5, 2, 3, 4, 1]]
    torch.testing.assert_close(model.encode(a, noise), model.encode(b, noise))
    other = model.encode(torch.tensor(c), noise)
    assert float((other - model.encode(a, noise)).abs().max().detach()) > 1e-2


def test_the_noise_of_a_position_is_counted_from_the_end() -> None:
    model = build(uncertainty=0.5, schedule=GENTLE)
    noise = normal(6, 1, model.noise_draws, 8)
    assert model.noise_draws == 6 + L and dict(model.sampling) == {"samples": 1, "steps": 6}
    short, padded = torch.tensor([[3, 4]]), torch.tensor([[0, 0, 0, 3, 4]])
    query = model.encode(short, noise)
    torch.testing.assert_close(query, model.encode(padded, noise))
    for row in range(model.noise_draws):
        changed = noise.clone()
        changed[:, row] += 1
        moved = float((model.encode(short, changed) - query).abs().max().detach()) > 1e-4
        assert moved == (row < 6 or row >= 6 + L - 2), row


def test_queries_made_in_pieces_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, history = build(uncertainty=0.5), histories()
    noise = normal(6, len(history), model.noise_draws, model.width)
    whole = model.encode(history, noise)
    for piece in (1, 2 * L):
        monkeypatch.setattr(pieces, "PIECE", piece)
        torch.testing.assert_close(model.encode(history, noise), whole)


@pytest.mark.parametrize("piece", [1, 2 * L, 2048])
def test_the_loss_against_a_plain_loop(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One example at a time, the softmax over all items written out; rows are read in pieces of
    like lengths here, whole and padded there."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    model = build(dropout=0.0, item_dropout=0.0, uncertainty=0.2)
    history, empty = histories(), torch.zeros(0, dtype=torch.int64)
    targets = torch.randint(1, V, (4, L), generator=torch.Generator().manual_seed(9))
    targets[2, -1] = 0  # counts for nothing
    batch = SequenceBatch(history, targets, empty, torch.zeros(0))
    got = model.loss(batch, torch.Generator().manual_seed(4)).parts["softmax"]
    rng = torch.Generator().manual_seed(4)
    t = torch.randint(1, 7, (3,), generator=rng)
    noise = torch.randn(3, 8, generator=rng)
    draws = torch.randn(3, L, 8, generator=rng)
    total = 0.0
    for n, row in enumerate([0, 1, 3]):
        target = int(targets[row, -1])
        abar = float(model.schedule.alpha_bar[t[n]])
        x = abar**0.5 * model.items.weight[target] + (1 - abar) ** 0.5 * noise[n]
        x = x + model.step()[t[n]]
        z = torch.stack(
            [
                model.norm(model.items.weight[item]) + 0.2 * (1 + draws[n, i]) * x
                for i, item in enumerate(history[row].tolist())
            ]
        )
        query = model.approximator(z.unsqueeze(0), history[row : row + 1] > 0)[0]
        logits = [float((query @ model.items.weight[v]).detach()) for v in range(1, V)]
        total += math.log(sum(math.exp(v) for v in logits)) - logits[target - 1]
    assert float(got.detach()) == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 33}, "steps = 33 must be in 0..T = 32"),
        ({"width": 130}, "width = 130 must be divisible by heads = 4"),
        ({"dropout": 2.0}, "dropout = 2.0: must be a number >= 0 and < 1"),
        ({"uncertainty": -0.1}, "uncertainty = -0.1: must be a number >= 0"),
        ({"layers": 0}, "layers = 0: must be an integer >= 1"),
        ({"schedule": {"steps": 0}}, "schedule.steps = 0"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")


def test_the_recipe_is_the_published_one_at_half_the_width() -> None:
    recipe = config.load("diffurec")
    made, published = recipe.model_config(), Config()
    assert made.width == 64 and published.width == 128
    assert all(
        getattr(made, name) == getattr(published, name)
        for name in Config.__struct_fields__
        if name != "width"
    )
    assert recipe.training.learning_rate == 0.001 and recipe.training.batch_size == 512


def test_item_vectors_start_as_long_as_the_option_says() -> None:
    """N(0, 1) as in the published code, or within Xavier's bound sqrt(6 / (V + d))."""
    starts = ("normal", "xavier")
    normal, xavier = (build(width=64, start=start).items.weight.detach() for start in starts)
    assert not bool(normal[0].any()) and not bool(xavier[0].any())
    assert float(normal[1:].std()) == pytest.approx(1, rel=0.1)
    bound = math.sqrt(6 / (V + 64))
    assert float(xavier.abs().max()) <= bound
    assert float(xavier[1:].std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert torch.equal(build(width=64).items.weight, normal)  # committed results were made so


def test_another_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="start"):
        build(start="zero")
