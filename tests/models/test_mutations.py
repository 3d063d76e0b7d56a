"""Each way to change what a model publishes is caught by a check that the suite has anyway.

A mutant is the real code with one line spoiled; beside it stands the test that must fail with it.
"""

from collections.abc import Callable
from typing import Any

import pytest

from dimerec.diffusion import schedule
from dimerec.models import (
    acvae,
    bert4rec,
    caser,
    comirec,
    diffrec,
    diffurec,
    dimerec,
    dreamrec,
    gru4rec,
    multvae,
)
from dimerec.nn import transformer
from tests.diffusion import test_schedule
from tests.models import test_acvae, test_comirec, test_dimerec, test_dropout
from tests.nn import test_transformer
from tests.tools.mutants import mutated

Check = Callable[[], None]


def comirec_loss() -> None:
    test_comirec.test_the_loss_is_that_of_the_interest_closest_to_the_target("mlp", False)


def dimerec_loss() -> None:
    test_dimerec.test_l_gem_is_the_loss_of_the_interest_closest_to_the_target(True)


def four_steps(kind: str, beta: list[float]) -> Check:
    return lambda: test_schedule.test_four_steps_by_hand(kind, beta)


GEM = "guidance_loss(candidates, guidance)"
by_hand, by_loops = (
    test_transformer.test_sasrecs_block_by_hand,
    test_transformer.test_sasrecs_block_against_plain_loops,
)
truncated = test_schedule.test_truncated_linear_by_hand
critic = test_acvae.test_the_critic_by_hand

MUTANTS: dict[str, tuple[Any, str, str, Check]] = {
    "SASRec's keys are normalised": (
        *(transformer.Block.forward, "(self.k, x)", "(self.k, query)"),
        by_hand,
    ),
    "SASRec's values are normalised": (
        *(transformer.Block.forward, "(self.v, x)", "(self.v, query)"),
        by_hand,
    ),
    "SASRec's queries are not normalised": (
        *(transformer.Block.forward, "(self.q, query)", "(self.q, x)"),
        by_hand,
    ),
    "SASRec's first residual carries the input as it is": (
        *(transformer.Block.forward, "x = query + self.o", "x = x + self.o"),
        by_hand,
    ),
    "SASRec's second residual carries the state as it is": (
        *(transformer.Block.forward, "hidden + dropout(self.outer", "x + dropout(self.outer"),
        by_hand,
    ),
    "SASRec's feed-forward has a GELU": (*(transformer.Block.forward, "F.relu", "F.gelu"), by_hand),
    "SASRec's second norm is the first": (
        *(transformer.Block.forward, "self.norm2(x)", "self.norm1(x)"),
        by_loops,
    ),
    "SASRec's items are not scaled": (
        *(transformer.Transformer._read, "x * x.shape[-1] ** 0.5", "x"),
        test_transformer.test_sasrecs_blocks_stand_between_scaled_items_and_one_norm,
    ),
    "SASRec's states are not normalised": (
        *(transformer.Transformer._read, "self.norm(x) * real", "x * real"),
        test_transformer.test_sasrecs_blocks_stand_between_scaled_items_and_one_norm,
    ),
    "attention is not scaled": (
        *(transformer.attention, "attn_mask=seen)", "attn_mask=seen, scale=1.0)"),
        by_loops,
    ),
    "DiffuRec's schedule has no offset": (
        *(schedule._betas, "scale * config.first + 0.01", "scale * config.first"),
        truncated,
    ),
    "DiffuRec's schedule is cut to another end": (
        *(schedule._betas, "config.last / 20", "config.last / 10"),
        truncated,
    ),
    "DiffuRec's schedule is never cut": (*(schedule._betas, "last > 1:", "last > 1e9:"), truncated),
    "DiffuRec's schedule is always cut": (*(schedule._betas, "last > 1:", "last > 0:"), truncated),
    "the cosine has no offset": (
        *(schedule._betas, "(t + 0.008) / 1.008", "t"),
        four_steps("cosine", [0.1529878, 0.4169581, 0.7078587, 0.999]),
    ),
    "ACVAE's critic has three ReLUs for a GELU": (
        *(acvae.Critic.forward, "F.gelu(states)", "3 * F.relu(states)"),
        critic,
    ),
    "ACVAE's critic has no GELU": (
        *(acvae.Critic.forward, "F.gelu(states)", "states"),
        critic,
    ),
    "ComiRec learns from the mean of its interests": (
        *(comirec.Model.loss, GEM, "guidance_loss(candidates, guidance.mean(1, keepdim=True))"),
        comirec_loss,
    ),
    "ComiRec learns from all interests alike": (
        *(comirec.Model.loss, GEM, "candidates.losses(guidance).mean()"),
        comirec_loss,
    ),
    "DimeRec's GEM learns from the mean of its interests": (
        *(dimerec.Model.loss, GEM, "guidance_loss(candidates, guidance.mean(1, keepdim=True))"),
        dimerec_loss,
    ),
    "DimeRec's GEM learns from all interests alike": (
        *(dimerec.Model.loss, GEM, "candidates.losses(guidance).mean()"),
        dimerec_loss,
    ),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_a_check_catches_it(what: str) -> None:
    function, old, new, check = MUTANTS[what]
    check()
    with mutated(function, old, new), pytest.raises(AssertionError):
        check()


# Text in front of the one "rng)" where dropout is then switched off.
SASREC, BERT = transformer.Block.forward, transformer.BertBlock.forward
READ, DIFFUREC = transformer.Transformer._read, diffurec.Block.forward
DROPOUTS: list[tuple[str, Any, str]] = [
    ("sasrec", READ, "x = dropout(x, self.config.dropout, "),
    ("sasrec", transformer.attention, "dropout(scores.softmax(-1), rate, "),
    ("sasrec", SASREC, "dropout(F.relu(self.inner(hidden)), self.rate, "),
    ("sasrec", SASREC, "dropout(self.outer(inner), self.rate, "),
    ("sasrec of BERT's blocks", READ, "self.position[-length:]), self.config.dropout, "),
    ("bert4rec", bert4rec.Model._read, "self.config.dropout, "),
    ("bert4rec", transformer.attention, "dropout(scores.softmax(-1), rate, "),
    ("bert4rec", BERT, "dropout(mixed, self.rate, "),
    ("bert4rec", BERT, "dropout(hidden, self.rate, "),
    ("caser", caser.Model.states, "self.config.dropout, "),
    ("gru4rec", gru4rec.Model.states, "self.config.dropout_embedding, "),
    ("gru4rec", gru4rec.Model.states, "self.config.dropout_hidden, "),
    ("gru4rec", gru4rec.Recurrent.forward, "dropout(torch.ones_like(x), rate, "),
    ("diffurec", diffurec.Model.embed, "self.config.item_dropout, "),
    ("diffurec", DIFFUREC, "self.rate, rng)), self.rate, "),
    ("diffurec", DIFFUREC, 'approximate="tanh"), self.rate, '),
    ("diffurec", DIFFUREC, "dropout(self.outer(inner), self.rate, "),
    ("diffurec", DIFFUREC, "return dropout(x, self.rate, "),
    ("diffurec", diffurec.Approximator.forward, "dropout(z[:, -1], self.rate, "),
    ("acvae", acvae.Model.loss, "dropout(x, config.dropout, "),
    ("acvae", acvae.Encoder.forward, "dropout(y, self.rate, "),
    ("acvae", acvae.Adversary.forward, "dim=-1)), CRITIC_DROPOUT, "),
    ("acvae", acvae.Adversary.forward, "dropout(self.last(y), CRITIC_DROPOUT, "),
    ("multvae", multvae.Model.bags, "dropout(new, self.config.dropout, "),
    ("diffrec", diffrec.Model.loss, "self.config.dropout, "),
    ("dreamrec", dreamrec.Model.guide, "self.transformer(scaled, history, "),
    ("comirec", comirec.Model.loss, "batch, "),
    ("dimerec", dimerec.Model.loss, "batch, "),
]


@pytest.mark.parametrize(("case", "function", "before"), DROPOUTS)
def test_a_place_without_its_dropout_is_noticed(case: str, function: Any, before: str) -> None:
    with (
        mutated(function, f"{before}rng)", f"{before}None)"),
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(AssertionError),
    ):
        test_dropout.test_each_place_drops_at_its_rate(case, patch)
