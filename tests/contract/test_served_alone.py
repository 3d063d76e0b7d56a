"""A bundle of every model is opened and asked in a process that never trains. Every file in
`models/` is found by itself, with the first shipped recipe that names it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import dimerec
from dimerec import bundle, config, plugins, randomness
from dimerec.batch import SequenceBatch
from dimerec.config import RunConfig
from dimerec.model import Catalogue, CountingModel, SequentialModel
from dimerec.vocabulary import Item, Vocabulary

SIZE, LENGTH = 13, 5  # items and padding, history
TINY = {"width": 8, "hidden": 8, "latent": 8, "dims": [8], "steps": 2}
ASK = """
import json, sys
from dimerec import Bundle
answers = {}
for path in sys.argv[1:]:
    opened = Bundle.open(path)
    opened.check()
    answer, = opened.recommender().recommend([["i1", "i2", "i3"]], 4)
    answers[opened.config.model] = answer.source, answer.items, answer.scores
print(json.dumps([answers, sorted(sys.modules)]))
"""
UNASKED = ("training", "experiments", "evaluation", "data", "cli", "serving")


def recipe(model: str) -> RunConfig:
    """A shipped recipe of the model, made small."""
    fields = plugins.load("dimerec.models", model).Config.__struct_fields__
    small = [f"options.{name}={value}" for name, value in TINY.items() if name in fields]
    name = next(name for name in config.shipped() if config.load(name).model == model)
    return config.load(name, [*small, f"length={LENGTH}"])


def built(made: RunConfig) -> SequentialModel:
    """Not trained; a model that counts has read one history."""
    catalogue = Catalogue(size=SIZE, length=LENGTH, counts=torch.ones(SIZE))
    with randomness.torch_scope(0, "init"):
        module = plugins.load("dimerec.models", made.model)
        model: SequentialModel = module.Model(made.model_config(), catalogue)
    if isinstance(model, CountingModel):
        events = torch.tensor([[1, 2, 3, 4, 5, 6]])
        nothing = torch.zeros(0, dtype=torch.int64)
        model.observe(SequenceBatch(events[:, :-1], events[:, 1:], nothing, nothing.float()))
        model.finish()
    return model


def test_every_model_is_served_without_what_trains_it(tmp_path: Path) -> None:
    models, wanted = plugins.names("dimerec.models"), {}
    for name in models:
        made = recipe(name)
        written = bundle.write(
            tmp_path / name,
            model=built(made),
            config=made,
            vocabulary=Vocabulary([f"i{n}" for n in range(1, SIZE)]),
            items=[Item() for _ in range(1, SIZE)],
            counts=torch.tensor([0.0] + [1.0] * (SIZE - 1)),
            origin={"dataset": "toy", "digest": "0" * 64, "protocol": "leave-one-out"},
        )
        wanted[name] = written.recommender().recommend([["i1", "i2", "i3"]], 4)[0].items
    env = {**os.environ, "PYTHONPATH": str(Path(dimerec.__file__).parents[1])}
    command = [sys.executable, "-c", ASK, *(str(tmp_path / name) for name in models)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers, loaded = json.loads(done.stdout)
    assert answers.keys() == set(models)
    for name, (source, items, scores) in answers.items():
        assert source == "model" and items == wanted[name], name
        assert len(set(items)) == 4 and not {"i1", "i2", "i3"} & set(items), name
        assert scores == sorted(scores, reverse=True), name
    assert {f"dimerec.models.{name}" for name in models} <= set(loaded)
    unwanted = {f"dimerec.{package}" for package in UNASKED}
    assert not [m for m in loaded if ".".join(m.split(".")[:2]) in unwanted]
    assert not {"pandas", "polars", "pyarrow", "optuna"} & set(loaded)
