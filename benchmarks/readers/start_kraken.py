"""Start a command of kraken, `ketos` or `kraken`, with the Python of kraken's own environment.

    PYTHON start_kraken.py ketos train ...

On Linux the registry's torchvision is built for CUDA. Beside a torch without CUDA its library does not load, and then
`import torchvision` fails because two operators are unknown. kraken calls neither, so they are declared here, without a
body.
"""

import ctypes
import importlib
import importlib.util
import sys
from pathlib import Path

import torch

UNKNOWN_WITHOUT_LIBRARY = ("nms", "qnms")
COMMANDS = {"ketos": "kraken.ketos", "kraken": "kraken.kraken"}


def declare_missing_operators() -> None:
    """Declare what `import torchvision` asks for, where torchvision's own library cannot."""
    found = importlib.util.find_spec("torchvision")
    libraries = list(Path(found.origin).parent.glob("_C*")) if found and found.origin else []
    try:
        for library in libraries:
            ctypes.CDLL(str(library))
    except OSError:
        for name in UNKNOWN_WITHOUT_LIBRARY:
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if __name__ == "__main__":
    declare_missing_operators()
    sys.argv = sys.argv[1:]
    importlib.import_module(COMMANDS[sys.argv[0]]).cli()
