"""DimeRec (Li et al., WSDM 2025): diffuse to the user's next interest, guided by K interests.

The guidance extractor (GEM) distils a history into K interests; the diffusion module (DAM)
denoises, conditioned on them, to the embedding of the next interest; the nearest items are the
candidates.

There is no official code. What the paper leaves open is decided in `docs/decisions/`, a page each;
where it slips, `docs/decisions/slips.md` says how it is read; `docs/paper-map.md` names the home of
every equation.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor

from dimerec.batch import SequenceBatch
from dimerec.config import Positive, Struct, Weight
from dimerec.diffusion.sampler import Trace, noise_rows, sample
from dimerec.diffusion.schedule import NoiseSchedule, ScheduleConfig
from dimerec.diffusion.spaces import SpaceName, space
from dimerec.model import Catalogue, LossParts, SequentialModel
from dimerec.nn.denoiser import Denoiser, DenoiserConfig
from dimerec.nn.embeddings import ItemEmbedding
from dimerec.nn.guidance import GuidanceConfig, extractor
from dimerec.nn.losses import (
    Candidates,
    SoftmaxConfig,
    guidance_loss,
    reconstruction_loss,
    softmax_loss,
)


class Config(Struct, frozen=True):
    """DimeRec's options.

    Attributes:
        width: d.
        guidance, denoiser, schedule, softmax: see their structs.
        space: where the noise lives, or "none" for x_t = 0, no diffusion at all.
        noisiest_only: train on those t alone whose signal share sqrt(alpha_bar_t) is at most this;
            1 trains on all of 1..T.
        rollout: 0 trains on noised targets (Alg. 1). n >= 1 trains on the model's own chain
            instead: n reverse steps from pure noise, where the mixture of `rollout_samples`
            samples must predict the target after every step.
        rollout_samples: samples of a training chain.
        gem: weight of L_gem (1 in Eq. 23).
        recon: lambda, weight of L_recon.
        ssm: mu, weight of L_ssm.
        steps: reverse steps when recommending, 1..T.
        stochastic: fresh noise at every reverse step instead of at the start alone.
        samples: chains run for each history when recommending.
        merge: "mean" makes one query of the samples, "each" keeps one query a sample.
    """

    width: Annotated[int, Meta(ge=2)] = 64
    guidance: GuidanceConfig = GuidanceConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    softmax: SoftmaxConfig = SoftmaxConfig(unit=True, temperature=0.1)
    space: Literal["none", SpaceName] = "sphere"
    noisiest_only: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.03
    rollout: Annotated[int, Meta(ge=0)] = 0
    rollout_samples: Positive = 4
    gem: Weight = 1.0
    recon: Weight = 0.1
    ssm: Weight = 1.0
    steps: Positive = 1
    stochastic: bool = False
    samples: Positive = 8
    merge: Literal["mean", "each"] = "mean"

    def __post_init__(self) -> None:
        self.guidance.check(self.width)
        self.schedule.check_steps("steps", self.steps, 1)
        self.schedule.check_steps("rollout", self.rollout, 0)
        if self.rollout and self.rollout_samples > 1 and self.softmax.loss != "softmax":
            raise ValueError(
                f'softmax.loss = "{self.softmax.loss}" has no mixture of samples: '
                "rollout_samples must be 1"
            )


class Model(SequentialModel):
    """GEM and DAM, trained jointly.

    Implements: Eqs. 13-14; Eq. 23
    """

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.items = ItemEmbedding(catalogue.size, config.width, unit=config.softmax.unit)
        self.gem = extractor(config.guidance, config.width, catalogue.length, catalogue.counts)
        self.schedule = NoiseSchedule(config.schedule)
        self.dam = Denoiser(
            config.denoiser, config.width, config.guidance.interests, config.schedule.steps
        )
        self.targets = "all" if self.gem.causal else "last"
        signal = self.schedule.alpha_bar.sqrt()
        noisy = (signal[1:] <= config.noisiest_only).nonzero()
        self.first_step = int(noisy[0]) + 1 if len(noisy) else config.schedule.steps
        self.diffuses = config.space != "none"
        self.space = space("sphere" if config.space == "none" else config.space, self.schedule)
        self.noise_draws = 0
        self.sampling = {}
        if self.diffuses:
            self.noise_draws = config.samples * noise_rows(config.steps, config.stochastic)
            self.sampling = {"samples": config.samples, "steps": config.steps}

    def guide(self, history: Int[Tensor, "B L"]) -> Float[Tensor, "B K d"]:
        """The interests g^u of each history (Eq. 13)."""
        return self.gem(self.items(history), history)

    def loss(self, batch: SequenceBatch, rng: torch.Generator) -> LossParts:
        """L_gem, L_recon and L_ssm over the batch's N targets."""
        config = self.config
        guidance, at = self.gem.train_on(self.items(batch.history), batch, rng)  # [N, K, d]
        candidates = Candidates.of(batch, at, config.softmax, self.items)
        x0 = self.space.project(candidates.positive)
        predicted = self._predict(x0, guidance, rng)
        ssm = torch.stack([softmax_loss(candidates, samples) for samples in predicted])
        parts = {
            "gem": guidance_loss(candidates, guidance),
            "recon": reconstruction_loss(x0, torch.cat(predicted, dim=1)),
            "ssm": ssm.mean(),
        }
        return LossParts(parts, {"gem": config.gem, "recon": config.recon, "ssm": config.ssm})

    def _predict(
        self, x0: Float[Tensor, "N d"], guidance: Float[Tensor, "N K d"], rng: torch.Generator
    ) -> list[Float[Tensor, "N S d"]]:
        """x_0-hat to be trained: of nothing, of each step of the model's own chain, or of the
        noised target."""
        config = self.config
        if not self.diffuses:
            return [self.denoise(torch.zeros_like(x0).unsqueeze(1), 0, guidance)]
        if config.rollout:
            shape = (config.rollout, len(x0), config.rollout_samples, config.width)
            noise = torch.randn(shape, generator=rng, device=x0.device)
            trace: Trace = []
            # Not `chain`, which hoists: gradients would be summed up in another order.
            sample(
                lambda x, t: self.denoise(x, t, guidance), self.space, noise, config.rollout, trace
            )
            return [predicted for _, _, predicted in trace]
        t = torch.randint(
            self.first_step, config.schedule.steps + 1, (len(x0),), generator=rng, device=x0.device
        )
        noise = torch.randn(x0.shape, generator=rng, device=x0.device)
        xt = self.space.diffuse(x0, t, noise).unsqueeze(1)
        return [self.denoise(xt, t.unsqueeze(1), guidance)]

    def denoise(
        self,
        x: Float[Tensor, "N S d"],
        t: int | Int[Tensor, "N 1"],
        guidance: Float[Tensor, "N K d"],
    ) -> Float[Tensor, "N S d"]:
        """x_0-hat of x_t, on the sphere where logits are between unit vectors (Eq. 20)."""
        at = torch.as_tensor(t, device=x.device).expand(x.shape[:2])
        return self._placed(self.dam(x, at, guidance))

    def _placed(self, predicted: Float[Tensor, "N S d"]) -> Float[Tensor, "N S d"]:
        return F.normalize(predicted, dim=-1) if self.config.softmax.unit else predicted

    def chain(
        self,
        guidance: Float[Tensor, "N K d"],
        noise: Float[Tensor, "R N S d"],
        steps: int,
        trace: Trace | None = None,
    ) -> Float[Tensor, "N S d"]:
        """The reverse process guided by `guidance` (Eq. 14, Alg. 2); R rows as the sampler asks."""
        fixed = self.dam.constants(guidance)
        return sample(
            lambda x, t: self._placed(self.dam.at(x, t, fixed)), self.space, noise, steps, trace
        )

    def encode(self, history: Tensor, noise: Tensor, trace: Trace | None = None) -> Tensor:
        guidance = self.guide(history)
        if not self.diffuses:
            zero = torch.zeros_like(guidance[:, :1])
            return self.denoise(zero, 0, guidance)
        config = self.config
        rows = noise_rows(config.steps, config.stochastic)
        shaped = noise.unflatten(1, (config.samples, rows)).permute(2, 0, 1, 3)
        samples = self.chain(guidance, shaped, config.steps, trace)  # [B, S, d]
        if config.merge == "mean":
            samples = samples.mean(1, keepdim=True)
            samples = self.space.project(samples)
        return samples

    def interests(self, history: Tensor, noise: Tensor) -> Tensor:
        return self.guide(history)

    def item_vectors(self) -> Tensor:
        return self.items.table()
