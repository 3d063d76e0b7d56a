"""`dimerec serve`: a bundle behind HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output

if TYPE_CHECKING:
    from dimerec.serving.service import Service


def serve(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE",
            help="A run folder, a bundle, or a folder of bundles whose file CURRENT names one.",
        ),
    ],
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="Settings in TOML.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Where to listen.  \\[default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0 takes a free one.  \\[default: 8000]"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where histories are kept: sqlite:///FILE, redis://HOST:PORT/DB or memory:.  "
            "\\[default: sqlite:///histories.db]",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, as in limits.deadline=0.2. May be given several times.",
        ),
    ] = None,
) -> None:
    """Serve a bundle over HTTP.

    Recommendations by user id, history or context; live histories; reloads
    without a pause; /docs describes every route. Without tokens in the
    settings it is open, and listens on this machine alone.

      dimerec serve runs/ml
      curl -H 'Content-Type: application/json' -d '{"history": [1, 260]}' \\
          http://127.0.0.1:8000/v1/recommend

    SIGTERM and Ctrl-C drain: /ready says no, what is under way is answered.
    """
    import msgspec

    from dimerec.serving import settings as kinds

    chosen = {"host": host, "port": port, "store": store}
    overrides = [
        f"{name}={msgspec.json.encode(value).decode()}"
        for name, value in chosen.items()
        if value is not None
    ]
    known = kinds.load(settings, [*(changes or []), *overrides])
    _need("httptools", "prometheus_client", "starlette", "uvicorn")

    from dimerec.serving import server
    from dimerec.serving.service import Service

    with server.listen(known) as bound:
        service = Service(known, bundle)
        server.run(service, bound, lambda: _say(service, server.address(bound)))


def _need(*names: str) -> None:
    from importlib.util import find_spec

    from dimerec.errors import ConfigError

    if missing := [name for name in names if find_spec(name) is None]:
        raise ConfigError(
            f"serving needs {', '.join(missing)}, which is not installed: "
            "pip install 'dimerec[serve]'"
        )


def _say(service: "Service", url: str) -> None:
    served = service.shelf.current
    manifest = served.bundle.manifest
    output.line(f"Serving {manifest.config.model}, {served.name}, at {url}", "bold")
    output.facts(
        [
            ("version", served.version),
            ("items", manifest.sizes.items - 1),
            ("histories", service.settings.store),
            ("tokens", len(service.settings.tokens) or "none: open on this machine alone"),
            ("routes", f"{url}/docs"),
        ]
    )
    output.out().file.flush()
