"""What every extractor is asked for, and how it is configured."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct
from dimerec.nn.transformer import TransformerConfig, check_heads

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class GuidanceConfig(Struct, frozen=True):
    """Which extractor, and its size.

    Attributes:
        kind: "self-attentive" (Eqs. 16-17), "dynamic-routing" (MIND, ComiRec-DR), "transformer"
            (SASRec's latest K states; with K = 1 its one state), "mlp" (of the history's mean),
            "rule" (Eq. 15).
        interests: K.
        positions: where the self-attentive scores get their sense of order. "end" adds position
            vectors counted from the end of the history inside the MLP, as Eq. 16 is written; one
            target a history can be learned. "distance" adds a learned bias for each distance to
            the current position outside it, so that one pass serves every position.
        rule: "last" keeps the latest K, "popular" the K most popular by training counts,
            "explore" reserves `explore` of the K places for the least exposed ones.
        explore: share of the K places that "explore" reserves.
        routing: "private" gives each place in the history and interest its own map, and logits
            that start at zero, as ComiRec-DR; "shared" has one map, and fixed random logits that
            tell the interests apart, as MIND.
        iterations: rounds of dynamic routing.
        adaptive: short histories are routed to fewer interests, max(1, min(K, log2 n)) rounded
            down for n items; the places left over repeat the first interest.
        transformer: of the "transformer" kind; see its struct.
    """

    kind: Literal["self-attentive", "dynamic-routing", "transformer", "mlp", "rule"] = (
        "self-attentive"
    )
    interests: Positive = 4
    positions: Literal["distance", "end"] = "distance"
    rule: Literal["last", "popular", "explore"] = "last"
    explore: Share = 0.25
    routing: Literal["private", "shared"] = "private"
    iterations: Positive = 3
    adaptive: bool = False
    transformer: TransformerConfig = TransformerConfig()

    def check(self, width: int) -> None:
        """ValueError where the extractor cannot have the width `width`."""
        if self.kind == "transformer":
            check_heads(width, self.transformer.heads, "guidance.transformer.heads")


class GuidanceExtractor(nn.Module, ABC):
    """K interests of a history's last position, or of all its positions at once.

    Attributes:
        causal: whether `every` exists, so that one pass trains all positions.
    """

    causal: bool = False

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B K d"]:
        """Interests g^u after the last position; `hidden` is H^u, the encoded history."""

    def every(
        self, hidden: Float[Tensor, "B L d"], history: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L K d"]:
        """Interests after every position, each from the positions up to it."""
        raise TypeError(f"{type(self).__name__} extracts guidance for the last position only")

    def train_on(
        self, hidden: Float[Tensor, "B L d"], batch: SequenceBatch, rng: Generator | None = None
    ) -> tuple[Float[Tensor, "N K d"], Bool[Tensor, "B L"]]:
        """Interests before each of the batch's N targets, and where those stand: every position
        in one pass when `causal`, else the last column alone. `rng` drives dropout."""
        at = batch.targets > 0
        if self.causal:
            return self.every(hidden, batch.history)[at], at
        at[:, :-1] = False
        return self(hidden, batch.history)[at[:, -1]], at
