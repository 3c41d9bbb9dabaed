"""Prepare: photographs and their transcriptions become samples for training and validation.

Reads   data/raw/: pictures in any sub-folders and their transcriptions in one of the formats of DATA.md, such as
        annotations.csv (filename, text and perhaps page, hand); the base model's tokenizer; parameters `prepare`,
        and those of `model`, `encode`, `train` that decide what fits.
Writes  data/processed/{train,val}/: images/<image id>.jpg and metadata.json (last: without it the folder is not whole);
        {train,val}.txt (the original names); metrics/rejected.csv (file, row, reason), metrics/waiting.csv (what has no
        transcription yet), metrics/split.json (the proof that nothing held out was trained on, and what it allows).
        Test samples, where wanted, are kept apart in data/processed/test/, which no stage opens.
Refuses what cannot be one sample, row by row; the whole run when more than `prepare.max_rejected_share` is refused or
        when no split without a leak exists.
Alone   python -m stages.prepare
"""

from __future__ import annotations

from pathlib import Path

from ownhand.dataset.conversion_cache import open_cache
from ownhand.dataset.preparation import prepare
from ownhand.errors import run_stage
from ownhand.images import ImageLimits
from ownhand.inputs import Inputs
from ownhand.params import read_params
from ownhand.samples import PROCESSED

RAW = Path("data/raw")
METRICS = Path("metrics")


def main() -> None:
    from ownhand.model.fit import SequenceLimit  # not above: processes that convert pictures import this module

    inputs = Inputs.of("prepare")
    params = read_params()
    with open_cache(ImageLimits.of(params.prepare)) as cache:
        closing = prepare(RAW, PROCESSED, METRICS, params.prepare, SequenceLimit.of(params), cache=cache)
    inputs.refuse_edits()
    print(closing)


if __name__ == "__main__":
    run_stage(main)
