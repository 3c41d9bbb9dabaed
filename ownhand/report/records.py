"""Records: what the other stages left behind for the report: data, training, readiness, settings.

Of these only params.yaml must exist. Nothing is read here that DVC does not watch for `evaluate`: a report never shows
what has changed since it was written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownhand import files
from ownhand.errors import Refusal
from ownhand.params import PARAMS_FILE, Params, flatten, read_params
from ownhand.report.charts import Curve, draw_curve
from ownhand.report.thumbnails import embed_jpeg
from ownhand.report.verdict import count, describe_loss
from ownhand.samples import Sample
from ownhand.text import comparable, grapheme_clusters
from ownhand.vision.contact_sheet import read_contact_sheet

REJECTED_SHOWN = 200
TRAINING = {  # what the entries of train.json are called in the report
    "train_lines": "Training lines",
    "rehearsal_lines": "Printed lines that train beside them",
    "train_examples": "Pictures of both, with augmented copies",
    "val_lines": "Validation lines",
    "optimizer_steps": "Optimizer steps",
    "selected_step": "Step that was kept",
    "trainable_parameters": "Trainable parameters",
    "train_loss": "Training loss (nats per token)",
    "val_loss_before": "Validation loss before training",
    "val_loss": "Validation loss after training",
    "val_loss_swapped_pictures": "The same with swapped images",
    "uniform_loss": "Loss of pure guessing",
}
UNTRACKED = ("check", "runtime")  # groups that change no result, so that DVC writes no new report for them


def gather_records(root: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """The template's variables about data, training and settings of the repository at `root`."""
    metrics = root / "metrics"
    train = read_if_there(metrics / "train.json")
    rejected = files.read_table(metrics / "rejected.csv")
    waiting = Counter(row["what"].partition(":")[0] for row in files.read_table(metrics / "waiting.csv"))
    readiness = read_if_there(metrics / "readiness.json").get("findings", [])
    return {
        "curve": read_curves(metrics / "curves", "*_loss.csv", "loss"),
        "cer_curve": read_curves(metrics / "curves", "*_cer.csv", "cer", 100.0),
        "train": {label: _worded(train[name]) for name, label in TRAINING.items() if name in train},
        "loss": describe_loss(train),
        "findings": train.get("findings", {}),
        "splits": count_splits(samples),
        "copies": embed_contact_sheet(root / "data/features/contact_sheet"),
        "rejected": rejected[:REJECTED_SHOWN],
        "rejected_left": len(rejected) - REJECTED_SHOWN,
        "reasons": Counter(row["reason"].partition(":")[0] for row in rejected).most_common(),
        "waiting": " and ".join(count(number, kind) for kind, number in sorted(waiting.items())),
        "readiness": [finding for finding in readiness if finding["level"] != "ready"],
        "in_order": [finding for finding in readiness if finding["level"] == "ready"],
        "params_text": word_params(read_params(root / PARAMS_FILE)),
    }


def word_params(params: Params) -> str:
    """The parameters behind the results, a line each, as `dvc params diff` names them."""
    return "\n".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in flatten(params).items()
        if name.partition(".")[0] not in UNTRACKED
    )


def embed_contact_sheet(folder: Path) -> dict[str, Any] | None:
    """A contact sheet with its pictures as data URIs (`uri`) and its settings in words; None where there is none."""
    sheet = read_contact_sheet(folder)
    if sheet is None:
        return None
    groups = [
        {**group, "pictures": [{**shown, "uri": embed_jpeg(folder / shown["file"])} for shown in group["pictures"]]}
        for group in sheet["groups"]
    ]
    words = {name: f"{value:g}" for name, value in sheet["settings"].items()}
    return {"groups": groups, "settings": words}


def read_curves(folder: Path, pattern: str, column: str, scale: float = 1.0) -> Curve | None:
    """One series per CSV file (step, `column` times `scale`), named after the file; None without a drawable one."""
    series = {
        path.stem.replace("_", " "): [
            (float(row["step"]), scale * float(row[column])) for row in files.read_table(path)
        ]
        for path in sorted(folder.glob(pattern))
    }
    return draw_curve(series)


def count_splits(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Per split: samples, pages, hands and characters."""
    rows = []
    for split, name in (("train", "Training"), ("val", "Validation")):
        own = [sample for sample in samples if sample.split == split]
        row: dict[str, Any] = {"name": name, "samples": len(own)}
        row["pages"] = len({sample.place for sample in own})
        row["hands"] = sorted({sample.hand for sample in own if sample.hand})
        row["characters"] = sum(len(grapheme_clusters(comparable(sample.text))) for sample in own)
        rows.append(row)
    return rows


def read_if_there(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty without the file. Refusal when it is damaged."""
    if not path.exists():
        return {}
    remedy = "run the stage that writes it again: `dvc repro --force`"
    content: dict[str, Any] = files.read_json(path, remedy)
    if not isinstance(content, dict):
        raise Refusal(f"{path.as_posix()} is damaged: it holds {type(content).__name__} and no object; {remedy}")
    return content


def _worded(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
