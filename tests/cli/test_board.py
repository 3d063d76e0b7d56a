"""The board reads logs that are being written, and draws on a terminal alone."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

from dimerec.cli.board import progress

STEP = '{"step":%d,"losses":{"ssm":1.5},"total":1.5,"targets_per_second":12345.6,"seconds":2,"steps":80}\n'
VALID = '{"step":40,"validation":{"hr@20":0.1},"best":true,"seconds":2}\n'


def test_progress_of_a_log_that_is_being_written(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert progress(tmp_path) == (0, None, "starting")
    log.write_text("")
    assert progress(tmp_path) == (0, None, "starting")
    log.write_text(STEP % 20 + STEP % 40 + VALID)
    assert progress(tmp_path) == (40, 80, "12,346 targets/s")
    log.write_text(STEP % 20 + STEP % 40 + '{"step":60,"los')
    assert progress(tmp_path)[0] == 40
    log.write_text(STEP % 20 * 1000 + STEP % 80 + VALID)
    assert progress(tmp_path) == (80, 80, "scoring")


PLAN = """
title = "Tiny"
about = "Two rows."
epochs = 1
seeds = [0, 1]
set = ["length=10", "training.validation_queries=50"]

[data]
source = "ml-latest-small"
protocol = "leave-one-out"
positions = "last"

[[runs]]
label = "Popularity"
config = "popularity"

[[runs]]
label = "SASRec"
config = "sasrec"
set = ["options.width=8"]
"""


def test_on_a_terminal_every_run_has_a_bar_and_the_lines_stay(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(PLAN)
    ours, theirs = pty.openpty()
    drawn: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                return
            if not part:
                return
            drawn.append(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    command = [sys.executable, "-m", "dimerec", "reproduce", "tiny.toml", "--jobs", "2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=tmp_path, stderr=theirs, stdout=-3, env=environment)
    os.close(theirs)
    reader.join(10)
    text = b"".join(drawn).decode()
    assert done.returncode == 0, text
    assert "all runs" in text and "4/4" in text
    assert "SASRec, seed 1" in text and "Popularity, seed 1: hr@20" in text
