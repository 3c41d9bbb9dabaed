"""Cross-validate: each page is read once, by an adapter that was trained without it.

Reads   data/processed/{train,val}/metadata.json, data/features/, the base model (without its vision tower); parameters
        `evaluate.folds`, `model`, `train`, `transcribe`. Augmented copies of validation pictures are made from
        data/processed/ (parameters `encode`). Samples of training and validation take part, those of `test` never.
Writes  data/cross_validation/: base.jsonl and adapter.jsonl, as `transcribe` writes them but of all pictures, and
        folds.json (last): who was held out when, and how each fold was trained. Without folds only the latter.
Refuses more folds than there are groups of pages that can be held out, and what `train` refuses.
Alone   python -m stages.cross_validate

With `evaluate.folds: 0` it does nothing, and takes no time. Interrupted, it keeps the folds that are finished and goes
on from the checkpoint of the one that is not; all of that lies in .checkpoints/cross_validate/.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ownhand.errors import run_stage
from ownhand.files import write_json, write_text
from ownhand.inputs import Inputs
from ownhand.params import Params, read_params
from ownhand.samples import read_metadata
from ownhand.training.folds import assign_folds

FEATURES = Path("data/features")
OUTPUT = Path("data/cross_validation")


def main() -> None:
    inputs = Inputs.of("cross_validate")
    params = read_params()
    if params.evaluate.folds:
        validate(params, inputs)
        return
    shutil.rmtree(OUTPUT, ignore_errors=True)
    write_json(OUTPUT / "folds.json", {"folds": 0})
    print("cross_validate: evaluate.folds is 0, nothing to do")


def validate(params: Params, inputs: Inputs) -> None:
    """Train and read all folds, and write what came out."""
    samples = read_metadata()
    folds = assign_folds(samples, params.evaluate.folds)  # refuses before anything is loaded
    from ownhand import processes  # behind the way without folds, which must not wait for torch
    from ownhand.model.decoding import json_lines
    from ownhand.runtime import alone_in, set_up
    from ownhand.training.cross_validation import cross_validate, unfinished_folder

    if processes.start_processes("stages.cross_validate", params.runtime.processes):
        return
    unfinished = unfinished_folder(folds, params, FEATURES)
    device = set_up(params.runtime)
    with alone_in(unfinished):
        base, adapter, records = cross_validate(samples, folds, params, FEATURES, unfinished, device)
        if processes.number():
            return
        inputs.refuse_edits()
        shutil.rmtree(OUTPUT, ignore_errors=True)
        write_text(OUTPUT / "base.jsonl", json_lines(base))
        write_text(OUTPUT / "adapter.jsonl", json_lines(adapter))
        write_json(OUTPUT / "folds.json", {"folds": params.evaluate.folds, "records": records})
        shutil.rmtree(unfinished, ignore_errors=True)
    steps = sorted({record["optimizer_steps"] for record in records})
    print(
        f"cross_validate: read {len(samples)} pictures in {len(records)} folds, each with an adapter of "
        f"{' or '.join(map(str, steps))} steps that had not seen its page; wrote {OUTPUT.as_posix()}; refused 0"
    )


if __name__ == "__main__":
    run_stage(main)
