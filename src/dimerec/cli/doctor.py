"""`dimerec doctor`: does this installation have what it needs?"""

import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

import typer

from dimerec.cli import output
from dimerec.cli.output import Json

Level = Literal["ok", "note", "warn", "fail"]
Check = tuple[Level, str, str]
STYLES = {"ok": "green", "note": "dim", "warn": "yellow", "fail": "bold red"}
CORE = ("numpy", "polars", "pyarrow", "msgspec", "safetensors", "faiss-cpu", "typer", "rich")
MODULES = {"faiss-cpu": "faiss"}
EXTRAS = {
    "tensorboard": ("tensorboard", "train --tensorboard"),
    "mlflow": ("mlflow", "train --mlflow"),
    "plots": ("plotly", "figures in reports"),
    "pandas": ("pandas", "reading pandas frames"),
}


def doctor(json: Json = False) -> None:
    """Say what is installed here, and what is wrong or missing.

    Looks at Python, the packages, PyTorch's build and device, threads, extras,
    the data folder and whether files can be written. Exit code 1 when
    something that is needed does not work.

      dimerec doctor
    """
    import dimerec

    checks: list[Check] = [
        ("ok", "dimerec", f"{dimerec.__version__} in {Path(dimerec.__file__).parent}"),
        *_python(),
        *_core(),
        *_torch(),
        *_extras(),
        *_data(),
        *_writing(),
    ]
    failed = any(level == "fail" for level, _, _ in checks)
    if json:
        found = [{"level": level, "name": n, "message": m} for level, n, m in checks]
        output.document({"ok": not failed, "checks": found})
    else:
        _show(checks)
    if failed:
        raise typer.Exit(1)


def _python() -> Iterator[Check]:
    version = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield ("ok", "python", version) if fits else ("fail", "python", f"{version}: 3.11 to 3.13 fit")


def _core() -> Iterator[Check]:
    for name in CORE:
        try:
            importlib.import_module(MODULES.get(name, name))
            yield "ok", name, metadata.version(name)
        except Exception as e:  # whatever a broken installation raises, it is to be reported
            yield "fail", name, f"{_said(e)}; install dimerec again"


def _torch() -> Iterator[Check]:
    try:
        import torch
    except Exception as e:
        yield "fail", "torch", f"{_said(e)}; install dimerec again"
        return
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    yield "ok", "torch", f"{torch.__version__}, built for {f'CUDA {built}' if built else 'the CPU'}"
    yield from _device(torch, built)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    said = f"{threads} torch threads on {cores} cores"
    if cores and threads > cores:
        yield "warn", "threads", f"{said}: more threads than cores is slow; set OMP_NUM_THREADS"
    else:
        yield "ok", "threads", said


def _device(torch: Any, built: str | None) -> Iterator[Check]:
    if not built:
        yield "ok", "device", "cpu"
    elif torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield "ok", "device", ", ".join(names)
    else:
        yield (
            "warn",
            "device",
            f"cpu: torch is built for CUDA {built} and finds no GPU; install a driver, or the "
            "much smaller CPU build",
        )


def _extras() -> Iterator[Check]:
    for extra, (module, use) in EXTRAS.items():
        if util.find_spec(module):
            yield "ok", f"[{extra}]", f"{metadata.version(module)}: {use}"
        else:
            yield "note", f"[{extra}]", f"not installed: pip install 'dimerec[{extra}]' for {use}"


def _data() -> Iterator[Check]:
    folder = os.environ.get("DIMEREC_DATA")
    if not folder:
        yield "note", "DIMEREC_DATA", "not set: public datasets are fetched into ./data"
    elif not Path(folder).is_dir():
        yield "warn", "DIMEREC_DATA", f"{folder}: no such folder"
    else:
        held = sorted(p.name for p in Path(folder).iterdir() if p.is_dir())
        yield "ok", "DIMEREC_DATA", f"{folder}: {', '.join(held) or 'empty'}"


def _writing() -> Iterator[Check]:
    for name, folder in (("this folder", Path.cwd()), ("temporary", Path(tempfile.gettempdir()))):
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield "ok", name, f"{folder} can be written"
        except OSError as e:
            level: Level = "fail" if name == "temporary" else "warn"
            yield level, name, f"{folder} cannot be written ({e.strerror or e})"


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _show(checks: list[Check]) -> None:
    from rich.text import Text

    console = output.out()
    width = max(len(name) for _, name, _ in checks)
    for level, name, message in checks:
        console.print(
            Text(f"{level:<5}", STYLES[level]), f"{name:<{width}} ", message, soft_wrap=True
        )
    count = {level: sum(c[0] == level for c in checks) for level in STYLES}
    output.line(f"{count['fail']} problems, {count['warn']} warnings")
