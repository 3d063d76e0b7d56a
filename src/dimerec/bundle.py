"""Bundle: the directory that is evaluated and served.

Written whole or not at all; opened only when every file is the one that its manifest names, by
size and SHA-256. No pickle: tensors are safetensors, all else is JSON.
"""

import copy
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dimerec import files, plugins, retrieval
from dimerec.config import RunConfig, Struct, convert
from dimerec.errors import BundleError, ConfigError, DataError
from dimerec.manifest import (
    AGAIN,
    CACHE,
    COUNTS,
    FILES,
    GOLDEN,
    ITEMS,
    MANIFEST,
    SCHEMA,
    VOCABULARY,
    WEIGHTS,
    FileEntry,
    Manifest,
    Origin,
    Sizes,
    read_manifest,
    verified,
    versions,
)
from dimerec.model import Catalogue, SequentialModel
from dimerec.randomness import torch_scope
from dimerec.recommender import Recommender
from dimerec.retrieval import RetrievalIndex
from dimerec.retrieval.exact import ExactIndex
from dimerec.vocabulary import Id, Item, Vocabulary

GOLDEN_QUERIES, GOLDEN_LENGTH, GOLDEN_N = 8, 5, 10


class GoldenQuery(Struct, frozen=True):
    """A history and the exact answer it must get, seen items not hidden."""

    history: list[Id]
    items: list[Id]
    scores: list[float]


class Golden(Struct, frozen=True):
    """Golden queries, all asked with `seed`."""

    seed: int
    queries: list[GoldenQuery]


def write(
    path: str | Path,
    *,
    model: SequentialModel,
    config: RunConfig,
    vocabulary: Vocabulary,
    items: list[Item],
    counts: Tensor | np.ndarray,
    origin: Mapping[str, str | int],
    overwrite: bool = False,
) -> "Bundle":
    """Write a bundle to `path`, whole or not at all, and open it.

    The golden answers come from the model as it is read back, on the CPU.

    Args:
        model: a trained model of the kind that `config` names.
        vocabulary: of the V - 1 items.
        items: V - 1 titles and categories, in number order.
        counts: float32 `[V]` training events of each item; 0 for padding.
        origin: fields of `Origin`: "dataset" (its name), "digest", "protocol", ...
        overwrite: replace what stands at `path`.

    Raises:
        ConfigError: `origin` is not as it must be.
        BundleError: something stands at `path` already, parts do not fit one another, weights are
            not finite, or the disk refuses.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:
        raise BundleError(f"{path} exists already; choose another path, or pass overwrite=True")
    if overwrite and os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
        raise BundleError(f"{path} is no directory, so it is not overwritten; choose another path")
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    table = torch.as_tensor(counts, dtype=torch.float32).cpu().contiguous()
    where = str(path)
    _check_parts(where, vocabulary, items, table, vocabulary.size)
    _check_finite(where, WEIGHTS, state)
    contents = {
        WEIGHTS: safetensors.torch.save(state),
        VOCABULARY: msgspec.json.encode(vocabulary.ids(range(1, vocabulary.size))),
        ITEMS: msgspec.json.encode(items),
        COUNTS: safetensors.torch.save({"counts": table}),
    }
    width = model.width if model.has_vectors else 0
    sizes = Sizes(items=vocabulary.size, length=config.length, width=width)
    again = _build(where, config, sizes, table, contents[WEIGHTS])
    recommender = _exact(again, vocabulary, table, config.length)
    golden = _golden(recommender, vocabulary, table, config)
    contents[GOLDEN] = msgspec.json.encode(golden)
    manifest = Manifest(
        schema=SCHEMA,
        config=config,
        origin=convert(dict(origin), Origin, "origin of the bundle"),
        sizes=sizes,
        versions=versions(),
        files={
            name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            for name, content in sorted(contents.items())
        },
    )
    contents[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest.sealed()), indent=2)
    try:
        with files.new_directory(path) as folder:
            for name, content in contents.items():
                (folder / name).write_bytes(content)
    except OSError as e:
        raise BundleError(f"{path}: the bundle cannot be written ({e}); nothing is left") from e
    return Bundle.open(path)


class Bundle:
    """A verified bundle; make one with `Bundle.open`.

    Attributes:
        path: its directory.
        manifest: what `manifest.json` holds.
        config: the run's configuration.
        vocabulary: item id <-> number.
        items: V - 1 titles and categories, in number order.
        counts: float32 `[V]` training events of each item.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        vocabulary: Vocabulary,
        items: list[Item],
        counts: Tensor,
        golden: Golden,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.config = manifest.config
        self.vocabulary = vocabulary
        self.items = items
        self.counts = counts
        self.golden = golden

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read and verify a bundle; `check` also asks its golden queries.

        Every file is hashed before any of it is parsed, and nothing is imported for it.

        Raises:
            BundleError: not a bundle, another version's, incomplete, changed since it was
                written, or holding values that cannot be served; names the file.
        """
        path = Path(path)
        manifest = read_manifest(path)
        contents = {name: verified(path, name, manifest.files[name]) for name in FILES}
        where, size = str(path), manifest.sizes.items
        try:
            vocabulary = Vocabulary(_decode(where, VOCABULARY, contents, list[Id]))
        except DataError as e:
            raise BundleError(f"{path / VOCABULARY}: {e}; {AGAIN}") from e
        items = _decode(where, ITEMS, contents, list[Item])
        counts = _tensors(where, COUNTS, contents[COUNTS]).get("counts", torch.zeros(0))
        _check_parts(where, vocabulary, items, counts, size)
        _check_finite(where, WEIGHTS, _tensors(where, WEIGHTS, contents[WEIGHTS]))
        golden = _decode(where, GOLDEN, contents, Golden)
        return cls(path, manifest, vocabulary, items, counts, golden)

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) of the weights file."""
        return self.manifest.files[WEIGHTS].sha256

    @property
    def index_path(self) -> Path:
        """Where an index of the item vectors may be kept; never required."""
        return self.path / CACHE / "index"

    def model(self, device: torch.device | str = "cpu") -> SequentialModel:
        """A fresh copy of the model on `device`, in evaluation mode, without gradients.

        The weights are read and verified anew.

        Raises:
            BundleError: the weights changed since `open`, or do not fit the model of this version.
        """
        content = verified(self.path, WEIGHTS, self.manifest.files[WEIGHTS])
        sizes = self.manifest.sizes
        return _build(str(self.path), self.config, sizes, self.counts, content).to(device)

    def with_options(self, changes: Mapping[str, Any]) -> "Bundle":
        """The same weights under other values of the model's options.

        For those that no weight depends on: reverse steps, samples, how samples are merged.

        Raises:
            ConfigError: an option the model does not have, or a value out of range.
        """
        options = {**self.config.options, **changes}
        config = msgspec.structs.replace(self.config, options=options)
        config.model_config()
        other = copy.copy(self)
        other.config = config
        return other

    def recommender(
        self, device: torch.device | str = "cpu", index: RetrievalIndex | None = None
    ) -> Recommender:
        """A recommender on a fresh copy of the model; `index` as in `Recommender`, by default the
        one that `dimerec index` left in the bundle's cache, if it is of these item vectors."""
        model = self.model(device)
        length, items = self.config.length, self.items
        if index is None and model.has_vectors:
            index = retrieval.index(model.item_vectors().float().cpu().numpy(), self.index_path)
        return Recommender(model, self.vocabulary, self.counts, length, index, items)

    def check(self, recommender: Recommender | None = None) -> None:
        """Ask the golden queries, of `recommender` or of a fresh exact one.

        An answer may differ by what another machine's rounding makes: at least nine of ten items
        must be there over all queries, and the scores of those must agree to 0.1 percent of the
        query's largest.

        Raises:
            BundleError: the answers are not those the bundle was written with.
        """
        if recommender is None:
            recommender = _exact(self.model(), self.vocabulary, self.counts, self.config.length)
        histories = [q.history for q in self.golden.queries]
        if not histories:
            return
        try:
            answers = recommender.recommend(
                histories, GOLDEN_N, hide_seen=False, seed=self.golden.seed
            )
        except (RuntimeError, IndexError, DataError) as e:
            raise BundleError(f"{self.path}: the model cannot answer: {e}; {AGAIN}") from e
        wanted = found = 0
        worst = 0.0
        for query, answer in zip(self.golden.queries, answers, strict=True):
            given = dict(zip(answer.items, answer.scores, strict=True))
            scale = max(map(abs, query.scores), default=0.0) or 1.0
            wanted += len(query.items)
            for item, score in zip(query.items, query.scores, strict=True):
                if item in given:
                    found += 1
                    worst = max(worst, abs(given[item] - score) / scale)
        if found < 0.9 * wanted or worst > 1e-3:
            raise BundleError(
                f"{self.path / GOLDEN}: of {wanted} golden answers {found} came back, scores off "
                f"by up to {worst:.2%}; the model code is not that of "
                f"{self.manifest.versions}, or the files were changed together; {AGAIN}"
            )

    def describe(self, id: Id) -> Item:
        """Title and categories of an item; DataError for an id not in the catalogue."""
        number = int(self.vocabulary.numbers([id])[0])
        if not number:
            raise DataError(f"no item {id!r} in {self.path}")
        return self.items[number - 1]


def _decode(where: str, name: str, contents: Mapping[str, bytes], kind: Any) -> Any:
    try:
        return msgspec.json.decode(contents[name], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise BundleError(f"{where}/{name}: {e}; {AGAIN}") from e


def _tensors(where: str, name: str, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as e:
        raise BundleError(f"{where}/{name}: not safetensors ({e}); {AGAIN}") from e


def _check_parts(
    where: str, vocabulary: Vocabulary, items: list[Item], counts: Tensor, size: int
) -> None:
    """Vocabulary, items and counts fit V and one another, and the counts are counts."""
    if vocabulary.size != size:
        raise BundleError(f"{where}/{VOCABULARY}: {len(vocabulary)} ids for {size - 1} items")
    if len(items) != size - 1:
        raise BundleError(f"{where}/{ITEMS}: {len(items)} entries for {size - 1} items")
    if counts.shape != (size,) or counts.dtype != torch.float32:
        raise BundleError(
            f"{where}/{COUNTS}: must be float32 [{size}], got {counts.dtype} {list(counts.shape)}"
        )
    if not bool(counts.isfinite().all()) or bool((counts < 0).any()) or counts[0] != 0:
        raise BundleError(f"{where}/{COUNTS}: must be finite, not negative, and 0 for padding")


def _check_finite(where: str, name: str, state: Mapping[str, Tensor]) -> None:
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BundleError(
                f"{where}/{name}: {key} holds NaN or infinite values; take an earlier checkpoint, "
                "or train again with a smaller learning rate"
            )


def _build(
    where: str, config: RunConfig, sizes: Sizes, counts: Tensor, content: bytes
) -> SequentialModel:
    """The model of `config` with the weights of `content`, on the CPU."""
    file = f"{where}/{WEIGHTS}"
    try:
        module = plugins.load("dimerec.models", config.model)
        catalogue = Catalogue(size=sizes.items, length=sizes.length, counts=counts.clone())
        with torch_scope(config.seed, "bundle"):
            model: SequentialModel = module.Model(config.model_config(), catalogue)
        model.load_tensors(_tensors(where, WEIGHTS, content))
    except ConfigError as e:
        raise BundleError(f"{where}/{MANIFEST}: {e}") from e
    except (RuntimeError, TypeError, ValueError) as e:
        raise BundleError(f"{file}: does not fit the model {config.model!r}: {e}") from e
    model.eval().requires_grad_(False)
    if not model.has_vectors:
        return model
    shape = tuple(model.item_vectors().shape)
    if shape != (sizes.items, sizes.width):
        raise BundleError(
            f"{file}: item vectors are {list(shape)}, but the manifest says "
            f"[{sizes.items}, {sizes.width}]; {AGAIN}"
        )
    return model


def _exact(
    model: SequentialModel, vocabulary: Vocabulary, counts: Tensor, length: int
) -> Recommender:
    index = ExactIndex.build(model.item_vectors().numpy()) if model.has_vectors else None
    return Recommender(model, vocabulary, counts, length, index)


def _golden(
    recommender: Recommender, vocabulary: Vocabulary, counts: Tensor, config: RunConfig
) -> Golden:
    """Histories dealt out from the most popular items, and what they get."""
    most = GOLDEN_QUERIES * min(GOLDEN_LENGTH, config.length)
    popular = 1 + np.argsort(-counts[1:].numpy(), kind="stable")[:most]
    hands = [popular[start::GOLDEN_QUERIES] for start in range(GOLDEN_QUERIES)]
    histories = [vocabulary.ids(hand.tolist()) for hand in hands if len(hand)]
    seed = config.seed
    answers = recommender.recommend(histories, GOLDEN_N, hide_seen=False, seed=seed)
    return Golden(
        seed=seed,
        queries=[
            GoldenQuery(history=h, items=a.items, scores=a.scores)
            for h, a in zip(histories, answers, strict=True)
        ],
    )
