"""A stand-in for a Qdrant server: the few REST routes that `RemoteIndex` uses, answered by the
local mode of Qdrant's own client. It shows how the service lives with a server that goes away, and
nothing of how Qdrant searches or how fast.

    python -m tests.serving.qdrant_stand_in PORT FILE

Whatever was written is kept in FILE, a request a line, and done again at the start.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

CLIENT, LOCK = QdrantClient(":memory:"), threading.Lock()


def answer(method: str, path: str, body: Any) -> Any:
    """The result of a request; ValueError where there is no such collection or route."""
    _, _, name, *rest = path.partition("?")[0].split("/")
    match method, *rest:
        case "GET", "exists":
            return {"exists": CLIENT.collection_exists(name)}
        case ["GET"]:
            return CLIENT.get_collection(name).model_dump(mode="json")
        case ["PUT"]:
            vectors = models.CreateCollection.model_validate(body).vectors
            return CLIENT.create_collection(name, vectors_config=vectors)
        case ["DELETE"]:
            return CLIENT.delete_collection(name)
        case "PUT", "points":
            points = models.PointsBatch.model_validate(body).batch
            return CLIENT.upsert(name, points).model_dump(mode="json")
        case "POST", "points":
            asked = models.PointRequest.model_validate(body)
            records = CLIENT.retrieve(name, asked.ids, with_vectors=True)
            return [record.model_dump(mode="json") for record in records]
        case "POST", "points", "count":
            return CLIENT.count(name).model_dump()
        case "POST", "points", "query", "batch":
            asked = models.QueryRequestBatch.model_validate(body).searches
            found = CLIENT.query_batch_points(name, asked)
            return [one.model_dump(mode="json") for one in found]
    raise ValueError(f"not found: {method} {path}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    journal: Path

    def do(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(sent or "null")
        try:
            with LOCK:
                status, result = 200, answer(self.command, self.path, body)
                if self.command in ("PUT", "DELETE"):
                    with self.journal.open("a") as journal:
                        journal.write(json.dumps([self.command, self.path, body]) + "\n")
        except ValueError as e:
            status, result = 404, str(e)
        about = {"result": result, "status": "ok", "time": 0.0}
        content = json.dumps(about if status == 200 else {"status": {"error": result}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def main(port: int, journal: Path) -> None:
    journal.touch()
    for line in journal.read_text("utf-8").splitlines():
        answer(*json.loads(line))
    Handler.journal = journal
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
