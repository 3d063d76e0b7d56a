"""DimeRec and ComiRec with every guidance of the paper's Table 3, set by options alone."""

import pytest
import torch

from dimerec import config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.errors import ConfigError
from dimerec.model import Catalogue, SequentialModel
from dimerec.serving import compiled

V, L, D, K = 20, 5, 8, 3
KINDS = ("self-attentive", "dynamic-routing", "transformer", "mlp", "rule")


def build(model: str, kind: str, **more: str) -> SequentialModel:
    module = plugins.load("dimerec.models", model)
    options = {"width": D, "guidance": {"kind": kind, "interests": K, **more}}
    catalogue = Catalogue(size=V, length=L, counts=torch.ones(V))
    with randomness.torch_scope(0, "init"):
        made = module.Model(config.convert(options, module.Config, "options"), catalogue)
        if model == "dimerec":
            torch.nn.init.normal_(made.dam.out.weight)  # at zero it passes nothing back
    return made


@pytest.mark.parametrize("model", ["dimerec", "comirec"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_guidance_is_learned_at_every_position(model: str, kind: str) -> None:
    made = build(model, kind)
    assert made.targets == "all"
    history = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 6, 7, 8]])
    targets = torch.tensor([[0, 0, 2, 3, 9], [5, 6, 7, 8, 9]])
    empty = torch.zeros(0, dtype=torch.int64)
    batch = SequenceBatch(history, targets, empty, empty.float())
    losses = made.train().loss(batch, torch.Generator().manual_seed(0)).total
    losses.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()) or "position" in name, f"{name} learns nothing"
    queries = made.eval().encode(history, torch.zeros(2, made.noise_draws, D))
    assert queries.shape == (2, 1 if model == "dimerec" else K, D)


@pytest.mark.parametrize("model", ["dimerec", "comirec"])
def test_a_width_that_the_heads_do_not_divide_fails_at_load(model: str) -> None:
    overrides = [
        "options.guidance.kind=transformer",
        "options.guidance.transformer.heads=3",
    ]
    message = "width = 64 must be divisible by guidance.transformer.heads = 3"
    with pytest.raises(ConfigError, match=message):
        config.load(model, overrides)


@pytest.mark.parametrize("kind", ["transformer", "rule", "popular", "explore"])
def test_every_guidance_is_one_graph_for_any_batch(kind: str) -> None:
    rule = {"rule": kind} if kind not in KINDS else {}
    made = build("dimerec", "rule" if rule else kind, **rule).eval().requires_grad_(False)
    graph = compiled.exported(made, L).module()
    for rows in (1, 3):
        history, noise = compiled.inputs(made, L, rows)
        torch.testing.assert_close(graph(history, noise), made.encode(history, noise))
