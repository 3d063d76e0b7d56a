"""`dimerec` as a child process, with the models of this folder, and without pickle.

Whatever looks up a name for an unpickler ends the process with `PICKLED`.
"""

import os
import sys
from pathlib import Path

PICKLED = 66
MODELS = str(Path(__file__).parent / "models")


def _watch(event: str, args: tuple) -> None:
    if event == "pickle.find_class":
        os.write(2, f"PICKLE {args!r}\n".encode())
        os._exit(PICKLED)


def main() -> None:
    sys.addaudithook(_watch)
    if sys.argv[1:] == ["unpickle"]:
        import pickle

        pickle.loads(pickle.dumps(Path))  # noqa: S301
        return
    import dimerec.models
    from dimerec.cli import main as dimerec_main

    dimerec.models.__path__.append(MODELS)
    dimerec_main()


if __name__ == "__main__":
    main()
