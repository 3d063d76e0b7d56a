"""Bundles: what is written is what is read, and nothing else is read."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch

from dimerec import bundle
from dimerec.bundle import Bundle
from dimerec.config import RunConfig
from dimerec.errors import BundleError, ConfigError, DataError
from dimerec.manifest import FILES, MANIFEST, Manifest
from dimerec.model import Catalogue
from dimerec.retrieval.approximate import ApproximateIndex
from dimerec.vocabulary import Item, Vocabulary
from tests.tools.bundles import COUNTS, MODELS, SIZE, build, tiny_models, write
from tests.tools.models import tiny

EVERY_FILE = [MANIFEST, *FILES]


@pytest.fixture(autouse=True)
def found():
    with tiny_models():
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A bundle that no test changes."""
    with tiny_models():
        return write(tmp_path_factory.mktemp("bundles") / "bundle").path


@pytest.fixture
def copy(written, tmp_path) -> Path:
    """A bundle to break."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def reseal(path: Path, **changes) -> None:
    """Make the manifest agree with the files as they are now: a forger's work."""
    manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    entries = {}
    for name in manifest.files:
        content = (path / name).read_bytes()
        entries[name] = bundle.FileEntry(
            sha256=hashlib.sha256(content).hexdigest(), size=len(content)
        )
    manifest = msgspec.structs.replace(manifest, files=entries, **changes)
    (path / MANIFEST).write_bytes(msgspec.json.encode(manifest.sealed()))


def forge_tensors(path: Path, name: str, change) -> None:
    tensors = safetensors.torch.load_file(path / name)
    safetensors.torch.save_file(change(tensors), path / name)
    reseal(path)


# What is written is what is read.


@pytest.mark.parametrize("name", ["tiny", "tiny_counts"])
def test_what_is_written_is_what_is_read(tmp_path, name):
    model = build(name, 0, {"noise": 0.1})
    write(tmp_path / "b", name, model=model)
    opened = Bundle.open(tmp_path / "b")
    assert sorted(f.name for f in opened.path.iterdir()) == sorted(EVERY_FILE)
    assert opened.config.model == name and opened.config.length == 6
    assert opened.vocabulary.ids([1, 59]) == ["item 1", "item 59"]
    assert opened.items[4] == Item("Title 5", ("a", "b")) == opened.describe("item 5")
    assert opened.counts.tolist() == COUNTS.tolist()
    assert opened.manifest.origin.protocol == "leave-one-out"
    sizes = opened.manifest.sizes
    assert (sizes.items, sizes.length, sizes.width) == (SIZE, 6, 4 if name == "tiny" else 0)
    read = opened.model()
    assert not read.training and not any(p.requires_grad for p in read.parameters())
    state = model.state_dict()
    assert read.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in read.state_dict().items())
    weights = (opened.path / "weights.safetensors").read_bytes()
    assert opened.weights_digest == hashlib.sha256(weights).hexdigest()
    opened.check()
    answer = opened.recommender().recommend([["item 1", "nothing"]], 3)[0]
    assert (answer.source, answer.unknown) == ("model", ["nothing"])


def test_models_of_one_bundle_share_nothing(written):
    opened = Bundle.open(written)
    one, other = opened.model(), opened.model()
    one.item_vectors().fill_(7)
    assert torch.equal(other.item_vectors(), opened.model().item_vectors())
    assert not torch.equal(one.item_vectors(), other.item_vectors())


def test_reading_leaves_the_global_generator_alone(written):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Bundle.open(written).model()
    assert torch.equal(torch.rand(3), expected)


def test_golden_answers_are_those_of_the_model(written):
    golden = Bundle.open(written).golden
    assert len(golden.queries) == 8
    popular = sorted(range(1, SIZE), key=lambda n: (-COUNTS[n], n))[:40]
    held = [i for query in golden.queries for i in query.history]
    assert sorted(held) == sorted(f"item {n}" for n in popular)
    recommender = Bundle.open(written).recommender()
    for query in golden.queries:
        assert len(query.items) == 10
        (answer,) = recommender.recommend([query.history], 10, hide_seen=False, seed=golden.seed)
        assert answer.items == query.items
        np.testing.assert_allclose(answer.scores, query.scores, rtol=1e-5)


def test_golden_answers_are_asked_of_a_given_recommender(written):
    opened = Bundle.open(written)
    vectors = opened.model().item_vectors().numpy()
    opened.check(opened.recommender(index=ApproximateIndex.build(vectors)))
    shuffled = np.concatenate([vectors[:1], vectors[:0:-1]])
    with pytest.raises(BundleError, match="of 80 golden answers"):
        opened.check(opened.recommender(index=ApproximateIndex.build(shuffled)))


def test_small_catalogues_have_golden_answers_too(tmp_path):
    model = tiny.Model(tiny.Config(), Catalogue(size=3, length=6, counts=COUNTS[:3]))
    config = RunConfig(model="tiny", length=6)
    for size in (3, 2, 1):
        model.table = torch.nn.Parameter(model.table[:size].detach())
        opened = write(
            tmp_path / str(size),
            model=model,
            config=config,
            vocabulary=Vocabulary([5, 6][: size - 1]),
            items=[Item()] * (size - 1),
            counts=COUNTS[:size],
        )
        opened.check()
        assert len(opened.golden.queries) == size - 1


def test_an_item_that_is_not_there_is_named(written):
    with pytest.raises(DataError, match="no item 'x'"):
        Bundle.open(written).describe("x")


# Writing.


def test_nothing_is_overwritten_unasked(written, tmp_path):
    before = {f.name: f.read_bytes() for f in written.iterdir()}
    with pytest.raises(BundleError, match="exists already; choose another path"):
        write(written, seed=1)
    assert {f.name: f.read_bytes() for f in written.iterdir()} == before
    write(tmp_path / "b")
    assert write(tmp_path / "b", seed=1, overwrite=True).config.seed == 1
    assert [f.name for f in tmp_path.iterdir()] == ["b"]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    for name in ("file", "link"):
        with pytest.raises(BundleError, match="no directory"):
            write(tmp_path / name, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"items": [Item()]}, "items.json: 1 entries for 59 items"),
        ({"counts": COUNTS[1:]}, r"counts.safetensors: must be float32 \[60\]"),
        ({"counts": COUNTS + 1}, "must be finite, not negative, and 0 for padding"),
        ({"counts": COUNTS * torch.nan}, "must be finite"),
        ({"vocabulary": Vocabulary([1, 2])}, "items.json: 59 entries for 2 items"),
        ({"config": RunConfig(model="tiny", options={"width": 5})}, "does not fit the model"),
        ({"config": RunConfig(model="tiny_counts")}, "item vectors|does not fit|no tensor"),
        ({"config": RunConfig(model="no_such")}, "no such name in models: 'no_such'"),
    ],
)
def test_parts_that_do_not_fit_are_not_written(tmp_path, changes, words):
    with pytest.raises(BundleError, match=words):
        write(tmp_path / "b", **changes)
    assert list(tmp_path.iterdir()) == []


def test_the_origin_must_be_whole(tmp_path):
    with pytest.raises(ConfigError, match="origin of the bundle: .*digest"):
        write(tmp_path / "b", origin={"dataset": "toy"})
    assert list(tmp_path.iterdir()) == []


def test_broken_weights_are_not_written(tmp_path):
    model = build("tiny", 0, {})
    with torch.no_grad():
        model.item_vectors()[3, 1] = torch.inf
    with pytest.raises(BundleError, match="table holds NaN or infinite values; take an earlier"):
        write(tmp_path / "b", model=model)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    wrote = []

    def full(path, content):
        wrote.append(path.name)
        if len(wrote) == 3:
            raise OSError(28, "No space left on device")
        path.touch()

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BundleError, match="cannot be written .*No space left.*nothing is left"):
        write(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path):
    """Real processes, each killed (SIGKILL) one step further into writing."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.killed_writes", str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    attempts = json.loads(done.stdout)
    killed = [a for a in attempts if a["killed"]]
    assert len(killed) > 15 and len(attempts) > len(killed)
    for attempt in attempts:
        if attempt["replacing"]:
            assert attempt["there"] in (0, 1), attempt  # seed of the old bundle, of the new one
        else:
            assert attempt["there"] in ("nothing", 1), attempt
        if not attempt["killed"]:
            assert attempt["there"] == 1
    # Both outcomes were met, so the kills fell on both sides of the moment that counts.
    assert {a["there"] for a in killed if a["replacing"]} == {0, 1}
    assert {a["there"] for a in killed if not a["replacing"]} == {"nothing", 1}


# Reading.


def test_a_fresh_process_reads_without_pickle_training_or_data_code(written):
    code = f"""
import sys
looked_up = []
sys.addaudithook(lambda event, args: event == "pickle.find_class" and looked_up.append(args))
import dimerec.models
dimerec.models.__path__.append({MODELS!r})
from dimerec import Bundle
opened = Bundle.open({str(written)!r})
opened.check()
assert opened.recommender().recommend([["item 1"]], 2)[0].source == "model"
parts = ("training", "evaluation", "data", "experiments", "cli")
wrong = [m for m in sys.modules if m.startswith(tuple("dimerec." + p for p in parts))]
wrong += [m for m in ("polars", "pandas", "pyarrow") if m in sys.modules]
sys.exit(str(wrong + looked_up) if wrong or looked_up else 0)
"""
    src = str(Path(bundle.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": src}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Whoever can write the files can make the hashes right; the values are looked at all the same.


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(copy, value):
    forge_tensors(
        copy,
        "weights.safetensors",
        lambda t: {"table": t["table"].index_fill(0, torch.tensor([7]), value)},
    )
    with pytest.raises(BundleError, match="weights.safetensors: table holds NaN or infinite"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: {"counts": t["counts"][:-1].clone()},
            r"float32 \[60\], got torch.float32 \[59\]",
        ),
        (lambda t: {"counts": t["counts"].double()}, "got torch.float64"),
        (lambda t: {"counts": t["counts"] * torch.nan}, "must be finite"),
        (lambda t: {"counts": -t["counts"]}, "not negative"),
        (lambda t: {"other": t["counts"]}, r"got torch.float32 \[0\]"),
    ],
)
def test_counts_that_are_none_are_refused(copy, change, words):
    forge_tensors(copy, "counts.safetensors", change)
    with pytest.raises(BundleError, match=f"counts.safetensors: .*{words}"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vocabulary.json", ["a"] * (SIZE - 1), "ids must be unique"),
        ("vocabulary.json", ["a", *range(SIZE - 2)], "all integers or all strings"),
        ("vocabulary.json", [f"{n}" for n in range(SIZE)], "60 ids for 59 items"),
        ("vocabulary.json", {"a": 1}, "Expected `array`"),
        ("vocabulary.json", [1.5], "Expected `int | str`"),
        ("items.json", [], "0 entries for 59 items"),
        ("items.json", [{"title": 3}], "Expected `str | null`"),
        ("golden.json", {"seed": 0, "queries": [{"history": []}]}, "missing required field"),
        ("golden.json", {"seed": 0, "queries": [], "more": 1}, "unknown field `more`"),
    ],
)
def test_json_that_does_not_fit_is_refused(copy, name, content, words):
    (copy / name).write_text(json.dumps(content))
    reseal(copy)
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy)
    assert name in str(caught.value) and words in str(caught.value)


def test_files_that_are_no_tensors_are_refused(copy):
    for content in (b"", b"PK\x03\x04" * 9, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}" + b"\0" * 9):
        (copy / "weights.safetensors").write_bytes(content)
        reseal(copy)
        with pytest.raises(BundleError, match="weights.safetensors: not safetensors"):
            Bundle.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"table": t["table"][:-1].clone()},
        lambda t: {"table": t["table"][:, :-1].clone()},
        lambda t: {"other": t["table"]},
        lambda t: {**t, "more": torch.zeros(1)},
        lambda t: {},
    ],
)
def test_weights_of_another_shape_are_refused_by_the_model(copy, change):
    forge_tensors(copy, "weights.safetensors", change)
    opened = Bundle.open(copy)
    with pytest.raises(BundleError, match="weights.safetensors: does not fit the model 'tiny'"):
        opened.model()


def test_weights_that_answer_otherwise_fail_the_check(copy):
    forge_tensors(copy, "weights.safetensors", lambda t: {"table": t["table"].flip(1) + 0.01})
    opened = Bundle.open(copy)
    with pytest.raises(BundleError, match="golden.json: of 80 golden answers .* came back"):
        opened.check()


def test_counts_that_point_outside_fail_the_check(tmp_path):
    write(tmp_path / "b", "tiny_counts")
    forge_tensors(
        tmp_path / "b", "weights.safetensors", lambda t: {**t, "pairs": t["pairs"] + 10_000}
    )
    with pytest.raises(BundleError, match="the model cannot answer"):
        Bundle.open(tmp_path / "b").check()
    forge_tensors(tmp_path / "b", "weights.safetensors", lambda t: {"times": t["times"]})
    with pytest.raises(BundleError, match="no tensor for pairs"):
        Bundle.open(tmp_path / "b").model()


def test_weights_changed_after_opening_are_found(copy):
    opened = Bundle.open(copy)
    (copy / "weights.safetensors").write_bytes(
        b"x" * opened.manifest.files["weights.safetensors"].size
    )
    with pytest.raises(BundleError, match="its SHA-256 is not the manifest's"):
        opened.model()


def test_options_out_of_range_are_named(copy):
    manifest = msgspec.json.decode((copy / MANIFEST).read_bytes(), type=Manifest)
    reseal(copy, config=msgspec.structs.replace(manifest.config, options={"width": 0}))
    with pytest.raises(BundleError, match="manifest.json: options of tiny: .*width"):
        Bundle.open(copy).model()
