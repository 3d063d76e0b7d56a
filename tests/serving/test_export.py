"""The cache of compiled code: what is loaded, and all that is refused."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from dimerec import bundle as bundles_module
from dimerec import config, plugins
from dimerec.bundle import Bundle
from dimerec.errors import BundleError, ServingError
from dimerec.manifest import FileEntry
from dimerec.model import Catalogue
from dimerec.recommender import Query
from dimerec.serving import compiled, export, onnx_file, parity
from dimerec.serving.engine import Engine
from dimerec.vocabulary import Item, Vocabulary
from tests.tools import bundles

V, LENGTH = 200, 12


@pytest.fixture(autouse=True)
def _around() -> Iterator[None]:
    threads = torch.get_num_threads()
    with bundles.tiny_models():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundles.write(tmp_path / "bundle")


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """What was about to be run as native code; nothing is."""
    calls: list[dict[str, bytes]] = []

    def attach(model, length, contents):
        calls.append(contents)
        return model.encode

    monkeypatch.setattr(export, "attach", attach)
    return calls


def store(bundle: Bundle, /, **changes) -> Path:
    """A cache as `export` leaves it, whose native code is the text "native"."""
    contents = {compiled.PACKAGE: b"native", compiled.CONSTANTS: b"constants"}
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in contents.items()
    }
    identity = export._identity(bundle)
    card = export.Card(export.SCHEMA, *identity, compiled.platform_key(), entries, [])
    at = export.folder(bundle)
    at.mkdir(parents=True)
    for name, content in contents.items():
        (at / name).write_bytes(content)
    (at / export.CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, **changes)))
    return at


def test_what_was_written_down_is_loaded(bundle, attached):
    store(bundle)
    export.load(bundle, bundle.model())
    assert attached == [{"encode.pt2": b"native", "constants.safetensors": b"constants"}]
    assert Bundle.open(bundle.path).manifest == bundle.manifest  # the cache is no part of it


@pytest.mark.parametrize("name", [compiled.PACKAGE, compiled.CONSTANTS])
@pytest.mark.parametrize("content", [b"natiVe", b"", b"native and more"])
def test_code_of_another_digest_never_runs(bundle, attached, name, content, caplog):
    at = store(bundle)
    (at / name).write_bytes(content)
    with pytest.raises(ServingError, match=f"{name}.*make it again with `dimerec export"):
        export.load(bundle, bundle.model())
    engine = Engine.open(bundle.path)
    assert not engine.compiled and name in engine.reason
    assert [engine.reason in record.message for record in caplog.records] == [True]
    assert attached == []
    query = Query(["item 3", "item 9"], n=7)
    assert engine.recommend([query]) == bundle.recommender().answer([query])


def test_code_behind_a_link_never_runs(bundle, attached, tmp_path):
    at = store(bundle)
    (at / compiled.PACKAGE).rename(tmp_path / "elsewhere")
    (at / compiled.PACKAGE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServingError, match="no link"):
        export.load(bundle, bundle.model())
    assert attached == []


def test_another_platforms_code_is_left_alone(bundle, attached, monkeypatch):
    at = store(bundle)
    at.rename(at.with_name("encode-plan9-z80-torch0.1"))
    with pytest.raises(ServingError, match="no compiled encode for .*`dimerec export"):
        export.load(bundle, bundle.model())
    at.with_name("encode-plan9-z80-torch0.1").rename(at)
    export.load(bundle, bundle.model())
    monkeypatch.setattr(compiled, "_features", lambda: "another processor")
    with pytest.raises(ServingError, match="no compiled encode for"):
        export.load(bundle, bundle.model())
    assert len(attached) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 0},
        {"bundle": "0" * 64},
        {"config": "0" * 64},
        {"version": "0.0"},
        {"platform": "plan9-z80-torch0.1"},
        {"files": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_code_made_of_something_else_never_runs(bundle, attached, changes):
    store(bundle, **changes)
    with pytest.raises(ServingError, match="make it again"):
        export.load(bundle, bundle.model())
    assert attached == []


def test_code_of_other_weights_or_options_never_runs(bundle, attached, tmp_path):
    store(bundle)
    other = bundles.write(tmp_path / "other", seed=1)
    shutil.copytree(bundle.path / "cache", other.path / "cache")
    with pytest.raises(ServingError, match="another bundle"):
        export.load(other, other.model())
    changed = bundle.with_options({"noise": 0.5})
    with pytest.raises(ServingError, match="other options"):
        export.load(changed, changed.model())
    assert attached == []


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"\xff", b'{"schema": "1"}', b"[" * 5000])
def test_a_card_that_is_none(bundle, attached, text):
    at = store(bundle)
    (at / export.CARD).write_bytes(text)
    with pytest.raises(ServingError, match="card.json"):
        export.load(bundle, bundle.model())
    (at / export.CARD).unlink()
    with pytest.raises(ServingError, match="card.json"):
        export.load(bundle, bundle.model())
    assert attached == []


def test_only_a_folder_may_be_the_cache(bundle, tmp_path):
    (bundle.path / "cache").write_text("no folder")
    with pytest.raises(BundleError, match="cache: not part of the bundle"):
        Bundle.open(bundle.path)
    (bundle.path / "cache").unlink()
    (bundle.path / "cache").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(BundleError, match="cache: not part of the bundle"):
        Bundle.open(bundle.path)
    (bundle.path / "cache").unlink()
    (bundle.path / "cache").mkdir()
    (bundle.path / "cache" / "anything").write_text("at all")
    Bundle.open(bundle.path)
    (bundle.path / "caches").mkdir()
    with pytest.raises(BundleError, match="caches: not part of the bundle"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("variable", [None, "/no/such/compiler"])
def test_without_a_compiler_the_model_is_served_as_it_is(bundle, monkeypatch, caplog, variable):
    monkeypatch.setenv("PATH", str(bundle.path))
    monkeypatch.delenv("CXX", raising=False)
    if variable:
        monkeypatch.setenv("CXX", variable)
    with pytest.raises(ServingError, match=f"no C\\+\\+ compiler {variable or 'g.*'}: install"):
        export.export(bundle)
    assert not (bundle.path / "cache").exists()
    engine = Engine.open(bundle.path)
    assert not engine.compiled
    assert any(
        "no compiled encode" in r.message and r.levelname == "WARNING" for r in caplog.records
    )
    engine.check_golden()


def test_without_the_extra_no_onnx(bundle, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServingError, match="onnx is missing.*dimerec\\[onnx\\]"):
        onnx_file.check_installed()


def test_nothing_to_compile(tmp_path):
    counting = bundles.write(tmp_path / "counts", "tiny_counts")
    with pytest.raises(ServingError, match="tiny_counts counts"):
        export.export(counting)


def test_a_chain_too_long_to_unroll(bundle, monkeypatch):
    model = plugins.load("dimerec.models", "tiny").Model
    monkeypatch.setattr(model, "sampling", {"samples": 1, "steps": 500})
    with pytest.raises(ServingError, match="tiny cannot be compiled, for its 500 reverse steps"):
        export.export(bundle)


@pytest.mark.parametrize("off", [1e-3, float("nan")])
def test_code_that_differs_is_not_kept(bundle, monkeypatch, off):
    monkeypatch.setattr(export, "check_compiler", lambda: None)
    monkeypatch.setattr(export, "exported", lambda model, length: None)
    monkeypatch.setattr(export, "native", lambda model, program: {})
    monkeypatch.setattr(
        export, "attach", lambda model, length, contents: lambda h, n: model.encode(h, n) + off
    )
    with pytest.raises(ServingError, match="differs when aotinductor runs it at batch 1.*as it is"):
        export.export(bundle)
    assert not (bundle.path / "cache").exists()


def made(path: Path, name: str, **options) -> Bundle:
    """A bundle of a recipe's model with drawn weights, none of them zero."""
    changes = [f"length={LENGTH}", *(f"options.{k}={v}" for k, v in options.items())]
    run = config.load(name, changes)
    counts = torch.arange(V).float()
    module = plugins.load("dimerec.models", run.model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = module.Model(run.model_config(), Catalogue(size=V, length=LENGTH, counts=counts))
        with torch.no_grad():
            for parameter in model.parameters():
                if not bool(parameter.any()):
                    parameter.copy_(0.1 * torch.randn_like(parameter))
    return bundles_module.write(
        path,
        model=model,
        config=run,
        vocabulary=Vocabulary(range(1, V)),
        items=[Item()] * (V - 1),
        counts=counts,
        origin=bundles.ORIGIN,
    )


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, export.Card]:
    bundle = made(tmp_path_factory.mktemp("paper") / "bundle", "dimerec-paper")
    return bundle, export.export(bundle, onnx=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_papers_model(paper):
    bundle, card = paper
    assert [(c.engine, c.batch) for c in card.checks] == [
        (engine, batch) for engine in ("aotinductor", "onnxruntime") for batch in (1, 2, 8, 64)
    ]
    model = bundle.model()
    encode = export.load(bundle, model)
    rng = torch.Generator().manual_seed(0)
    for batch in (1, 2, 3, 8, 64, 65, compiled.LARGEST, compiled.LARGEST + 1):
        history = torch.randint(0, V, (batch, LENGTH), generator=rng)
        noise = torch.randn(batch, model.noise_draws, model.width, generator=rng)
        want = model.encode(history, noise)
        torch.testing.assert_close(encode(history, noise), want, atol=1e-5, rtol=1e-4)
    queries = [Query([n, n + 1, 2 * n], n=20, seed=n) for n in range(1, 90)]
    plain = bundle.recommender().answer(queries)
    engine = Engine.open(bundle.path)
    assert engine.compiled and not engine.reason
    engine.warm_up()
    engine.check_golden()
    for one, two in zip(engine.recommend(queries), plain, strict=True):
        assert len(set(one.items) & set(two.items)) >= 19  # two may be as good, rounding aside
        assert one.scores == pytest.approx(two.scores, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_onnx_file_speaks_for_itself(paper):
    import numpy as np
    import onnxruntime

    bundle, card = paper
    file = export.folder(bundle) / export.ONNX
    assert hashlib.sha256(file.read_bytes()).hexdigest() == card.files[export.ONNX].sha256
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    model = bundle.model()
    history, noise = compiled.inputs(model, LENGTH, 5)
    (queries,) = session.run(["queries"], {"history": history.numpy(), "noise": noise.numpy()})
    assert np.allclose(queries, model.encode(history, noise).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_flipped_bit_of_real_code(paper, tmp_path):
    bundle, _ = paper
    copy = Bundle.open(shutil.copytree(bundle.path, tmp_path / "copy"))
    file = export.folder(copy) / compiled.PACKAGE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ServingError, match="SHA-256"):
        export.load(copy, copy.model())
    # with a card that agrees the package is no package: an error, not a crash
    card = msgspec.json.decode((file.parent / export.CARD).read_bytes(), type=export.Card)
    entry = FileEntry(sha256=hashlib.sha256(b"no package").hexdigest(), size=10)
    card = msgspec.structs.replace(card, files={**card.files, compiled.PACKAGE: entry})
    (file.parent / export.CARD).write_bytes(msgspec.json.encode(card))
    file.write_bytes(b"no package")
    with pytest.raises(ServingError, match="cannot be loaded"):
        export.load(copy, copy.model())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dimerec", {}),
        ("sasrec", {}),
        ("gru4rec", {}),
        ("mind", {}),
        ("comirec", {}),
        ("multvae", {}),
        ("dreamrec", {"steps": 3}),
        ("diffurec", {"steps": 3}),
    ],
)
def test_every_kind_of_model_compiles(name, options, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "SECONDS", 0.0)  # spent on timing it
    bundle = made(tmp_path / "bundle", name, **options)
    card = export.export(bundle)
    # ten times stricter than what an export is refused for
    assert max(check.difference for check in card.checks) < 1e-5
    engine = Engine.open(bundle)
    assert engine.compiled
    engine.check_golden()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_verb(tmp_path):
    bundle = made(tmp_path / "bundle", "dimerec-none")
    command = [Path(sys.executable).with_name("dimerec"), "export", bundle.path]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [check["batch"] for check in answer["card"]["checks"]] == [1, 2, 8, 64]
    assert sorted(p.name for p in Path(answer["folder"]).iterdir()) == [
        "card.json",
        "constants.safetensors",
        "encode.pt2",
    ]
    assert Engine.open(bundle.path).compiled
    environment = {**os.environ, "CXX": "/no/such/compiler"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "there is no C++ compiler /no/such/compiler" in done.stderr
    assert Engine.open(bundle.path).compiled  # what was there is still there
