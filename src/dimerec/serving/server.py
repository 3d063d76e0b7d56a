"""The process: one socket, one event loop, and an end that drops nobody."""

import asyncio
import gc
import socket
from collections.abc import Callable
from types import FrameType

from dimerec.errors import ConfigError
from dimerec.serving.service import Service
from dimerec.serving.settings import Settings

LAST = 30  # seconds that requests under way get after the drain


def listen(settings: Settings) -> socket.socket:
    """A socket bound to the settings' address; ConfigError when it is taken or not ours."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        bound = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as e:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port} ({e.strerror}); "
            "choose another with --host and --port"
        ) from e
    # asyncio does this for sockets that name their protocol alone, and these do not. Without it an
    # answer's body waits until its head is acknowledged, 40 ms on a kept connection.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.setblocking(False)
    return bound


def run(service: Service, bound: socket.socket, started: Callable[[], None]) -> None:
    """Serve on the socket until SIGTERM or SIGINT, then drain.

    Args:
        started: called when requests are taken.
    """
    import uvicorn

    from dimerec.serving.app import application
    from dimerec.serving.protocol import protocol

    config = uvicorn.Config(
        application(service),
        http=protocol(service),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=round(service.settings.limits.header_seconds),
        timeout_graceful_shutdown=LAST,
    )

    class Server(uvicorn.Server):
        """One that goes on serving for a moment, while `/ready` already says no."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.loop = asyncio.get_running_loop()
            # What is loaded by now stays. A full collection looks at the rest, or it would hold
            # every request up for 150 ms; bundles are freed without one when a reload drops them.
            gc.collect()
            gc.freeze()
            started()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            again = service.draining
            service.draining = True
            if again or not self.started:
                self.should_exit = True
            else:
                self.loop.call_soon_threadsafe(
                    self.loop.call_later, service.settings.drain, self._stop
                )

        def _stop(self) -> None:
            self.should_exit = True

    Server(config).run(sockets=[bound])


def address(bound: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
