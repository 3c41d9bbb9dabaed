"""The base model, judged by its files before anything is loaded: what `read` would stumble over is found here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_safetensors_metadata
from transformers import PreTrainedConfig

from ownhand.checks.configuration import ModelLimits
from ownhand.checks.findings import Finding, blocker, gigabytes, ready, warning
from ownhand.checks.lengths import read_trained_lines
from ownhand.errors import Refusal
from ownhand.files import read_json
from ownhand.model.adapter import add_adapter, lora_config
from ownhand.model.families import AGAIN, FAMILIES, OFFICIAL_MODEL_TYPE, read_family
from ownhand.model.loading import (
    check_weight_files,
    find_model,
    holds_all_weights,
    is_hub_id,
    model_class,
    naming,
    read_config,
    read_tokenizer,
)
from ownhand.model.official import UNUSED_OFFICIAL, official_tensors
from ownhand.model.views import ViewSizes, read_view_sizes
from ownhand.model.weights import open_weights, refuse_not_finite
from ownhand.params import Params, TrainParams
from ownhand.progress import track

KEYS_SHOWN = 3
LARGE_MODEL = 1e9  # weights, from which on a CPU needs seconds for one line
LARGE_ADAPTER = 0.1  # of the model's weights

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ModelFacts:
    """What is known of the base model before it is loaded.

    unreachable, unreadable: why the search ended; is_folder: a folder and not a hub id; files: tensors of the weight
    files, None when they cannot be seen; broken: what is wrong with one of them; expected: tensors of the architecture
    under the files' names; weights: their number; to_download: bytes that are not here yet; adapter_weights: number, 0
    when none fits; vocabulary: highest id of the tokenizer + 1; embedding: rows of the model's table.
    """

    name_or_path: str
    revision: str | None
    is_folder: bool
    unreachable: str = ""
    unreadable: str = ""
    model_type: str = ""
    files: Shapes | None = None
    broken: str = ""
    expected: Shapes | None = None
    weights: int = 0
    to_download: int = 0
    adapter_weights: int = 0
    vocabulary: int = 0
    embedding: int = 0


@dataclass(frozen=True)
class FoundModel:
    """A model whose small files are there."""

    config: PreTrainedConfig
    sizes: ViewSizes
    limits: ModelLimits


def gather_model(params: Params) -> tuple[ModelFacts, FoundModel | None]:
    """Look for the base model and read its small files; None when there is no model to go on with."""
    name, revision = params.model.name_or_path, params.model.revision
    known = ModelFacts(name, revision, is_folder=Path(name).is_dir())
    try:
        folder = find_model(name, revision, weights=False)
    except Refusal as error:
        return replace(known, unreachable=str(error)), None
    try:
        config, sizes, trained = read_config(folder), read_view_sizes(folder), read_trained_lines(folder)
        model_type = read_json(folder / "config.json", AGAIN)["model_type"]
        with torch.device("meta"), naming(folder / "config.json", "it describes no model"):
            model = model_class(config)._from_config(config)
            expected = {key: tuple(tensor.shape) for key, tensor in official_tensors(model).items()}
        vocabulary = max(read_tokenizer(folder).get_vocab().values()) + 1
    except (Refusal, OSError, ValueError) as error:
        return replace(known, unreadable=str(error)), None
    try:
        files, to_download = _read_weights(folder, name, revision)
        broken = ""
    except Refusal as error:
        files, to_download, broken = None, 0, str(error)
    limits = ModelLimits(
        modes=sizes.modes,
        max_tiles=read_family(folder).max_tiles,
        max_positions=config.text_config.max_position_embeddings,
        attention=("sdpa", "eager") if model._supports_sdpa else ("eager",),
        matched={target: count_matches(model, params.train, target) for target in params.train.lora_targets},
        trained=trained,
    )
    facts = replace(
        known,
        model_type=model_type,
        files=files,
        broken=broken,
        expected=expected,
        weights=sum(parameter.numel() for parameter in model.parameters()),
        to_download=to_download,
        adapter_weights=_count_adapter(model, params.train) if all(limits.matched.values()) else 0,
        vocabulary=vocabulary,
        embedding=config.text_config.vocab_size,
    )
    return facts, FoundModel(config, sizes, limits)


def _read_weights(folder: Path, name: str, revision: str | None) -> tuple[Shapes | None, int]:
    """(name and shape of every stored tensor, bytes still to be downloaded). Refusal for a damaged file and for NaN."""
    if Path(name).is_dir() or holds_all_weights(folder):
        check_weight_files(folder)
        shapes: Shapes = {}
        for path in sorted(folder.glob("*.safetensors")):
            with open_weights(path, AGAIN) as file:
                names = list(file.keys())
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in names}
                looked_at = track(names, what="check: weights", unit="tensor", delay=2)
                refuse_not_finite(path, ((key, file.get_tensor(key)) for key in looked_at), AGAIN)
        return shapes, 0
    try:
        stored = get_safetensors_metadata(name, revision=revision)
    except Exception:  # of many kinds; that the weights are not here yet is a finding, whatever the network says
        return None, 0
    tensors = {key: info for file in stored.files_metadata.values() for key, info in file.tensors.items()}
    size = sum(info.data_offsets[1] - info.data_offsets[0] for info in tensors.values())
    return {key: tuple(info.shape) for key, info in tensors.items()}, size


def count_matches(model: torch.nn.Module, params: TrainParams, target: str) -> int:
    """Weights of the model that one LoRA target matches, by PEFT's rules: a pattern for modules, endings for others."""
    config = lora_config(params.model_copy(update={"lora_targets": [target]}), "", None)
    pattern, endings = config.target_modules, tuple(f".{name}" for name in config.target_parameters or ())
    modules = [name for name, _ in model.named_modules() if isinstance(pattern, str) and re.fullmatch(pattern, name)]
    return len(modules) + sum(name.endswith(endings) for name, _ in model.named_parameters() if endings)


def _count_adapter(model: Any, params: TrainParams) -> int:
    adapted = add_adapter(model, lora_config(params, "", None))
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def check_base_model(facts: ModelFacts, device: str) -> list[Finding]:
    """Findings MODEL-001 to MODEL-004, MODEL-006, MODEL-007 and ENV-011."""
    if facts.unreachable:
        code = "MODEL-002" if is_hub_id(facts.name_or_path) and facts.revision is None else "MODEL-001"
        return [blocker(code, facts.unreachable, "`ownhand preset NAME` sets both, as `ownhand preset` lists them")]
    found = ready("MODEL-001", facts.name_or_path + ("" if facts.is_folder else " (hub)"))
    if facts.unreadable:
        remedy = f"use {FAMILIES[OFFICIAL_MODEL_TYPE].hub_id} or models/base, whole folders as published"
        return [found, blocker("MODEL-003", facts.unreadable, remedy)]
    checks = (_revision, _architecture, _tensors, _adapter, _tokenizer)
    findings = [found, *(finding for check in checks for finding in check(facts))]
    if device == "cpu" and facts.weights > LARGE_MODEL:
        seen = f"{facts.weights / 1e9:.1f} billion weights on a CPU"
        findings.append(warning("ENV-011", seen, "use a CUDA GPU, or models/base to try things out"))
    return findings


def _revision(facts: ModelFacts) -> Iterator[Finding]:
    if facts.is_folder and facts.revision:
        seen = f"model.revision is set, but {facts.name_or_path} is a folder, which has none"
        yield warning("MODEL-002", seen, "set model.revision to null")
    else:
        yield ready("MODEL-002", facts.revision or "a folder: its files decide")


def _architecture(facts: ModelFacts) -> Iterator[Finding]:
    yield ready("MODEL-003", f"{facts.model_type}, {facts.weights / 1e6:,.1f} million weights")


def _tensors(facts: ModelFacts) -> Iterator[Finding]:
    assert facts.expected is not None
    again = "download the checkpoint again: config.json and weights do not match"
    if facts.broken:
        yield blocker("MODEL-004", facts.broken, AGAIN)
        return
    if facts.files is None:
        remedy = "connect to the network, or download the checkpoint into a folder"
        yield warning("MODEL-004", "the weights are not here yet, and their headers cannot be read", remedy)
        return
    missing = sorted(facts.expected.keys() - facts.files.keys())
    unknown = sorted(facts.files.keys() - facts.expected.keys() - {UNUSED_OFFICIAL})
    misshapen = sorted(
        key for key in facts.expected.keys() & facts.files.keys() if facts.expected[key] != facts.files[key]
    )
    problems = [
        f"{len(keys)} {kind}: {', '.join(keys[:KEYS_SHOWN])}"
        for kind, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if keys
    ]
    if not problems:
        waiting = f"; {gigabytes(facts.to_download)} will be downloaded" if facts.to_download else ""
        yield ready("MODEL-004", f"{len(facts.files)} tensors, names and shapes as the architecture has them{waiting}")
        return
    # The names of the official layout were compared with the published checkpoint; of others we know them less well.
    found = blocker if facts.model_type == OFFICIAL_MODEL_TYPE else warning
    yield found("MODEL-004", "; ".join(problems), again)


def _adapter(facts: ModelFacts) -> Iterator[Finding]:
    if not facts.adapter_weights:
        return
    share = facts.adapter_weights / facts.weights
    seen = f"{facts.adapter_weights:,} weights, {share:.1%} of the model"
    if share > LARGE_ADAPTER and facts.weights > LARGE_MODEL:
        yield warning("MODEL-006", seen, "lower train.lora_r, or take experts out of train.lora_targets")
    else:
        yield ready("MODEL-006", seen)


def _tokenizer(facts: ModelFacts) -> Iterator[Finding]:
    seen = f"{facts.vocabulary:,} ids, {facts.embedding:,} rows in the model"
    if facts.vocabulary > facts.embedding:
        yield blocker("MODEL-007", seen, "tokenizer.json belongs to another model; download the checkpoint again")
    else:
        yield ready("MODEL-007", seen)
