"""Curve: what more transcribed lines would bring, from adapters that were trained on ever larger parts of them.

    ownhand curve  [--target CER] [--points N]

Reads   data/processed/, data/features/ and the base model; parameters `model`, `encode`, `train`, `transcribe`,
        `evaluate`. The same validation pages measure every adapter, each as `cross_validate` would train it.
Writes  metrics/learning_curve/curve.json and curve.svg; the next `dvc repro` puts them into the report, as long as
        samples and parameters are those of the curve.
Refuses what `train` refuses, and training pages that are too few to be divided.

It takes about three times as long as `train`. Interrupted, it keeps the adapters' readings that are finished and goes
on from the checkpoint of the one that is not; with another target it is over in seconds. All of that lies in
.checkpoints/curve/. It works in one process, whatever runtime.processes says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownhand.errors import Refusal
from ownhand.evaluation.learning_curve import FILE, Trained, make_curve, origin, word_curve
from ownhand.evaluation.metrics import count_character_errors
from ownhand.evaluation.uncertainty import Counts, add_by_page
from ownhand.files import write_json, write_text
from ownhand.params import Params
from ownhand.report.html_report import open_template
from ownhand.report.learning_curve import gather_learning_curve
from ownhand.runtime import alone_in, set_up
from ownhand.samples import Sample, read_metadata
from ownhand.training.subsets import choose_subsets, subsets_folder, train_on_subsets

FEATURES = Path("data/features")


def curve(params: Params, target: float, points: int) -> None:
    """Train on the subsets, or take up what is finished, and write and say what came out; target: a share."""
    if not (FEATURES / "index.json").exists():
        raise Refusal(f"{FEATURES.as_posix()} is missing; run `dvc repro` first")
    samples = read_metadata()
    subsets = choose_subsets(samples, points)
    unfinished = subsets_folder(params, FEATURES)
    device = set_up(params.runtime)
    with alone_in(unfinished):
        base, done = train_on_subsets(subsets, samples, params, FEATURES, unfinished, device)
    validation = [sample for sample in samples if sample.split == "val"]
    characters, base_errors = count_by_page(validation, base)
    trained = [
        Trained(
            subset.name,
            len(subset.samples),
            subset.pages,
            one["record"]["optimizer_steps"],
            count_by_page(validation, one["rows"])[1],
        )
        for subset, one in zip(subsets, done, strict=True)
    ]
    found = make_curve(trained, base_errors, characters, origin(samples, params), params.evaluate, target)
    write_json(FILE, found.model_dump())
    figure = open_template("learning_curve.svg").render(gather_learning_curve(found))
    write_text(FILE.with_suffix(".svg"), figure)
    for sentence in word_curve(found):
        print(f"curve: {sentence}")
    print(f"curve: wrote {FILE.as_posix()} and {FILE.with_suffix('.svg').name}; `dvc repro` puts it into the report")


def count_by_page(samples: Sequence[Sample], rows: Sequence[dict[str, Any]]) -> tuple[Counts, Counts]:
    """(characters, wrong characters) of each page, pages in sorted order; a row for each sample, by image id."""
    read = {row["image_id"]: row["prediction"] for row in rows}
    counts = [count_character_errors(sample.text, read[sample.image_id]) for sample in samples]
    pages = [f"{sample.hand} / {sample.page}" for sample in samples]
    return add_by_page(pages, [n for _, n in counts]), add_by_page(pages, [errors for errors, _ in counts])
