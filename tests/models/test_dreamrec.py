"""DreamRec's own rules: classifier-free guidance, its chain, its loss."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.dreamrec import Config, Model

V, L = 30, 5


def build(**options) -> Model:
    made = config.convert({"width": 8, "schedule": {"steps": 6}} | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        return Model(made, Catalogue(size=V, length=L, counts=torch.ones(V))).eval()


def batch(seed: int = 0) -> SequenceBatch:
    items = torch.randint(1, V, (4, L + 1), generator=torch.Generator().manual_seed(seed))
    empty = torch.zeros(0, dtype=torch.int64)
    history, targets = items[:, :-1].clone(), items[:, 1:].clone()
    history[1, :2] = targets[1, :2] = 0
    return SequenceBatch(history, targets, empty, torch.zeros(0))


def halves(strength: float, steps: int) -> Model:
    """d = 2 and f(x, c, t) = x / 2 + c, null vector (0, 1); every beta is 1/2."""
    schedule = {"kind": "linear", "steps": steps, "first": 0.5, "last": 0.5}
    model = build(width=2, strength=strength, schedule=schedule)
    with torch.no_grad():
        model.null.copy_(torch.tensor([0.0, 1.0]))
        model.denoiser.inner.weight.copy_(
            torch.tensor([[0.5, 0, 1, 0, 0, 0], [0, 0.5, 0, 1, 0, 0]])
        )
        model.denoiser.inner.bias.zero_()
    return model


def test_classifier_free_guidance_by_hand() -> None:
    """3 (x/2 + c) - 2 (x/2 + null) for w = 2, x = (2, -4), c = (1, 0):
    3 (2, -2) - 2 (1, -1) = (4, -4)."""
    start = torch.tensor([[[2.0, -4.0]]])
    guidance = torch.tensor([[1.0, 0.0]])
    got = halves(strength=2, steps=1).chain(guidance, start)
    assert got[0].tolist() == pytest.approx([4, -4])
    without = halves(strength=0, steps=1).chain(guidance, start)
    assert without[0].tolist() == pytest.approx([2, -2])


def test_the_chain_draws_from_the_posterior_by_hand() -> None:
    """alpha_bar = 1/2, 1/4. From x_2 = (2, -4), x_0-hat = (2, -2): the mean weighs both by
    sqrt(1/2) (1/2) / (3/4) = 0.4714045, the variance is (1/2) / (3/4) / 2 = 1/3. With noise
    (1, -1): x_1 = (1.8856181 + 0.5773503, -2.8284271 - 0.5773503). The last step answers
    x_1 / 2 + c without noise."""
    noise = torch.tensor([[[2.0, -4.0]], [[1.0, -1.0]]])
    got = halves(strength=0, steps=2).chain(torch.tensor([[1.0, 0.0]]), noise)
    assert got[0].tolist() == pytest.approx([2.2314842, -1.7028887])


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_loss_against_a_plain_loop(kind: str) -> None:
    """Every target by itself, the denoiser on the concatenation [x_t, c, t] as it is published."""
    model = build(denoiser=kind, unguided=0.5, transformer={"dropout": 0.0})
    data = batch()
    got = model.loss(data, torch.Generator().manual_seed(3)).parts["mse"]
    places = [tuple(p) for p in (data.targets > 0).nonzero().tolist()]
    rng = torch.Generator().manual_seed(3)
    kept = torch.rand(len(places), 1, generator=rng)[:, 0] >= 0.5
    t = torch.randint(1, 7, (len(places),), generator=rng)
    noise = torch.randn(len(places), 8, generator=rng)
    assert 0 < int(kept.sum()) < len(places)
    guidance, table = model.guide(data.history), model.denoiser.step()
    layers = [m for m in model.denoiser.outer.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == (kind == "mlp")
    total = 0.0
    for n, (row, column) in enumerate(places):
        x0 = model.items.weight[data.targets[row, column]]
        abar = float(model.schedule.alpha_bar[t[n]])
        x = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise[n]
        c = guidance[row, column] if kept[n] else model.null
        joined = torch.cat([x, c, table[t[n]]])
        hidden = model.denoiser.inner.weight @ joined + model.denoiser.inner.bias
        for outer in layers:
            hidden = outer.weight @ F.gelu(hidden) + outer.bias
        total += float((x0 - hidden).square().mean().detach())
    assert float(got.detach()) == pytest.approx(total / len(places), rel=1e-5)


def test_the_null_vector_replaces_the_guidance() -> None:
    """At p near 1 no history matters, and nothing but the null vector guides; at 0 it never does."""
    data, other = batch(), batch(seed=1)
    other = SequenceBatch(
        other.history * (data.history > 0), data.targets, data.negatives, data.log_q
    )

    def losses(model: Model) -> list[float]:
        rngs = [torch.Generator().manual_seed(2) for _ in range(2)]
        return [float(model.loss(b, r).total.detach()) for b, r in zip((data, other), rngs)]

    always = losses(build(unguided=0.999999))
    assert always[0] == always[1]
    never = build(unguided=0.0, strength=0.0)
    first, second = losses(never)
    assert first != second
    never.loss(data, torch.Generator().manual_seed(2)).total.backward()
    assert never.null.grad is not None and not bool(never.null.grad.any())


def test_items_start_from_a_standard_normal_and_reach_the_transformer_unscaled() -> None:
    model = build(width=64)
    weight = model.items.weight.detach()
    assert float(weight[1:].std()) == pytest.approx(1, abs=0.05) and not bool(weight[0].any())
    assert float(model.transformer.position.detach().std()) == pytest.approx(1, abs=0.25)
    seen: list[Tensor] = []
    model.transformer.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    history = batch().history
    model.guide(history)
    real = (history > 0).unsqueeze(-1)
    torch.testing.assert_close(seen[0], (weight[history] + model.transformer.position) * real)


def test_every_row_of_noise_counts() -> None:
    model = build(steps=3)
    assert model.noise_draws == 3 and dict(model.sampling) == {"samples": 1, "steps": 3}
    assert build().noise_draws == 6
    rng = torch.Generator().manual_seed(0)
    noise, history = torch.randn(4, 3, 8, generator=rng), batch().history
    query = model.encode(history, noise)
    assert query.shape == (4, 1, 8)
    for row in range(3):
        changed = noise.clone()
        changed[:, row] += 1
        assert float((model.encode(history, changed) - query).abs().max().detach()) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 501}, "steps = 501 must be in 0..T = 500"),
        (
            {"width": 63, "transformer": {"heads": 2}},
            "divisible by transformer.heads = 2, which can be 1, 3",
        ),
        ({"unguided": 1.0}, "unguided = 1.0: must be a number >= 0 and < 1"),
        ({"strength": -1.0}, "strength = -1.0: must be a number >= 0"),
        ({"unguided": 0.0}, "strength = 2 needs unguided > 0"),
        ({"transformer": {"dropout": 2.0}}, "transformer.dropout = 2.0"),
        ({"denoiser": "gru"}, "must be one of 'linear', 'mlp'"),
        ({"schedule": {"kind": "astrology"}}, "exponential"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")


def test_the_recipe_is_the_published_command() -> None:
    recipe = config.load("dreamrec")
    assert recipe.model_config() == Config() and Config().schedule.steps == 500
    assert recipe.training.learning_rate == 0.001 and recipe.training.batch_size == 256
    assert recipe.negatives.kind == "none"
