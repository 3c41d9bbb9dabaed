"""Transcription beside the usual way: batches from the cache, against one picture after the other through the model.

    python -m benchmarks.transcription [--model models/base] [--mode gundam] [--lines 48] [--batch 16] [--json FILE]

Both ways run in this process on the same weights, pictures and decoding settings, in turn, three times each, and must
read the same. Prints pictures per second of each (the best time of three) and their ratio, without and with the time
that encoding takes. Absolute figures belong to the machine and its load.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.training import FONT, ROOT, TEXTS, wait
from demo.drawing import draw_line, random_hand
from ownhand.files import write_json
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.model.views import compute_vision_tokens
from ownhand.params import read_params
from ownhand.runtime import DTYPES, set_up
from ownhand.samples import Reading

TIMES = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transcription")
    parser.add_argument("--model", type=Path, default=ROOT / "models/base")
    parser.add_argument("--mode", default="gundam")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--lines", type=int, default=48)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report = measure(arguments)
    if arguments.json:
        write_json(arguments.json, report)
    for name, value in report.items():
        print(f"{name:44}{value:12.3f}")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Pictures per second of both ways, and how many lines they read differently."""
    params = read_params(ROOT / "params.yaml")
    device = set_up(params.runtime)
    asked = {"name_or_path": str(arguments.model), "revision": None, "dtype": arguments.dtype}
    encode = params.encode.model_copy(update={"mode": arguments.mode})
    params = params.model_copy(update={"model": params.model.model_copy(update=asked), "encode": encode})
    base = BaseModel.open(params)
    model = base.load(device)
    pictures = draw_pictures(arguments.lines)

    def read(tokens: list[Any], batch_size: int) -> list[Reading]:
        settings = params.transcribe.model_copy(update={"batch_size": batch_size})
        return transcribe_tokens(model, tokens, base, settings, None)

    def see(picture: Image.Image) -> Any:
        return compute_vision_tokens(model, base.view_rules.views(picture))

    seconds: dict[str, list[float]] = {"encode": [], "ours": [], "usual": []}
    for _ in range(TIMES):
        cached, taken = timed(lambda: [see(picture) for picture in pictures])
        seconds["encode"].append(taken)
        ours, taken = timed(lambda tokens=cached: read(tokens, arguments.batch))
        seconds["ours"].append(taken)
        usual, taken = timed(lambda: [read([see(picture)], 1)[0] for picture in pictures])
        seconds["usual"].append(taken)
    best = {name: min(taken) for name, taken in seconds.items()}
    return {
        "usual_pictures_per_second": arguments.lines / best["usual"],
        "ours_pictures_per_second": arguments.lines / best["ours"],
        "ratio": best["usual"] / best["ours"],
        "ratio_with_the_time_of_encoding": best["usual"] / (best["ours"] + best["encode"]),
        "lines_read_differently": float(sum(a.text != b.text for a, b in zip(ours, usual, strict=True))),
    }


def draw_pictures(count: int) -> list[Image.Image]:
    """Lines of the demo's texts in the demo's hand."""
    texts = [row.partition("\t")[2].strip() for row in TEXTS.read_text(encoding="utf-8").splitlines()[1:]]
    rng = np.random.default_rng(1)
    return [draw_line(texts[i % len(texts)], FONT, random_hand(rng, 0.5), rng, 64) for i in range(count)]


def timed(work: Any) -> tuple[Any, float]:
    """(what it returns, seconds)."""
    wait()
    started = time.perf_counter()
    result = work()
    wait()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    main()
