"""GRU4Rec: a recurrent network whose state after an item is the query.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016; Hidasi
and Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based Recommendations",
CIKM 2018; official code: github.com/hidasib/GRU4Rec_PyTorch_Official.

Where papers and code differ, this file follows the code, which holds the tuned settings:
- Constrained embedding: one table is both the input and the output. Without it inputs have a
  table of their own; the one-hot input of the first paper, still in the code, is not here.
- The code's cell is PyTorch's, which applies the reset gate after the recurrent product.
- Dropout on a state falls on what is carried to the next item too.
- Cross-entropy is the sampled softmax with an optional logQ correction, of which the papers do
  not know; BPR-max has an ELU before it; TOP1 and its relatives are gone.
- Embeddings and each gate start from Xavier's uniform distribution, biases from zero.
Where this file differs from the code:
- Windows with all positions as targets, every one starting from a zero state, in the place of
  session-parallel batches; gradients flow through the whole window, there through one step alone.
- Adam, as for every model here; the code has Adagrad with momentum.
- Negatives equal to the target are masked; the code compares a target with its own repeats.
- With logQ the code lowers the target's logit too, and by counts that are not normalised; here
  the estimate of the full softmax is unbiased (see `SoftmaxConfig`).
- All layers are of one width; the published settings have a single layer.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from msgspec import Meta
from torch import Generator, Tensor, nn

from dimerec.batch import SequenceBatch
from dimerec.config import NonNegative, Positive, Rate, Struct, Weight
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.losses import Candidates, SoftmaxConfig, softmax_loss
from dimerec.nn.transformer import dropout

NEVER = -1e9  # a logit whose exponential is 0, and whose gradient is finite


class Config(Struct, frozen=True):
    """GRU4Rec's options; the defaults are those of the official code, but for `softmax.logq`.

    Attributes:
        width: d, of every layer and of the item vectors.
        layers: depth.
        constrained: one table is both input and output; else inputs have their own.
        bias: one number an item is added to its logit. It takes one more column of the vectors.
        dropout_embedding: rate on the input vectors while training.
        dropout_hidden: rate on every layer's states while training.
        loss: "cross-entropy" (or, in its place, what `softmax.loss` says) or "bpr-max".
        softmax: see its struct. BPR-max weighs its negatives by this softmax.
        samples: negatives of the model's own, shared by the batch, beside those of `[negatives]`
            ("in-batch" is the published company); 0 leaves it to those alone.
        alpha: the own negatives are drawn in proportion to (training count)^alpha.
        bpreg: BPR-max: weight of the negatives' squared scores.
        elu: BPR-max: scores go through an ELU with this alpha first; 0 takes them as they are.
    """

    width: Annotated[int, Meta(ge=2)] = 100
    layers: Positive = 1
    constrained: bool = True
    bias: bool = True
    dropout_embedding: Rate = 0.0
    dropout_hidden: Rate = 0.0
    loss: Literal["cross-entropy", "bpr-max"] = "cross-entropy"
    softmax: SoftmaxConfig = SoftmaxConfig(logq=True)
    samples: NonNegative = 2048
    alpha: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    bpreg: Weight = 1.0
    elu: Weight = 0.5

    def __post_init__(self) -> None:
        if self.bias and self.softmax.unit:
            raise ValueError("bias = true needs softmax.unit = false: a cosine has no bias")
        if self.loss == "bpr-max" and self.softmax.loss != "softmax":
            raise ValueError(
                f'loss = "bpr-max" weighs negatives by a softmax: softmax.loss = '
                f'"{self.softmax.loss}" needs loss = "cross-entropy"'
            )

    @property
    def needs_negatives(self) -> bool:
        """Whether the loss is made of negatives that `[negatives]` alone can give."""
        return self.softmax.needs_negatives and not self.samples


class Model(SequentialModel):
    """One query: the last layer's state at the last item, and a 1 where items have a bias."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config, self.width = config, config.width + config.bias
        self.items = ItemEmbedding(catalogue.size, self.width, unit=config.softmax.unit)
        tables = [self.items]
        if not config.constrained:
            self.inputs = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
            tables.append(self.inputs)
        with torch.no_grad():
            for table in tables:
                nn.init.xavier_uniform_(table.weight[:, : config.width])
                table.weight[:, config.width :] = 0
                table.weight[0] = 0
        self.layers = nn.ModuleList(Recurrent(config.width) for _ in range(config.layers))
        self.sampler = PopularitySampler(catalogue.counts, config.alpha)

    def states(
        self, history: Int[Tensor, "B L"], rng: Generator | None = None
    ) -> Float[Tensor, "B L d"]:
        """The state after every position; zero at padding. `rng` drives dropout, None: none."""
        length, real = history.shape[1], history > 0
        # Padding goes to the end, where it is seen by nothing.
        turn = torch.arange(length, device=history.device) + (~real).sum(1, keepdim=True)
        table = self.items if self.config.constrained else self.inputs
        x = table(history.gather(1, turn % length))[..., : self.config.width]
        x = dropout(x, self.config.dropout_embedding, rng)
        for layer in self.layers:
            x = layer(x, self.config.dropout_hidden, rng)
        back = torch.arange(length, device=history.device) - (~real).sum(1, keepdim=True)
        back = (back % length).unsqueeze(-1).expand_as(x)
        return x.gather(1, back) * real.unsqueeze(-1)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        config, at = self.config, batch.targets > 0
        states = self.states(batch.history, rng)[at]
        negatives, log_q = self._negatives(batch, at, rng)
        candidates = Candidates(config.softmax, self.items, batch.targets[at], negatives, log_q)
        queries = self._query(states)  # [N, d]
        if config.loss == "cross-entropy":
            loss = softmax_loss(candidates, queries.unsqueeze(1))
        else:
            loss = bpr_max_loss(candidates, queries, config.bpreg, config.elu)
        shared = config.softmax.loss
        name = config.loss if shared == "softmax" else shared
        return LossParts({name: loss}, {name: 1.0})

    def encode(self, history: Tensor, noise: Tensor) -> Tensor:
        return self._query(self.states(history)[:, -1:])

    def item_vectors(self) -> Tensor:
        return self.items.table()

    def _query(self, states: Float[Tensor, "*n d"]) -> Tensor:
        return F.pad(states, (0, 1), value=1.0) if self.config.bias else states

    def _negatives(
        self, batch: SequenceBatch, at: Bool[Tensor, "B L"], rng: Generator
    ) -> tuple[Tensor, Tensor]:
        """Those of the batch for its N targets, and the model's own."""
        private = batch.negatives.dim() == 3
        negatives, log_q = (x[at] if private else x for x in (batch.negatives, batch.log_q))
        if not self.config.samples:
            return negatives, log_q
        own, own_log_q = self.sampler(self.config.samples, rng)
        if private:
            rows = len(negatives), -1
            own, own_log_q = own.expand(rows), own_log_q.expand(rows)
            return torch.cat([negatives, own], 1), torch.cat([log_q, own_log_q], 1)
        return joined(torch.cat([negatives, own]), torch.cat([log_q, own_log_q]))


class Recurrent(nn.Module):
    """One GRU layer from a zero state; PyTorch's own, and a plain loop where states are dropped.

    r = sigmoid(W_r x + U_r h + b_r), z = sigmoid(W_z x + U_z h + b_z),
    n = tanh(W_n x + b_n + r (U_n h + c_n)), h' = (1 - z) n + z h.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)
        with torch.no_grad():
            for weight in self.gru.parameters():
                if weight.dim() == 1:
                    weight.zero_()
                    continue
                for gate in weight.chunk(3):
                    nn.init.xavier_uniform_(gate)

    def forward(
        self, x: Float[Tensor, "B L d"], rate: float, rng: Generator | None
    ) -> Float[Tensor, "B L d"]:
        """The states after every position; a dropped one is also what the next step starts from."""
        if rng is None or rate == 0:
            return self.gru(x)[0]
        w, u, b, c = self.gru.all_weights[0]
        inputs = F.linear(x, w, b)  # [B, L, 3 d]
        keep = dropout(torch.ones_like(x), rate, rng)
        state, states = torch.zeros_like(x[:, 0]), []
        for step in range(x.shape[1]):
            x_r, x_z, x_n = inputs[:, step].chunk(3, dim=1)
            h_r, h_z, h_n = F.linear(state, u, c).chunk(3, dim=1)
            r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
            fresh = torch.tanh(x_n + r * h_n)
            state = (fresh + z * (state - fresh)) * keep[:, step]
            states.append(state)
        return torch.stack(states, dim=1)


class PopularitySampler(nn.Module):
    """Draws item i with probability counts_i^alpha / sum_j counts_j^alpha."""

    cumulative: Tensor
    log_p: Tensor

    def __init__(self, counts: Float[Tensor, " V"], alpha: float) -> None:
        super().__init__()
        weight = counts.double().pow(alpha) * (counts > 0)  # items never trained on do not come
        p = weight / weight.sum().clamp_min(1e-300)
        self.register_buffer("cumulative", p.cumsum(0), persistent=False)
        self.register_buffer("log_p", p.log().float(), persistent=False)

    def forward(self, number: int, rng: Generator) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"]]:
        """`number` items, with repeats, and the log-probability of each draw."""
        device = self.cumulative.device
        u = torch.rand(number, generator=rng, dtype=torch.float64, device=device)
        u *= self.cumulative[-1]
        drawn = torch.searchsorted(self.cumulative, u, right=True).clamp_max(len(self.log_p) - 1)
        return drawn, self.log_p[drawn]


def joined(
    negatives: Int[Tensor, " M"], log_q: Float[Tensor, " M"]
) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"]]:
    """Draws of several samplers with one log-probability an item, as `Candidates` needs them.

    An item drawn with q_1, .., q_c counts 1/q_1 + .. + 1/q_c, as c draws with their harmonic mean:
    so its share of the partition function stays unbiased.
    """
    items, inverse, count = negatives.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(items), dtype=torch.float64, device=log_q.device)
    total = total.index_add(0, inverse, (-log_q.double()).exp())
    return negatives, (count.double() / total).log().float()[inverse]


def masks(candidates: Candidates, scores: Float[Tensor, "N M"]) -> Bool[Tensor, "N M"]:
    """Where a negative is the target itself, or padding."""
    if candidates.kind == "private":
        return candidates.masked
    masked = torch.zeros_like(scores, dtype=torch.bool)
    if candidates.kind == "full":
        masked[:, 0] = True
        return masked.scatter(1, candidates.targets.unsqueeze(1), True)
    masked[candidates.hits] = True
    return masked


def bpr_max_loss(
    candidates: Candidates, queries: Float[Tensor, "N d"], bpreg: float, elu: float
) -> Float[Tensor, ""]:
    """-log sum_j s_j sigmoid(r_i - r_j) + bpreg sum_j s_j r_j^2, the mean over the N targets i.

    j runs over the negatives, r are scores after the ELU, s is the softmax of the r_j (with logQ:
    of the corrected ones). A target without negatives costs nothing.
    """
    if candidates.config.unit:
        queries = F.normalize(queries, dim=-1)
    queries = queries / candidates.config.temperature
    positive = (queries * candidates.positive).sum(-1, keepdim=True)  # [N, 1]
    others = candidates.others
    private = candidates.kind == "private"
    scores = torch.einsum("nd,nmd->nm", queries, others) if private else queries @ others.T
    if elu > 0:
        positive, scores = F.elu(positive, elu), F.elu(scores, elu)
    logits = scores if candidates.kind == "full" else scores - candidates.correction
    masked = masks(candidates, scores)
    log_s = logits.masked_fill(masked, NEVER).log_softmax(-1)
    likelihood = (log_s + F.logsigmoid(positive - scores)).masked_fill(masked, NEVER).logsumexp(-1)
    penalty = (log_s.exp() * scores.square()).sum(-1)
    alone = masked.all(-1)
    return (bpreg * penalty - likelihood).masked_fill(alone, 0.0).mean()
