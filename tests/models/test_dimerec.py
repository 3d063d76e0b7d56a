"""DimeRec's own rules: which steps train, how samples are used, what x_t = 0 means."""

import pytest
import torch
from torch import Tensor

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.dimerec import Config, Model
from dimerec.nn.losses import SoftmaxConfig

V, L = 30, 6


def build(**options) -> Model:
    made = config.convert(options, Config, "options")
    with randomness.torch_scope(0, "init"):
        model = Model(made, Catalogue(size=V, length=L, counts=torch.arange(float(V))))
        for layer in (model.dam.out,):  # starts at zero, where nothing depends on the noise
            torch.nn.init.normal_(layer.weight, std=0.1)
    return model.eval()


def batch() -> SequenceBatch:
    rng = torch.Generator().manual_seed(0)
    items = torch.randint(1, V, (4, L + 1), generator=rng)
    negatives = torch.randint(1, V, (8,), generator=rng)
    return SequenceBatch(items[:, :-1], items[:, 1:], negatives, torch.full((8,), -3.0))


def noise(model: Model, rows: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(rows, model.noise_draws, model.width, generator=rng)


def test_training_steps_are_the_noisy_ones() -> None:
    model = build()
    signal = model.schedule.alpha_bar.sqrt()
    assert signal[model.first_step] <= 0.03 < signal[model.first_step - 1]
    assert build(noisiest_only=1.0).first_step == 1
    assert build(noisiest_only=1e-6).first_step == 20  # none that noisy: the noisiest there is


def test_no_diffusion_draws_no_noise() -> None:
    model = build(space="none")
    assert model.noise_draws == 0
    losses = [
        model.loss(batch(), torch.Generator().manual_seed(seed)).total.detach() for seed in (1, 2)
    ]
    assert losses[0] == losses[1]
    assert model.encode(batch().history, noise(model)).shape == (4, 1, 64)


def test_diffusion_does() -> None:
    model = build()
    losses = [
        float(model.loss(batch(), torch.Generator().manual_seed(seed)).total.detach())
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("stochastic", "rows"), [(True, 5), (False, 1)])
def test_samples_are_chains_of_their_own_noise(stochastic: bool, rows: int) -> None:
    """Sample s uses rows [s R, (s + 1) R) of the noise; each is a chain run by itself."""
    options = {"steps": 5, "stochastic": stochastic, "merge": "each"}
    model = build(samples=3, **options)
    one = build(samples=1, **options)
    one.load_state_dict(model.state_dict())
    draws = noise(model)
    assert model.noise_draws == 3 * rows
    together = model.encode(batch().history, draws)
    for s in range(3):
        alone = one.encode(batch().history, draws[:, s * rows : (s + 1) * rows])
        torch.testing.assert_close(together[:, s : s + 1], alone)


def test_the_mean_of_samples_is_one_unit_query() -> None:
    each, mean = build(merge="each", samples=4), build(merge="mean", samples=4)
    mean.load_state_dict(each.state_dict())
    draws = noise(each)
    samples = each.encode(batch().history, draws)
    want = torch.nn.functional.normalize(samples.mean(1, keepdim=True), dim=-1)
    torch.testing.assert_close(mean.encode(batch().history, draws), want)


def test_the_trace_ends_with_the_answer() -> None:
    model = build(steps=4, samples=2, merge="each")
    trace: list[tuple[int, Tensor, Tensor]] = []
    got = model.encode(batch().history, noise(model), trace)
    assert [t for t, _, _ in trace] == [20, 15, 10, 5]
    torch.testing.assert_close(trace[-1][2], got)


def test_a_rollout_is_trained_on_every_step_of_its_chain() -> None:
    """Its losses are those of the chain run by hand with the same noise."""
    model = build(rollout=2, rollout_samples=3, softmax={"unit": True, "temperature": 0.5})
    data = batch()
    rng = torch.Generator().manual_seed(5)
    parts = model.loss(data, rng).parts
    from dimerec.nn.losses import Candidates, reconstruction_loss, softmax_loss

    guidance, at = model.gem.train_on(model.items(data.history), data)
    candidates = Candidates.of(data, at, model.config.softmax, model.items)
    draws = torch.randn(2, len(guidance), 3, 64, generator=torch.Generator().manual_seed(5))
    first = model.denoise(model.space.project(draws[0]), 20, guidance)
    middle = model.space.step(draws[0], first, 20, 10, draws[1])
    second = model.denoise(middle, 10, guidance)
    want = (softmax_loss(candidates, first) + softmax_loss(candidates, second)) / 2
    torch.testing.assert_close(parts["ssm"], want)
    both = torch.cat([first, second], 1)
    torch.testing.assert_close(parts["recon"], reconstruction_loss(candidates.positive, both))


@pytest.mark.parametrize("unit", [False, True])
def test_l_gem_is_the_loss_of_the_interest_closest_to_the_target(unit: bool) -> None:
    """Eqs. 18-19 by a plain loop: every target, from the interests of the history before it."""
    model, data = build(softmax={"unit": unit, "temperature": 0.5}).requires_grad_(False), batch()
    torch.nn.init.normal_(model.gem.position)  # starts at zero
    table, losses = model.item_vectors(), []
    for row in range(4):
        for at in range(L):
            prefix = torch.nn.functional.pad(data.history[row, : at + 1], (L - 1 - at, 0))
            target, costs, fits = int(data.targets[row, at]), [], []
            for interest in model.guide(prefix.unsqueeze(0))[0]:
                query = interest / interest.norm() if unit else interest
                others = [int(n) for n in data.negatives if int(n) != target]
                logits = torch.stack([query @ table[n] / 0.5 for n in (target, *others)])
                costs.append(-logits.log_softmax(0)[0])
                fits.append(float(query @ table[target]))
            losses.append(costs[fits.index(max(fits))])
    got = model.loss(data, torch.Generator().manual_seed(0)).parts["gem"]
    torch.testing.assert_close(got, torch.stack(losses).mean())


def test_eq_23_weighs_the_three_losses() -> None:
    model = build(gem=0.5, recon=2.0, ssm=3.0)
    losses = model.loss(batch(), torch.Generator().manual_seed(0))
    p = {n: float(v.detach()) for n, v in losses.parts.items()}
    want = 0.5 * p["gem"] + 2 * p["recon"] + 3 * p["ssm"]
    assert float(losses.total.detach()) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 21}, "steps = 21 must be in 1..T = 20 (schedule.steps)"),
        ({"rollout": 30}, "rollout = 30 must be in 0..T = 20 (schedule.steps)"),
        ({"guidance": {"interests": 0}}, "guidance.interests = 0: must be an integer >= 1"),
        (
            {"guidance": {"kind": "astrology"}},
            "guidance.kind = 'astrology': must be one of 'dynamic-routing', 'mlp', 'rule', "
            "'self-attentive', 'transformer'",
        ),
        (
            {"space": "curved"},
            "space = 'curved': must be one of 'euclidean', 'none', 'sphere', 'sphere-exponential'",
        ),
        ({"softmax": {"temperature": 0}}, "softmax.temperature = 0: must be a number > 0"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.convert(options, Config, "options")
    assert str(caught.value) == f"options: {message}"


def test_the_paper_recipe_reads_as_the_paper() -> None:
    recipe = config.load("dimerec-paper")
    options = recipe.model_config()
    assert options.schedule.steps == 20 and options.guidance.interests == 4
    assert options.width == 64 and recipe.training.learning_rate == 0.005
    assert recipe.negatives.number == 10 and recipe.negatives.private
    assert recipe.training.batch_size == 256
    assert options.softmax == SoftmaxConfig(unit=False, temperature=1.0, logq=False)
