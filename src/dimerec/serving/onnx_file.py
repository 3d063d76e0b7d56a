"""ONNX: `encode` as a file that other runtimes read, on any platform."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dimerec.errors import ServingError
from dimerec.serving.compiled import Encode, failed, quiet


def check_installed() -> None:
    """ServingError, with the way out, unless everything that ONNX takes is installed."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise ServingError(f"{name} is missing; install it: pip install 'dimerec[onnx]'")


def written(program: torch.export.ExportedProgram) -> bytes:
    """The program with its weights as an ONNX file.

    It takes `history` and `noise` and gives `queries`, as `encode`; B is free.

    Raises:
        ServingError: an operation that ONNX does not have, or more than 2 GB of weights.
    """
    with quiet(), _unsaid("torch.onnx", "onnxscript", "onnx_ir"):
        try:
            made = torch.onnx.export(
                program,
                input_names=["history", "noise"],
                output_names=["queries"],
                dynamo=True,
                verbose=False,
            )
            assert made is not None
            return made.model_proto.SerializeToString()
        except Exception as e:  # the converter's errors have no common kind
            raise failed("written as ONNX", e) from e


@contextmanager
def _unsaid(*names: str) -> Iterator[None]:
    """Log lines of the converter under the level of errors are of its own insides."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def session(content: bytes) -> Encode:
    """What ONNX Runtime makes of such a file, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runner = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    taken = {given.name for given in runner.get_inputs()}

    def encode(history: Tensor, noise: Tensor) -> Tensor:
        given = {"history": history.numpy(), "noise": noise.numpy()}
        return torch.from_numpy(
            runner.run(None, {name: value for name, value in given.items() if name in taken})[0]
        )

    return encode
