"""What `dimerec doctor` finds, right and wrong."""

import importlib
from importlib import util
from typing import Any

import pytest
import torch

from dimerec.cli import doctor


def checks(ask, **more: Any) -> dict[str, tuple[str, str]]:
    return {c["name"]: (c["level"], c["message"]) for c in ask("doctor", **more)["checks"]}


def test_this_installation_is_sound(run, ask):
    found = checks(ask)
    assert "fail" not in {level for level, _ in found.values()}
    assert found["torch"][1].startswith(torch.__version__)
    assert found["DIMEREC_DATA"][0] == "note"
    shown = run("doctor").stdout
    assert all(name in shown for name in found)
    assert "0 problems" in shown


def test_a_cuda_build_without_a_gpu(ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    level, message = checks(ask)["device"]
    assert level == "warn" and "CUDA 12.8" in message


def test_more_threads_than_cores(ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert checks(ask)["threads"][0] == "warn"


def test_a_package_that_does_not_load(run, monkeypatch: pytest.MonkeyPatch):
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> Any:
        if name == "faiss":
            raise OSError("libgomp.so.1: cannot open shared object file\nmore")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    shown = run("doctor", code=1).stdout
    assert "fail  faiss-cpu" in shown and "libgomp.so.1" in shown and "1 problems" in shown


def test_an_extra_that_is_missing(ask, monkeypatch: pytest.MonkeyPatch):
    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda n, *a: None if n == "plotly" else real(n, *a))
    level, message = checks(ask)["[plots]"]
    assert level == "note" and "pip install 'dimerec[plots]'" in message


def test_the_data_folder(ask, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIMEREC_DATA", str(tmp_path / "no"))
    assert checks(ask)["DIMEREC_DATA"][0] == "warn"
    (tmp_path / "ml-1m").mkdir()
    monkeypatch.setenv("DIMEREC_DATA", str(tmp_path))
    assert checks(ask)["DIMEREC_DATA"] == ("ok", f"{tmp_path}: ml-1m")


def test_a_folder_that_cannot_be_written(run, monkeypatch: pytest.MonkeyPatch):
    def refuse(dir: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert "fail  temporary" in run("doctor", code=1).stdout
