"""BERT4Rec: a transformer that reads both ways and guesses the items hidden from it.

Sun, Liu, Wu, Pei, Lin, Ou and Jiang, "BERT4Rec: Sequential Recommendation with Bidirectional
Encoder Representations from Transformer", CIKM 2019; official code: github.com/FeiSun/BERT4Rec.
In training some items of a window are replaced by a mask token and guessed from both sides (the
cloze task); to recommend, a mask token is put behind the history, and what it hides is guessed.

Where paper and code differ, this file follows the code, which made the published figures:
- A share rho of a window is n rho items, rounded, and at least one: not a draw for every item.
- Of a user's eleven masked copies of a window one hides the last item alone: `last` = 1/11. The
  paper has such samples too, and does not say how many.
- The loss is the mean over all hidden items of a batch, not first over those of each window.
- Layer norms stand on the embeddings and on the prediction's layer too.
Where this file differs from the code:
- Copies of a window are masked anew whenever it is read, instead of ten copies made beforehand.
- A window is the `length` items of a history and the target behind it, `length` + 1 in all;
  positions count from its end, so that padding on the left changes nothing. The code's windows
  overlap and hold `length` items, so that a history there loses one to the mask token.
- Events of the validation split are not trained on; the code adds them to the training data.
- Adam at one rate, without the code's warm-up, linear decay, decay of weights and clipping.

How long it is trained decides what it is: Petrov and Macdonald, "A Systematic Review and
Replicability Study of BERT4Rec for Sequential Recommendation", RecSys 2022, could not reproduce
the published figures with the default settings of the implementations that they tried, and did
with the official code after up to 30 times as much training.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Rate, Struct
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.pieces import by_length
from dimerec.nn.transformer import BertBlock, check_heads, dropout

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Config(Struct, frozen=True):
    """BERT4Rec's options; the defaults are those of the official code for ML-1M.

    Attributes:
        width: d, divisible by `heads`.
        layers, heads: depth and attention heads.
        dropout: rate on embeddings, attention weights and hidden layers while training.
        masked: rho, the share of a window's items that are hidden.
        last: the share of windows in which the last item alone is hidden.
        bias: one number an item is added to its logit. It takes one more column of the vectors.
        softmax: see its struct; published: all items, raw inner products.
    """

    width: Annotated[int, Meta(ge=2)] = 64
    layers: Positive = 2
    heads: Positive = 2
    dropout: Rate = 0.2
    masked: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2
    last: Share = 1 / 11
    bias: bool = True
    softmax: SoftmaxConfig = SoftmaxConfig()

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        if self.bias and self.softmax.unit:
            raise ValueError("bias = true needs softmax.unit = false: a cosine has no bias")


def cloze(
    real: Bool[Tensor, "B W"], share: float, last: float, rng: Generator
) -> Bool[Tensor, "B W"]:
    """Which items of the windows to hide, among those that are `real`.

    Of the n of a row round(n share) are drawn without replacement, and at least one; with the
    probability `last` it is the last of them alone.
    """
    count = real.sum(1, keepdim=True)
    hidden = (count * share + 0.5).floor().clamp_min(1)
    draws = torch.rand(real.shape, generator=rng, device=real.device)
    order = draws.masked_fill(~real, 2.0).argsort(1)
    place = torch.arange(real.shape[1], device=real.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place)
    behind = real.flip(1).cumsum(1).flip(1)  # 1 at the last one
    only = torch.rand(len(real), 1, generator=rng, device=real.device) < last
    return torch.where(only, behind == 1, rank < hidden) & real


class Model(SequentialModel):
    """One query: the prediction at a mask token behind the history, and a 1 where items have a
    bias. One pass learns from every hidden item of a window."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width + config.bias
        width = config.width
        self.items = ItemEmbedding(catalogue.size, self.width, unit=config.softmax.unit)
        self.mask = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(catalogue.length + 1, width))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(
            BertBlock(width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.out = nn.Linear(width, width)
        self.out_norm = nn.LayerNorm(width, eps=1e-12)
        with torch.no_grad():
            linear = [m for m in self.modules() if isinstance(m, nn.Linear)]
            tables = self.items.weight[1:, :width], self.mask, self.position
            for weight in (*tables, *(m.weight for m in linear)):
                nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
            for layer in linear:
                layer.bias.zero_()
            self.items.weight[:, width:] = 0

    def states(
        self, window: Int[Tensor, "B W"], hidden: Bool[Tensor, "B W"], rng: Generator | None = None
    ) -> Float[Tensor, "B W d"]:
        """The state of every position of windows of which `hidden` is masked."""
        x = self.items(window)[..., : self.config.width]
        x = torch.where(hidden.unsqueeze(-1), self.mask, x)
        return by_length(self._read, x, (window > 0) | hidden, rng)

    def _read(
        self, x: Float[Tensor, "B W d"], real: Bool[Tensor, "B W"], rng: Generator | None
    ) -> Float[Tensor, "B W d"]:
        x = dropout(self.norm(x + self.position[-x.shape[1] :]), self.config.dropout, rng)
        for block in self.blocks:
            x = block(x, real[:, None, None], rng)
        return x

    def query(self, states: Float[Tensor, "*n d"]) -> Float[Tensor, "*n w"]:
        """What the states predict: a layer, and a 1 for the bias."""
        made = self.out_norm(F.gelu(self.out(states)))
        return F.pad(made, (0, 1), value=1.0) if self.config.bias else made

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """The mean over all hidden items. Private negatives stand at the targets: with such, a
        window's first item, which is none, is never hidden."""
        config, private = self.config, batch.negatives.dim() == 3
        last = batch.targets[:, -1:]
        window = torch.cat([batch.history, last], dim=1)
        row = last[:, 0] > 0  # the others have nothing behind their history
        window, targets = window[row], batch.targets[row]
        real = F.pad(targets > 0, (1, 0)) if private else window > 0
        hidden = cloze(real, config.masked, config.last, rng)
        queries = self.query(self.states(window, hidden, rng)[hidden])
        negatives, log_q = batch.negatives, batch.log_q
        if private:
            negatives, log_q = (x[row][hidden[:, 1:]] for x in (negatives, log_q))
        candidates = Candidates(config.softmax, self.items, window[hidden], negatives, log_q)
        loss = softmax_loss(candidates, queries.unsqueeze(1))
        return LossParts({config.softmax.loss: loss}, {config.softmax.loss: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        window = F.pad(history, (0, 1))
        hidden = torch.zeros_like(window, dtype=torch.bool)
        hidden[:, -1] = True
        return self.query(self.states(window, hidden)[:, -1:])

    def item_vectors(self) -> Tensor:
        return self.items.table()
