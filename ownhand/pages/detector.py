"""The detector: where a picture shows writing, as boxes; rapidocr's PP-OCR model, which its wheel holds, offline.

rapidocr and onnxruntime are the optional extra `ownhand[lines]`. Only the detector is used, no recogniser is loaded.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

import numpy as np
from PIL import Image

from ownhand.errors import Refusal

# Where lines of a page are found whole: on larger pictures they fall into words, on smaller ones they run together.
SEEN_PX = 1000
LEAST_SCORE = 0.4  # of a box: the library's own 0.5 loses lines in deep shadow; boxes without ink are dropped later
LEAST_SIDE_PX = 320  # a single line stands on as much paper as the detector was taught to see
MISSING = "finding lines needs rapidocr and onnxruntime; install them with: pip install 'ownhand[lines]'"

Detector = Callable[[Image.Image], np.ndarray]


def load_detector(threads: int | None = None) -> Detector:
    """A function from an RGB picture to boxes of writing.

    The boxes have the shape (n, 4, 2): corners (x, y) in the picture's pixels, clockwise from the upper left as seen
    along the writing, in no particular order; n may be 0. threads: None for one per core. Raises Refusal when rapidocr
    or its model cannot be loaded.
    """
    try:
        rapidocr = importlib.import_module("rapidocr")
        importlib.import_module("onnxruntime")
    except ImportError as error:
        raise Refusal(f"{MISSING} ({error})") from None
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    engine = rapidocr.RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_preprocess_img": False,  # the size is chosen here
            "Global.use_vertical_padding": False,
            "Det.limit_type": "max",
            "Det.limit_side_len": SEEN_PX,
            "Det.box_thresh": LEAST_SCORE,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads or -1,
        }
    )

    def detect(image: Image.Image) -> np.ndarray:
        scale = min(1.0, SEEN_PX / max(image.size))
        size = [max(1, round(side * scale)) for side in image.size]
        seen = image.resize((size[0], size[1]), Image.Resampling.LANCZOS) if scale < 1 else image
        canvas, left, upper = _on_paper(seen)
        found = engine(canvas, use_det=True, use_cls=False, use_rec=False).boxes
        if found is None or not len(found):
            return np.empty((0, 4, 2))
        return np.asarray((np.asarray(found, float) - (left, upper)) / scale)

    return detect


def _on_paper(image: Image.Image) -> tuple[Image.Image, int, int]:
    """The picture in the middle of enough of its own edge, and where its corner is."""
    left = max(0, (LEAST_SIDE_PX - image.width) // 2)
    upper = max(0, (LEAST_SIDE_PX - image.height) // 2)
    if not left and not upper:
        return image, 0, 0
    widths = ((upper, upper), (left, left), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), widths, mode="edge")), left, upper
