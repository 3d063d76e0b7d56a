"""What an import loads, and what it costs, each in a fresh process.

Times are processor times, which hold on a busy machine too, beside those of importing what
any command line needs, so that they hold on a slow one.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

SPARED_BY_NOBODY = (sys.executable, "-c", "import typer, rich")
HEAVY = {"faiss", "pandas", "polars", "pyarrow", "torch"}


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after `code`."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def spent(*command: str | Path) -> float:
    """Processor seconds of a process, the least of some."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    return min(seconds)


def test_importing_the_package_is_quick_and_light():
    assert spent(sys.executable, "-c", "import dimerec") < spent(*SPARED_BY_NOBODY)
    assert not loaded_by("import dimerec") & HEAVY


def test_an_error_class_needs_nothing_else():
    assert not loaded_by("import dimerec; dimerec.DataError") & {*HEAVY, "numpy", "msgspec"}


def test_help_is_quick_and_light():
    code = "import sys; sys.argv = ['dimerec', '--help']\nfrom dimerec.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code"
    assert not loaded_by(code) & HEAVY
    command = [Path(sys.executable).with_name("dimerec"), "--help"]
    assert "recommend" in subprocess.run(command, capture_output=True, text=True).stdout
    assert spent(*command) < 6 * spent(*SPARED_BY_NOBODY)  # two or three; with torch, thirteen


def test_what_is_served_loads_neither_data_nor_training():
    served = ("dimerec.serving", "dimerec.serving.engine", "dimerec.bundle", "dimerec.recommender")
    modules = loaded_by(f"import {', '.join(served)}")
    assert modules.issuperset(served)
    packages = ("data", "evaluation", "experiments", "training")
    unwanted = {f"dimerec.{p}" for p in packages} | {"pandas", "polars", "pyarrow"}
    assert not modules & unwanted
