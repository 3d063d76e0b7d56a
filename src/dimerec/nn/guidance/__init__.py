"""GEM: a history becomes K interests, the guidance of the diffusion (Eq. 13)."""

from jaxtyping import Float
from torch import Tensor

from dimerec.nn.guidance.attention import SelfAttentive
from dimerec.nn.guidance.contract import GuidanceConfig, GuidanceExtractor
from dimerec.nn.guidance.pooled import PooledMLP
from dimerec.nn.guidance.routing import DynamicRouting
from dimerec.nn.guidance.rules import RuleBased
from dimerec.nn.guidance.states import TransformerStates

__all__ = [
    "DynamicRouting",
    "GuidanceConfig",
    "GuidanceExtractor",
    "PooledMLP",
    "RuleBased",
    "SelfAttentive",
    "TransformerStates",
    "extractor",
]


def extractor(
    config: GuidanceConfig, width: int, length: int, counts: Float[Tensor, "V"]
) -> GuidanceExtractor:
    """The extractor that `config` names."""
    if config.kind == "rule":
        return RuleBased(config, counts)
    if config.kind == "dynamic-routing":
        return DynamicRouting(config, width, length)
    if config.kind == "transformer":
        return TransformerStates(config, width, length)
    if config.kind == "mlp":
        return PooledMLP(config, width)
    return SelfAttentive(config, width, length)
