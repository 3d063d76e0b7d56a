"""The only training loop."""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from dimerec import bundle, files, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.config import RunConfig
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, TrainingDiverged
from dimerec.model import CountingModel, SequentialModel
from dimerec.training import checkpoint, logs, process
from dimerec.training.checkpoint import State, Validation
from dimerec.training.logs import Entry, Sinks
from dimerec.training.run import Run
from dimerec.training.validation import validate
from dimerec.training.window import Window

log = logging.getLogger(__name__)
LOG_EVERY = 20
Watch = Callable[[SequentialModel, Batches], Mapping[str, float]]


def train(
    dataset: Dataset,
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    threads: int | None = None,
    trackers: Collection[str] = (),
    progress: bool | Callable[[Entry], object] = True,
    watch: Watch | None = None,
) -> Run:
    """Train one model on a dataset; leaves a run folder with a bundle.

    Args:
        dataset: an open dataset.
        config: everything that decides the run.
        out: the run folder; new or empty unless `resume`.
        resume: go on from the folder's checkpoint, bit for bit as if never stopped (same machine,
            versions and threads); a folder without one starts from the beginning.
        threads: torch threads while training; None leaves the number as it is.
        trackers: any of "tensorboard", "mlflow".
        progress: True shows a bar (log lines where stderr is no terminal); a function is called
            with every entry of `metrics.jsonl`.
        watch: called at each validation with the model as it stands and the batches it learns
            from; its numbers join that entry of `metrics.jsonl` as "watched". It must leave the
            weights alone.

    Ctrl-C or SIGTERM ends the run after the step at hand, with a checkpoint and a bundle.

    Raises:
        ConfigError: the folder holds a run already, or one with other settings or data; an
            unknown model, option, device or tracker.
        TrainingDiverged: a loss or weight became NaN or infinite.
        DimeRecError: the disk refused; the earlier checkpoint is intact.
    """
    out = Path(out)
    device = process.device(config.training.device)
    with process.settings(device, threads):
        logs.require(trackers)
        model = _build(dataset, config)
        batches = Batches(dataset, config, model.targets)
        _open_folder(out, config, resume)
        state = checkpoint.new_state(config, dataset.digest)
        if resume and checkpoint.exists(out):
            state = checkpoint.read(out, config, dataset.digest)
        counting = isinstance(model, CountingModel)
        device = torch.device("cpu") if counting else device  # nothing to gain from another
        steps = config.training.max_steps
        if config.training.epochs:
            steps = min(steps, config.training.epochs * batches.steps_per_epoch)
        with checkpoint.writing(out, "the run's logs"):
            sinks = Sinks(
                out,
                step=-1 if counting else state.step,
                steps=steps,
                settings=msgspec.to_builtins(config),
                trackers=trackers,
                progress=progress,
            )
        task = _Training(
            dataset, batches, config, out, steps, model.to(device), device, state, sinks, watch
        )
        try:
            stopped = task.count() if counting else task.learn(resume)
        finally:
            sinks.close()
        return task.finish(stopped)


@dataclass
class _Training:
    """One call of `train`: the things its stages share."""

    dataset: Dataset
    batches: Batches
    config: RunConfig
    out: Path
    steps: int
    model: SequentialModel
    device: torch.device
    state: State
    sinks: Sinks
    watch: Watch | None = None

    def count(self) -> str:
        """Fit a counting model by one pass over the training windows."""
        model, state = self.model, self.state
        assert isinstance(model, CountingModel)
        checkpoint.note(self.out, state)
        start, cpu = time.perf_counter(), time.process_time()
        for batch in self.batches.windows_once():
            state.targets += int((batch.targets > 0).sum())
            model.observe(batch.to(self.device))
        model.finish()
        state.seconds = time.perf_counter() - start
        state.cpu_seconds = time.process_time() - cpu
        self.validate()
        return "finished"

    def learn(self, resume: bool) -> str:
        """Fit by gradient steps from the state at hand; returns why it stopped."""
        training, state, model = self.config.training, self.state, self.model
        # The fused step takes a third of the foreach one's time on a CPU (17k x 64 table), an
        # eighth of the plain loop's.
        adam = torch.optim.Adam(
            model.parameters(),
            training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        if resume and checkpoint.exists(self.out):
            checkpoint.restore(self.out, state, model, adam)
        else:
            checkpoint.save(self.out, state, model, adam)
        model.train()
        window = Window(state)
        with process.interrupts() as interrupted:
            while state.step < self.steps and not self.exhausted():
                self.step(adam, window)
                due = state.step % training.validate_every == 0 or state.step == self.steps
                stop = interrupted.is_set()
                pause = due or stop
                if pause or state.step % LOG_EVERY == 0 or self.device.type == "cpu":
                    self.check(window)
                if pause or state.step % LOG_EVERY == 0:
                    self.write({**window.entry(), "steps": self.steps})
                self.sinks.tick(state.step)
                if pause:
                    self.check_weights()
                if due:
                    self.validate()
                if pause:
                    checkpoint.save(self.out, state, model, adam)
                if stop:
                    return "interrupted"
        return "finished" if state.step == self.steps else "early"

    def step(self, adam: torch.optim.Optimizer, window: Window) -> None:
        """One optimiser step."""
        training, state = self.config.training, self.state
        start, cpu = time.perf_counter(), time.process_time()
        batch = self.batches.batch(state.step)
        targets = int((batch.targets > 0).sum())
        rng = randomness.torch_stream(self.config.seed, "loss", state.step, device=self.device)
        narrow = training.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if narrow else nullcontext():
            losses = self.model.loss(_move(batch, self.device), rng)
            total = losses.total
        adam.zero_grad(set_to_none=True)
        total.backward()
        if training.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
        adam.step()
        state.step += 1
        state.targets += targets
        window.add([*losses.parts, "total"], [*losses.parts.values(), total])
        state.seconds += time.perf_counter() - start
        state.cpu_seconds += time.process_time() - cpu

    def check(self, window: Window) -> None:
        """Fetch the losses since the last check; TrainingDiverged names the first bad one."""
        for step, values in window.fetch():
            bad = [n for n, v in values.items() if not math.isfinite(v)]
            if bad:
                raise self.diverged(step, f"the loss part {bad[0]} is {values[bad[0]]}")

    def check_weights(self) -> None:
        """TrainingDiverged when a weight is not finite: it is neither validated nor stored."""
        for name, weight in self.model.state_dict().items():
            if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
                raise self.diverged(self.state.step, f"the weight {name} is not finite")

    def diverged(self, step: int, what: str) -> TrainingDiverged:
        """The error that says what went wrong, when, and what is left."""
        last = checkpoint.read(self.out, self.config, self.dataset.digest).step
        return TrainingDiverged(
            f"{self.out}: {what} at step {step}; the last good checkpoint is of step {last}. "
            "Lower training.learning_rate or set training.clip_norm"
        )

    def validate(self) -> None:
        """Rank the validation queries; remember whether these weights are the best."""
        state, metric = self.state, self.config.training.metric
        start = time.perf_counter()
        values = validate(self.model, self.dataset, self.config, self.device)
        state.validation_seconds += time.perf_counter() - start
        if not values:
            log.warning("%s has no validation queries: the last weights count", self.dataset.path)
            return
        state.validations = [*state.validations, Validation(state.step, values)]
        best = state.best < 0 or values[metric] > self.best().metrics[metric]
        if best:
            state.best = len(state.validations) - 1
        entry = {"step": state.step, "validation": values, "best": best, "seconds": state.seconds}
        if self.watch is not None:
            entry["watched"] = dict(self.watch(self.model, self.batches))
        self.write(entry)

    def best(self) -> Validation:
        """The best validation so far."""
        return self.state.validations[self.state.best]

    def exhausted(self) -> bool:
        """Whether patience ran out."""
        patience, state = self.config.training.patience, self.state
        return 0 < patience <= len(state.validations) - 1 - state.best and state.best >= 0

    def write(self, entry: Entry) -> None:
        """Log one entry."""
        with checkpoint.writing(self.out, "the run's logs"):
            self.sinks.write(entry)

    def finish(self, stopped: Any) -> Run:
        """Write the bundle from the best weights, and the summary."""
        state, model, config = self.state, self.model, self.config
        counting = isinstance(model, CountingModel)
        best = not counting and checkpoint.restore_best(self.out, state, model)
        weights = "best" if best else "current"
        chosen = self.best() if state.best >= 0 else Validation(state.step, {})
        card = self.dataset.card
        with checkpoint.writing(self.out, "the bundle"):
            written = bundle.write(
                self.out / "bundle",
                model=model,
                config=config,
                vocabulary=self.dataset.vocabulary,
                items=self.dataset.metadata(),
                counts=self.dataset.counts(),
                origin={
                    "dataset": card.name,
                    "digest": self.dataset.digest,
                    "protocol": card.protocol.name,
                    "weights": weights,
                    "steps": state.step,
                    "stopped": stopped,
                },
                overwrite=True,
            )
            run = Run(
                path=self.out,
                model=config.model,
                seed=config.seed,
                config=config.fingerprint,
                dataset=self.dataset.digest,
                stopped=stopped,
                weights=weights,
                steps=state.step,
                best_step=chosen.step,
                metric=config.training.metric,
                best=chosen.metrics.get(config.training.metric),
                validation=chosen.metrics,
                digest=written.weights_digest,
                parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
                targets=state.targets,
                targets_per_second=state.targets / max(state.seconds, 1e-9),
                seconds=state.seconds,
                cpu_seconds=state.cpu_seconds,
                validation_seconds=state.validation_seconds,
                device=process.describe(self.device),
                threads=torch.get_num_threads(),
                versions=state.versions,
            )
            run.write()
        return run


def _build(dataset: Dataset, config: RunConfig) -> SequentialModel:
    config.check()
    options = config.model_config()
    module = plugins.load("dimerec.models", config.model)
    with randomness.torch_scope(config.seed, "init"):
        return module.Model(options, dataset.catalogue(config.length))


def _open_folder(out: Path, config: RunConfig, resume: bool) -> None:
    """Make the run folder, or see that it may be gone on with."""
    if resume and checkpoint.exists(out):
        return
    with checkpoint.writing(out, "the run folder"):
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out}: is a file; give another --out")
        out.mkdir(parents=True, exist_ok=True)
        there = {p.name for p in out.iterdir() if not p.name.startswith(".")}
        if there and not resume:
            raise ConfigError(f"{out}: exists already; go on with --resume, or give another --out")
        if there and "config.json" not in there:
            raise ConfigError(f"{out}: is not the folder of a run; give another --out")
        files.write_file(out / "config.json", msgspec.json.format(msgspec.json.encode(config)))


def _move(batch: SequenceBatch, device: torch.device) -> SequenceBatch:
    if device.type == "cpu":
        return batch
    names = ("history", "targets", "negatives", "log_q")
    # Pinned, so that the copy runs while the host goes on.
    pinned = replace(batch, **{n: getattr(batch, n).pin_memory() for n in names})
    return pinned.to(device)
