"""What an import loads, and what it costs, each in a fresh process.

Times are processor times: they hold on a busy machine too.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

HEAVY = {"faiss", "pandas", "polars", "pyarrow", "torch"}


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after `code`."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_is_quick_and_light():
    code = "import time; t = time.process_time(); import dimerec; print(time.process_time() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.2
    assert not loaded_by("import dimerec") & HEAVY


def test_an_error_class_needs_nothing_else():
    assert not loaded_by("import dimerec; dimerec.DataError") & {*HEAVY, "numpy", "msgspec"}


def test_help_is_quick_and_light():
    code = "import sys; sys.argv = ['dimerec', '--help']\nfrom dimerec.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code"
    assert not loaded_by(code) & HEAVY
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(
            [Path(sys.executable).with_name("dimerec"), "--help"], capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert shown.returncode == 0, shown.stderr
        assert "recommend" in shown.stdout
    assert min(seconds) < 0.5


def test_what_is_served_loads_neither_data_nor_training():
    served = ("dimerec.serving", "dimerec.serving.engine", "dimerec.bundle", "dimerec.recommender")
    modules = loaded_by(f"import {', '.join(served)}")
    assert modules.issuperset(served)
    packages = ("data", "evaluation", "experiments", "training")
    unwanted = {f"dimerec.{p}" for p in packages} | {"pandas", "polars", "pyarrow"}
    assert not modules & unwanted
