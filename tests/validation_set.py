"""A small validation set on disk, as `prepare`, `train` and `transcribe` would have left it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ownhand.evaluation.readings import READERS, ScoredLine, score_lines
from ownhand.params import EvaluateParams
from ownhand.samples import Sample, read_metadata, write_metadata

PARAMS = EvaluateParams(bootstrap_samples=300, confidence_level=0.95, min_pages=3, worst_lines=2, folds=0, seed=1)
# (page, transcription, reading of the base model, reading of the adapter)
ROWS = (
    ("p1", "мама мыла раму", "мома мыла рану", "мама мыла раму"),
    ("p1", "Ёж № 5", "Еж N 5", "Ёж № 6"),
    ("p2", "добрый день", "", "добрый день"),
    ("p3", "снег до обеда", "снег да обела нет нет", "снег до обеда"),
)


def write_validation_set(
    root: Path, rows: Sequence[tuple[str, str, str, str]] = ROWS, size_px: tuple[int, int] = (160, 40)
) -> Path:
    """Metadata with one training sample in front, pictures and predictions below `root`; returns `root`."""
    samples = [_sample("00001", "p9", "train line", "train", size_px)]
    predictions: dict[str, list[dict[str, Any]]] = {"base": [], "adapter": []}
    for number, (page, text, base, adapter) in enumerate(rows, start=2):
        sample = _sample(f"{number:05d}", page, text, "val", size_px)
        samples.append(sample)
        picture = Image.new("RGB", size_px, "white")
        ImageDraw.Draw(picture).text((4, 12), f"line {number}", fill="black")
        (root / sample["image_path"]).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / sample["image_path"], quality=95)
        for reader, reading in (("base", base), ("adapter", adapter)):
            predictions[reader].append(
                {
                    "image_id": sample["image_id"],
                    "prediction": reading,
                    "new_tokens": len(reading) + 1,
                    "runaway": "нет нет" in reading,
                    "confidence": round(1 / number, 4),
                }
            )
    probes = [
        {"probe": probe, "reader": reader, "image_id": image_id, "picture": image_id, "truth": text, "prediction": read}
        for probe, reader, image_id, text, read in (
            *(("blank", "adapter", sample["image_id"], sample["text"], "") for sample in samples[1:]),
            ("printed", "base", "printed/00", "Вход", "Вход"),
            ("printed", "adapter", "printed/00", "Вход", "Вход"),
        )
    ]
    write_predictions(root, "probes", probes)
    write_metadata([Sample(**sample) for sample in samples], root / "data/processed")
    for reader in predictions:
        write_predictions(root, reader, predictions[reader])
    shutil.copyfile(Path(__file__).parent.parent / "params.yaml", root / "params.yaml")
    return root


def write_cross_validation(root: Path, folds: int, read_in_training: str = "train line") -> Path:
    """Folds of whole pages over a written validation set: each sample is read as in validation, the training sample by
    the adapters as `read_in_training`; returns `root`.
    """
    samples = read_metadata(root / "data/processed")
    fold_of = {page: number % folds + 1 for number, page in enumerate(sorted({sample.page for sample in samples}))}
    for reader in READERS:
        rows = read_predictions(root, reader)
        read = {"base": "", "adapter": read_in_training}[reader]
        own = {"image_id": "00001", "prediction": read, "new_tokens": 1, "runaway": False, "confidence": 0.5}
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [own, *rows])
        write(root / f"data/cross_validation/{reader}.jsonl", text)
    records = [
        {
            "fold": fold,
            "trained": [sample.image_id for sample in samples if fold_of[sample.page] != fold],
            "held_out": [sample.image_id for sample in samples if fold_of[sample.page] == fold],
            "optimizer_steps": 7,
            "val_loss_before": 2.5,
            "val_loss": fold / 4,
            "val_loss_swapped_pictures": 4.0,
        }
        for fold in range(1, folds + 1)
    ]
    write(root / "data/cross_validation/folds.json", json.dumps({"folds": folds, "records": records}))
    for sample in samples:  # a picture of the training sample, too
        if not (root / sample.image_path).exists():
            (root / sample.image_path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (sample.width, sample.height), "white").save(root / sample.image_path)
    return root


def read_validation_lines(root: Path) -> list[ScoredLine]:
    files = {reader: root / f"data/predictions/{reader}.jsonl" for reader in READERS}
    return score_lines(read_metadata(root / "data/processed"), files)


def write_predictions(root: Path, reader: str, predictions: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions)
    write(root / f"data/predictions/{reader}.jsonl", text)


def read_predictions(root: Path, reader: str) -> list[dict[str, Any]]:
    text = (root / f"data/predictions/{reader}.jsonl").read_text(encoding="utf-8")
    return [json.loads(row) for row in text.splitlines()]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _sample(image_id: str, page: str, text: str, split: str, size_px: tuple[int, int]) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "image_path": f"data/processed/{split}/images/{image_id}.jpg",
        "text": text,
        "original_filename": f"{page}/строка {image_id}.png",
        "page": page,
        "hand": "",
        "width": size_px[0],
        "height": size_px[1],
        "split": split,
        "sha256": image_id,
    }
