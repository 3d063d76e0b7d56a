"""The denoiser by its formula, sample by sample."""

import pytest
import torch
import torch.nn.functional as F

from dimerec.nn.denoiser import Denoiser, DenoiserConfig

D, K, T = 6, 3, 20


def denoiser(kind: str) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Denoiser(DenoiserConfig(kind=kind, hidden=7), D, K, T)
        torch.nn.init.normal_(made.out.weight)
        return made


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_one_sample_at_a_time(kind: str) -> None:
    net, x, g = denoiser(kind), draw(0, 2, 4, D), draw(1, 2, K, D)
    t = torch.tensor([[1, 5, 9, 20], [2, 2, 20, 3]])
    got = net(x, t, g)
    for n in range(2):
        for s in range(4):
            step = net.step.project(net.step.angles[t[n, s]])
            hidden = net.on_x(x[n, s]) + net.on_t(step)
            if kind == "mlp":
                want = net.out(F.gelu(hidden + net.on_g(g[n].flatten())))
            else:
                query = net.query_x(x[n, s]) + net.query_t(step)
                weights = torch.stack([query @ net.key(g[n, k]) for k in range(K)]) / D**0.5
                pooled = sum(w * g[n, k] for k, w in enumerate(weights.softmax(0)))
                want = pooled + net.out(F.gelu(hidden + net.on_g(pooled)))
            torch.testing.assert_close(got[n, s], want, atol=1e-5, rtol=1e-4)


def test_attention_starts_inside_its_interests() -> None:
    """The residual starts at zero: before training x_0-hat is a mean of the interests."""
    net, g = Denoiser(DenoiserConfig(), D, K, T), draw(1, 2, K, D)
    got = net(draw(0, 2, 1, D), torch.ones(2, 1, dtype=torch.int64), g)[:, 0]
    low, high = g.amin(1), g.amax(1)
    assert bool(((got >= low - 1e-6) & (got <= high + 1e-6)).all())


def test_the_step_matters() -> None:
    net, x, g = denoiser("attention"), draw(0, 1, 1, D), draw(1, 1, K, D)
    a, b = (net(x, torch.tensor([[t]]), g) for t in (1, 20))
    assert float((a - b).abs().max().detach()) > 1e-3
