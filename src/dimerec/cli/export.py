"""`dimerec export`: the model of a bundle as native code of this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from dimerec.cli import output
from dimerec.cli.bundles import BundlePath, open_bundle
from dimerec.cli.output import Json

if TYPE_CHECKING:
    from dimerec.serving.parity import Check


def export(
    bundle: BundlePath,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="Write encode.onnx, too, for other runtimes; needs dimerec[onnx]."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Compile a bundle's model for this machine, and verify it against the model.

    What is made goes into the bundle's folder "cache", and is used by whatever
    serves the bundle on a machine of this kind. Nothing needs it: without it the
    same answers come slower. It takes a minute and a C++ compiler.

      dimerec export runs/ml
      dimerec export runs/ml --onnx
    """
    from dimerec.serving import export as exporting

    opened = open_bundle(bundle)
    card = exporting.export(opened, onnx=onnx)
    at = exporting.folder(opened)
    if json:
        return output.document({"folder": at, "card": card})
    output.line(f"{opened.config.model} for {card.platform}", "bold")
    output.table(
        "",
        ("runs in", "batch", "largest difference", "same best items", "before", "now", "faster"),
        [_row(check) for check in card.checks],
        right=("batch", "largest difference", "same best items", "before", "now", "faster"),
    )
    for name, entry in sorted(card.files.items()):
        output.line(f"{at / name}  {output.size(entry.size)}")


def _row(check: "Check") -> list[object]:
    return [
        check.engine,
        check.batch,
        f"{check.difference:.0e}",
        f"{check.agreement:.1%}",
        f"{1e6 * check.eager:,.0f} us",
        f"{1e6 * check.compiled:,.0f} us",
        f"{check.eager / check.compiled:.1f}x",
    ]
