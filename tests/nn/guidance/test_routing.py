"""Dynamic routing step by step: by hand, and against plain loops."""

import math

import pytest
import torch
from torch import Tensor

from dimerec.nn.guidance import GuidanceConfig
from dimerec.nn.guidance.routing import DynamicRouting, opened, route, squash

L, D, K = 5, 3, 2


def routing(seed: int = 0, **options) -> DynamicRouting:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GuidanceConfig(kind="dynamic-routing", interests=K, **options)
        return DynamicRouting(config, D, L)


def hidden(history: Tensor) -> Tensor:
    table = 2 * torch.randn(9, D, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table[history]


def test_squash_by_hand() -> None:
    """Length 5 becomes 25 / 26: (3, 4) / 5 * 25 / 26."""
    got = squash(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(got, torch.tensor([[15 / 26, 20 / 26], [0.0, 0.0]]))


def test_two_items_and_two_interests_by_hand() -> None:
    """Votes (1, 0) and (0, 1); logits ln 3 for each item's own interest.

    Round 1: weights 3/4 and 1/4, so z = (0.75, 0.25), |z|^2 = 0.625, squashed by
    sqrt(0.625) / 1.625 = 0.486504 to (0.364878, 0.121626).
    Round 2: an item's logits now differ by ln 3 + 0.364878 - 0.121626 = 1.341864, weights
    0.792797 and 0.207203, |z|^2 = 0.671460, factor 0.819427 / 1.671460 = 0.490246.
    """
    votes = torch.eye(2)[None, None]  # [B, G, L, d]
    logits = math.log(3) * torch.eye(2)[None]  # [B, K, L]
    seen = torch.ones(1, 1, 2, dtype=torch.bool)
    active = torch.ones(1, 2, 1, dtype=torch.bool)
    first = torch.tensor([[0.364878, 0.121626], [0.121626, 0.364878]])
    second = torch.tensor([[0.388666, 0.101580], [0.101580, 0.388666]])
    for iterations, want in ((1, first), (2, second)):
        got = route(votes, logits, seen, active, iterations)[0, :, 0]
        torch.testing.assert_close(got, want, atol=2e-6, rtol=0)


def test_a_closed_interest_leaves_all_to_the_others() -> None:
    """One interest alone weighs every item by 1: z = (1, 1), squashed by sqrt(2) / 3."""
    seen = torch.ones(1, 1, 2, dtype=torch.bool)
    active = torch.tensor([[[True], [False]]])
    got = route(torch.eye(2)[None, None], torch.randn(1, 2, 2), seen, active, 3)[0, :, 0]
    third = math.sqrt(2) / 3
    torch.testing.assert_close(got, torch.tensor([[third, third], [0.0, 0.0]]))


def test_how_many_interests_a_history_has() -> None:
    count = torch.tensor([0, 1, 2, 3, 4, 7, 8, 15, 16, 99])
    assert opened(count, 4).sum(-1).tolist() == [1, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert bool(opened(count, 4)[:, 0].all())


def slow(gem: DynamicRouting, states: Tensor, history: Tensor) -> Tensor:
    """One history, vote by vote; items without padding, the oldest first."""
    items = [states[j] for j in range(len(history)) if history[j] > 0]
    count = K
    if gem.config.adaptive:
        count = max(1, min(K, math.floor(math.log2(len(items)))))
    votes, logits = {}, {}
    for i, item in enumerate(items):
        for k in range(count):
            shared = gem.config.routing == "shared"
            matrix = gem.maps if shared else gem.maps[i][:, k * D : (k + 1) * D]
            votes[i, k] = item @ matrix
            logits[i, k] = float(gem.logits[k, i])
    out = []
    for _ in range(gem.config.iterations):
        out = []
        for k in range(count):
            z = torch.zeros(D)
            for i in range(len(items)):
                total = sum(math.exp(logits[i, other]) for other in range(count))
                z = z + math.exp(logits[i, k]) / total * votes[i, k]
            norm = float(z.norm())
            out.append(z * norm / (1 + norm**2))
        for i, k in votes:
            logits[i, k] += float(votes[i, k] @ out[k])
    return torch.stack(out + [out[0]] * (K - count))


@pytest.mark.parametrize("shared", ["private", "shared"])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_history_by_a_plain_loop(shared: str, adaptive: bool, iterations: int) -> None:
    gem = routing(routing=shared, adaptive=adaptive, iterations=iterations)
    gem.requires_grad_(False)
    history = torch.tensor([[0, 0, 3, 1, 2], [4, 5, 6, 7, 1], [0, 0, 0, 0, 5], [0, 8, 8, 2, 3]])
    states = hidden(history)
    got = gem(states, history)
    for b in range(len(history)):
        torch.testing.assert_close(got[b], slow(gem, states[b], history[b]))


def test_the_interests_differ_from_the_start() -> None:
    history = torch.tensor([[4, 5, 6, 7, 1]])
    for kind in ("private", "shared"):
        made = routing(routing=kind)(hidden(history), history)[0]
        assert float((made[0] - made[1]).detach().norm()) > 0.05
    assert not bool(routing(routing="private").logits.any())
    assert [n for n, _ in routing(routing="shared").named_parameters()] == ["maps"]
    assert "logits" in routing(routing="shared").state_dict()


def test_gradients_see_the_weights_of_the_last_round_as_given() -> None:
    """The gradient of a vote is that of squash(w z), with w taken from the rounds before."""
    rng = torch.Generator().manual_seed(0)
    votes = torch.randn(1, 1, 2, D, generator=rng, requires_grad=True)
    logits = torch.randn(1, K, 2, generator=rng)
    seen = torch.ones(1, 1, 2, dtype=torch.bool)
    active = torch.ones(1, K, 1, dtype=torch.bool)
    (got,) = torch.autograd.grad(route(votes, logits, seen, active, 2).sum(), votes)
    before = route(votes, logits, seen, active, 1)[0, :, 0].detach()  # [K, d]
    weights = (logits[0] + before @ votes[0, 0].detach().T).softmax(0)  # [K, L]
    (want,) = torch.autograd.grad(squash(weights @ votes[0, 0]).sum(), votes)
    torch.testing.assert_close(got, want)
