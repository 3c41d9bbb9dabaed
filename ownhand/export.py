"""Export: the trained model for others to run.

    ownhand export

Reads   the base model, models/adapter/, metrics/tables/summary.json; parameters `model`, `encode`, `train`.
Writes  models/merged/: base and adapter in one checkpoint of the official layout, as readers of DeepSeek-OCR expect it;
        models/adapter-official/: the adapter under official tensor names, as serving engines expect it. Each with a
        README that gives the measured error rates and the engines' commands.
Refuses to run without an adapter or without an evaluation of it, with an adapter that params.yaml does not describe,
        with a base model in a folder that it writes, and where the disk has no room.

Both are read back by `model.name_or_path: models/merged` and by `ownhand read --adapter models/adapter-official`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from ownhand.errors import Refusal
from ownhand.export_card import card
from ownhand.files import Unwritable, hash_file, read_json, write_folder, write_text
from ownhand.model.adapter import (
    WEIGHTS,
    load_adapter,
    lora_config,
    official_modules,
    read_adapter_config,
    read_adapter_weights,
    to_official,
    weaken,
)
from ownhand.model.families import AGAIN, OFFICIAL_MODEL_TYPE, read_family
from ownhand.model.loading import SMALL_FILES, find_model, load_base_model
from ownhand.model.official import read_unused, write_checkpoint
from ownhand.model.weights import refuse_not_finite
from ownhand.params import Params, TrainParams, read_params
from ownhand.runtime import DTYPES, alone_in

ADAPTER = Path("models/adapter")
EVALUATION = Path("metrics/tables/summary.json")
MERGED = Path("models/merged")
OFFICIAL_ADAPTER = Path("models/adapter-official")


def main() -> None:
    params = read_params()
    if not EVALUATION.exists():
        raise Refusal(f"{EVALUATION.as_posix()} is missing: run `dvc repro`, then export")
    refuse_base_in(params.model.name_or_path, (MERGED, OFFICIAL_ADAPTER))
    evaluation = read_evaluation(params)
    check_parameters(params.train, read_adapter_config(ADAPTER))
    exported = hash_file(ADAPTER / WEIGHTS)
    with alone_in(Path(".checkpoints/export")):  # two at once would write into each other's folders
        parameters = export_merged(params, ADAPTER, MERGED, evaluation)
        try:
            export_adapter(params, ADAPTER, OFFICIAL_ADAPTER, evaluation)
            written, refused = f" and {OFFICIAL_ADAPTER.as_posix()}", ""
        except Unwritable:
            raise
        except Refusal as refusal:
            written, refused = "", f"; refused {OFFICIAL_ADAPTER.as_posix()}: {refusal}"
    if hash_file(ADAPTER / WEIGHTS) != exported:
        raise Refusal(f"{ADAPTER.as_posix()} changed while it was exported: run `ownhand export` again")
    print(f"export: read {ADAPTER.as_posix()}; wrote {MERGED.as_posix()} ({parameters:,} parameters){written}{refused}")


def refuse_base_in(name_or_path: str, targets: Sequence[Path]) -> None:
    """Refusal when the base model is a folder that the export would replace: the adapter would be in it twice."""
    for target in targets:
        if Path(name_or_path).resolve().is_relative_to(target.resolve()):
            raise Refusal(
                f"model.name_or_path: the base model stands in {target.as_posix()}, which the export replaces; rename "
                "that folder, set model.name_or_path to its new name, and run `dvc repro`, then export"
            )


def read_evaluation(params: Params) -> dict[str, Any]:
    """The measured rates. Refusal, before anything is loaded, when the model cards cannot be written with them."""
    remedy = "run `dvc repro --force --single-item evaluate`, then export"
    evaluation: dict[str, Any] = read_json(EVALUATION, remedy)
    try:
        card(params, evaluation, merged=True)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise Refusal(
            f"{EVALUATION.as_posix()} is damaged: it does not hold the rates of base and adapter ({seen}); {remedy}"
        ) from None
    return evaluation


def export_merged(params: Params, adapter: Path, target: Path, evaluation: dict[str, Any]) -> int:
    """Base and adapter as one checkpoint in `target`, in `model.dtype`; the number of its parameters.

    The base model's own config.json, tokenizer and processor files are taken over. A previous export is replaced when
    the new one is whole. Refusal when the base model is not in the official layout, or the disk has no room.
    """
    base = find_model(params.model.name_or_path, params.model.revision)
    read_family(base)
    config = read_json(base / "config.json", AGAIN)
    if config["model_type"] != OFFICIAL_MODEL_TYPE:
        raise Refusal(f"{base} is of type {config['model_type']}: only {OFFICIAL_MODEL_TYPE} has an official layout")
    dtype = DTYPES[params.model.dtype]
    check_disk(target.parent, count_parameters(base) * dtype.itemsize)
    model = load_base_model(params.model.name_or_path, params.model.revision, dtype=dtype)
    adapted: Any = load_adapter(model, adapter, params.transcribe.adapter_strength)
    merged: PreTrainedModel = adapted.merge_and_unload()
    refuse_not_finite(target, merged.named_parameters(), "the adapter does not fit: run `dvc repro train` again")
    config.pop("auto_map", None)  # it names the repository's own code, which is neither used nor copied here
    config["torch_dtype"] = config["language_config"]["torch_dtype"] = params.model.dtype
    unused = read_unused(base)
    with write_folder(target) as unfinished:
        write_checkpoint(merged, unfinished, config, unused)
        for name in SMALL_FILES:
            if name != "config.json" and (base / name).exists():
                shutil.copyfile(base / name, unfinished / name)
        write_text(unfinished / "README.md", card(params, evaluation, merged=True))
    return count_parameters(target)


def export_adapter(params: Params, adapter: Path, target: Path, evaluation: dict[str, Any]) -> None:
    """The adapter under official tensor names. Refusal for an adapter that changes more than the decoder."""
    config = read_adapter_config(adapter)
    weights = to_official(read_adapter_weights(adapter), config.r)
    weaken(weights.items(), params.transcribe.adapter_strength)
    config.target_modules, config.target_parameters = official_modules(weights), None
    check_disk(target.parent, sum(tensor.nbytes for tensor in weights.values()))
    with write_folder(target) as unfinished:
        save_file(weights, unfinished / WEIGHTS, metadata={"format": "pt"})
        config.save_pretrained(str(unfinished))
        write_text(unfinished / "README.md", card(params, evaluation, merged=False))


def check_parameters(params: TrainParams, config: LoraConfig) -> None:
    """Refusal when the adapter was trained with other LoRA parameters: the model card would say what is not so."""
    expected = lora_config(params, "", None)
    differing = [
        f"{name} is {found} in the adapter, {wanted} in params.yaml"
        for name in ("r", "lora_alpha", "target_modules", "target_parameters")
        if (found := getattr(config, name) or None) != (wanted := getattr(expected, name) or None)
    ]
    if differing:
        raise Refusal(f"run `dvc repro`, then export: {'; '.join(differing)}")


def count_parameters(folder: Path) -> int:
    """Parameters of a checkpoint, from the headers of its files alone."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                size = 1
                for side in file.get_slice(name).get_shape():
                    size *= side
                total += size
    return total


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refusal when the disk of `folder` has no room for `needed_bytes` and a tenth more."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed_bytes:
        raise Refusal(
            f"{folder.as_posix()}: the export needs {1.1 * needed_bytes / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; "
            "make room, or work on another disk"
        )
