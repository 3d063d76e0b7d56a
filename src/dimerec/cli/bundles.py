"""Where a bundle is: at the path itself, or in the run folder that was given."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dimerec.bundle import Bundle

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A run folder, or the bundle inside it.")
]


def open_bundle(path: Path) -> "Bundle":
    """The bundle at `path` or at `path/bundle`.

    Raises:
        BundleError: there is none, the run has not ended, or it is broken.
    """
    from dimerec.bundle import Bundle
    from dimerec.errors import BundleError

    if (path / "bundle").is_dir():
        path = path / "bundle"
    elif (path / "checkpoint").is_dir():
        raise BundleError(
            f"{path}: this run has not ended, so it has no bundle yet; go on with it: "
            f"dimerec train DATASET --out {path} --resume"
        )
    return Bundle.open(path)
