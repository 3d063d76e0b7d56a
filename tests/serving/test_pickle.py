"""No pickle: the servers of these tests end at once when a name is looked up for an unpickler."""

import subprocess
import sys

from tests.serving import launch


def test_the_watch_works():
    command = [sys.executable, "-m", "tests.serving.launch", "unpickle"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == launch.PICKLED and "PICKLE" in done.stderr


def test_serving_reloading_and_storing_use_none(plain, guarded, figure):
    event = {"user": "p", "item": "item 3", "time": 1, "event_id": "p"}
    plain.ask("/v1/events", {"events": [event]})
    assert plain.asks({"user": "p"})["source"] == "model"
    plain.ask("/v1/reload", {})
    for server in (plain, guarded):
        assert server.process.poll() is None
        assert "PICKLE" not in server.log
    loads = sum(server.log.count("PICKLE") for server in (plain, guarded))
    figure(f"{plain.metric('dimerec_requests_total'):,.0f} requests so far, {loads} unpicklings")
