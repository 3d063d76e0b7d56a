"""What a server does before the first request."""

import socket
import subprocess
import sys

from dimerec.serving import server
from dimerec.serving.settings import load
from tests.serving import servers

SCRIPT = """
import gc, os, signal, sys, weakref
from pathlib import Path
from dimerec.serving import server, settings
from dimerec.serving.service import Service

known = settings.load(None, ["port=0", "drain=0", 'store="memory:"'])
def started():
    first = weakref.ref(service.shelf.current._engine._recommender._model)
    assert gc.get_freeze_count() > 20 * len(gc.get_objects()), "full collections look at it all"
    gc.disable()
    service.shelf.reload(None)
    assert first() is None, "the first bundle stays in memory"
    print("well")
    os.kill(os.getpid(), signal.SIGTERM)
with server.listen(known) as bound:
    service = Service(known, Path(sys.argv[1]))
    server.run(service, bound, started)
"""


def test_what_is_loaded_is_no_matter_to_collections_and_goes_with_a_reload(tmp_path):
    servers.bundle(tmp_path / "bundle")
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "bundle")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=servers.PATIENCE)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_no_answer_waits_for_an_acknowledgement():
    with server.listen(load(None, ["port=0"])) as bound:
        bound.setblocking(True)
        with socket.create_connection(bound.getsockname()), bound.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
