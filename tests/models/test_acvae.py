"""ACVAE's own maths: encoder, adversary and critic by hand, who learns from what, noise."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dimerec import config, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue
from dimerec.models.acvae import Adversary, Config, Critic, Encoder, Model, to_front

V, L = 20, 7
NONE = torch.zeros(0, dtype=torch.int64), torch.zeros(0)


def build(**options) -> Model:
    made = config.convert({"width": 6, "hidden": 4, "latent": 3} | options, Config, "options")
    with randomness.torch_scope(0, "init"):
        return Model(made, Catalogue(size=V, length=L, counts=torch.ones(V))).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> SequenceBatch:
    items = torch.randint(1, V, (3, L + 1), generator=generator())
    items[1, :2] = 0
    targets = torch.where(items[:, :-1] > 0, items[:, 1:], 0)
    return SequenceBatch(items[:, :-1], targets, *NONE)


def zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.zero_()


@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4))
def test_padding_goes_behind(rows: list[list[int]]) -> None:
    rows = [[0] * row.count(0) + [i for i in row if i] for row in rows]
    history = torch.tensor(rows)
    want = [[i for i in row if i] + [0] * row.count(0) for row in rows]
    assert history.gather(1, to_front(history)).tolist() == want


def test_the_encoder_by_hand() -> None:
    """Width 1, states 1 and 2, no noise; sp is softplus, ln(1 + e^x).

    Before: sp(1) = 1.313262, sp(2) = 2.126928. The convolution weighs the last position 1, this one
    2: 2.626523 and 5.567118, of which sp is 2.696356 and 5.570932. After: sp again, 2.761630 and
    5.574732, and with the residual 3.761630 and 7.574732; the latent is twice that, less 1.
    """
    net = Encoder(1, 1, 0.0)
    zero(net)
    with torch.no_grad():
        net.before.weight.fill_(1)
        net.wide.weight[0, 0, 3:] = torch.tensor([1.0, 2.0])
        net.after.weight[0, 0] = 1
        net.out.weight.fill_(2)
        net.out.bias.fill_(-1)
        x, real = torch.tensor([[[1.0], [2.0]]]), torch.ones(1, 2).bool()
        got = net(x, torch.zeros(2, 1, 2, 1), real).flatten()
        assert got.tolist() == pytest.approx([2 * 3.761630 - 1, 2 * 7.574732 - 1], abs=1e-5)
        # noise of tanh 0.5 = 0.462117 through a weight of 1, on both ways in
        net.noise.weight.fill_(1)
        noisy = net(x, torch.full((2, 1, 2, 1), 0.5), real).flatten()
        first = math.log1p(math.exp(1.462117)) + 0.462117
        inner = math.log1p(math.exp(2 * first))
        want = 2 * (1 + math.log1p(math.exp(inner))) - 1
        assert float(noisy[0]) == pytest.approx(want, abs=1e-5)


def test_the_encoder_against_plain_loops() -> None:
    """Five positions seen, none of them ahead, nothing before the first real one."""
    with randomness.torch_scope(1, "init"):
        net = Encoder(3, 2, 0.5)
    x = torch.randn(2, L, 3, generator=generator())
    noise = torch.randn(2, 2, L, 3, generator=generator(1))
    real = torch.ones(2, L).bool()
    real[1, :3] = False
    with torch.no_grad():
        got = net(x, noise, real)
        for b in range(2):
            inputs = []
            for i in range(L):
                first, second = (torch.tanh(net.noise(noise[k, b, i])) for k in range(2))
                inputs.append(F.softplus(net.before(x[b, i] + first)) + second)
            for i in range(L):
                if not real[b, i]:
                    continue
                wide = net.wide(torch.zeros(1, 3, 5))[0, :, 0]
                for back in range(5):
                    if i - back >= 0 and real[b, i - back]:
                        wide += net.wide.weight[:, :, 4 - back] @ inputs[i - back]
                y = x[b, i] + F.softplus(net.after(F.softplus(wide)))
                torch.testing.assert_close(got[b, i], net.out(y), atol=1e-5, rtol=1e-5)


def test_the_adversary_by_hand() -> None:
    """x = 2, z = 3. One way in: 2 - 3 = -1; the first step makes it -1 + 0.5 * 2 * -1 = -2.

    elu(-2) = e^-2 - 1 = -0.864665; the second step adds nothing: elu again, -0.578808. And z^2 / 2.
    """
    net = Adversary(1, 1)
    zero(net)
    with torch.no_grad():
        net.first.weight[7] = torch.tensor([1.0, -1.0])
        net.inner[0].weight[9, 7], net.outer[0].weight[7, 9] = 2, 0.5  # pyright: ignore
        net.last.weight[0, 7] = 1
        got = net(torch.tensor([[2.0]]), torch.tensor([[3.0]]), None)
    assert float(got) == pytest.approx(4.5 - 0.578808, abs=1e-5)


def test_the_critic_by_hand() -> None:
    """x = 2, 1 and z = 1, 3. One way in, to the new state of the recurrence: 2 - 1 and 1 - 3.

    Both gates are 0.5: the states are 0.5 tanh 1 = 0.380797 and 0.5 tanh -2 + 0.5 * 0.380797 =
    -0.291615. gelu: 0.380797 * 0.648323 = 0.246880 and -0.291615 * 0.385290 = -0.112357; the logit
    is 4 times that, less 1.
    """
    net = Critic(1, 1)
    zero(net)
    with torch.no_grad():
        net.recurrent.all_weights[0][0][2 * 128 + 7] = torch.tensor([1.0, -1.0])
        net.out.weight[0, 7] = 4
        net.out.bias.fill_(-1)
        got = net(torch.tensor([[[2.0], [1.0]]]), torch.tensor([[[1.0], [3.0]]]))
    want = [4 * 0.246880 - 1, 4 * -0.112357 - 1]
    assert got[0].tolist() == pytest.approx(want, abs=1e-5)


@pytest.mark.slow
def test_the_adversary_learns_the_divergence() -> None:
    """q = N(1, 0.25), prior N(0, 1): KL = (0.25 + 1 - 1 - ln 0.25) / 2 = 0.818."""
    model, rng, nothing = build(latent=1), generator(), torch.zeros(256, 6)
    adam = torch.optim.Adam(model.adversary.parameters(), lr=0.005)
    logits = []
    for step in range(400):
        z = 1 + 0.5 * torch.randn(256, 1, generator=rng)
        loss = model.doubt(nothing, z, rng)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step >= 200:  # single steps swing around the optimum, their mean does not
            with torch.no_grad():
                z = 1 + 0.5 * torch.randn(1024, 1, generator=rng)
                logits.append(model.adversary(torch.zeros(1024, 6), z, None).mean())
    assert float(torch.stack(logits).mean()) == pytest.approx(0.818, abs=0.12)


class Fixed(nn.Module):
    """An adversary whose logits are one learned number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, z: Tensor, rng: torch.Generator | None) -> Tensor:
        return self.value.expand_as(z)


def test_divergence_and_doubt_by_hand() -> None:
    """All logits 2: the divergence is 2, the doubt ln(1 + e^-2) + ln(1 + e^2) = 2.253856."""
    model = build()
    model.adversary = Fixed(2.0)  # pyright: ignore[reportAttributeAccessIssue]
    losses = model.loss(batch(), generator())
    assert float(losses.parts["kl"].detach()) == pytest.approx(2.0)
    assert float(losses.parts["adversary"].detach()) == pytest.approx(2.253856)
    assert losses.weights == {"softmax": 1.0, "kl": 0.05, "contrast": 0.1, "adversary": 1.0}
    assert not bool(model.loss(batch(), generator()).parts["kl"].requires_grad)


def test_everyone_learns_from_what_is_theirs() -> None:
    """The adversary from its own loss alone; that loss teaches nobody else."""
    model = build()
    for name, learners in {
        "adversary": {"adversary"},
        "kl": {"inputs", "recurrent", "encoder"},
        "contrast": {"inputs", "recurrent", "encoder", "critic"},
        "softmax": {"inputs", "recurrent", "encoder", "decoder", "items"},
    }.items():
        model.zero_grad()
        model.loss(batch(), generator()).parts[name].backward()
        moved = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
        assert moved == learners, name


def test_the_losses_one_user_at_a_time() -> None:
    """Without padding moved: z of each user alone, and the critic with the next user's z."""
    model, data = build(dropout=0.0), batch()
    got = model.loss(data, generator(4)).parts
    noise = torch.randn(2, 3, L, 4, generator=generator(4))
    found = []
    with torch.no_grad():
        for row in range(3):
            items = data.history[row][data.history[row] > 0]
            x = F.pad(model.inputs.weight[items], (0, 0, 0, L - len(items))).unsqueeze(0)
            states = model.recurrent(x)[0]
            real = torch.arange(L).unsqueeze(0) < len(items)
            found.append((x, model.encoder(states, noise[:, row : row + 1], real), len(items)))
        costs, contrasts = [], []
        for row, (x, z, n) in enumerate(found):
            other = found[(row + 1) % 3][1]
            joint, shuffled = model.critic(x, z)[0, :n], model.critic(x, other)[0, :n]
            contrasts += [
                math.log1p(math.exp(-float(a))) + math.log1p(math.exp(float(b)))
                for a, b in zip(joint, shuffled, strict=True)
            ]
            targets = data.targets[row][data.targets[row] > 0]
            for at, target in enumerate(targets.tolist()):
                hidden = torch.tanh(model.decoder(z[0, at]))
                logits = model.items.weight[1:, :-1] @ hidden + model.items.weight[1:, -1]
                costs.append(float(logits.logsumexp(0) - logits[target - 1]))
    assert float(got["softmax"].detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-4)
    assert float(got["contrast"].detach()) == pytest.approx(
        sum(contrasts) / len(contrasts), rel=1e-4
    )


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_recommending_needs_the_noise_of_the_last_five_alone(count: int) -> None:
    """The whole sequence through the encoder, with that noise behind any other, is the same."""
    model = build()
    history = torch.zeros(1, L, dtype=torch.int64)
    history[0, L - count :] = torch.arange(1, count + 1)
    noise = torch.randn(1, model.noise_draws, model.width, generator=generator())
    assert model.noise_draws * model.width >= 2 * 5 * 4 > (model.noise_draws - 1) * model.width
    draws = noise.flatten()[:40].view(2, 5, 4)
    whole = torch.randn(2, 1, count, 4, generator=generator(1))
    whole[:, 0, -5:] = draws[:, -min(5, count) :]
    x = model.inputs(history[:, L - count :])
    z = model.encoder(model.recurrent(x)[0], whole, torch.ones(1, count).bool())
    torch.testing.assert_close(model.encode(history, noise), model.query(z[:, -1:]))
    for place in range(5):  # the draws of places before the first item count for nothing
        changed = draws.clone()
        changed[:, place] += 1
        other = F.pad(changed.flatten(), (0, noise.numel() - 40)).view_as(noise)
        same = torch.allclose(model.encode(history, other), model.encode(history, noise), atol=1e-6)
        assert same == (place < 5 - count), place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent = 0: must be an integer >= 1"),
        ({"hidden": 0}, "hidden = 0: must be an integer >= 1"),
        ({"dropout": 1.0}, "dropout = 1.0: must be a number >= 0 and < 1"),
        ({"kl": -0.1}, "kl = -0.1: must be a number >= 0"),
        ({"contrast": -1.0}, "contrast = -1.0: must be a number >= 0"),
        ({"softmax": {"unit": True}}, "softmax.unit must be false"),
    ],
)
def test_wrong_options_fail_at_load(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.convert(options, Config, "options")


def test_the_recipe_is_the_published_one_at_the_common_width() -> None:
    assert config.load("acvae").model_config() == Config(width=64, hidden=64)
