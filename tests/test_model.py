"""The loader: what does not fit is an error that says so, never a model that is half random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.lib.model import ModelError, find_model, load_base_model, read_config


def changed_config(folder: Path, copy: Path, **values: Any) -> Path:
    """A copy of a checkpoint folder with another config.json."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["language_config"] |= values.pop("language_config", {})
    (copy / "config.json").write_text(json.dumps(config | values), encoding="utf-8")
    return copy


def test_missing_unexpected_and_misshapen_weights_are_errors(model_folder: Path, tmp_path: Path) -> None:
    for name, numbers, message in (
        ("deeper", {"num_hidden_layers": 5}, "missing keys"),
        ("shallower", {"num_hidden_layers": 3}, "unexpected keys"),
        ("wider", {"intermediate_size": 400}, "mismatched keys"),
    ):
        folder = changed_config(model_folder, tmp_path / name, language_config=numbers)
        with pytest.raises(ModelError, match=message):
            load_base_model(str(folder), dtype=torch.float32)


def test_an_unknown_architecture_is_refused(model_folder: Path, tmp_path: Path) -> None:
    folder = changed_config(model_folder, tmp_path / "llama", model_type="llama")
    with pytest.raises(ModelError, match="'llama' is not one that ownhand knows"):
        read_config(folder)


def test_a_model_that_wants_another_prompt_is_refused_instead_of_asked_wrongly(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = changed_config(model_folder, tmp_path / "other", model_type="unlimited_ocr")
    with pytest.raises(ModelError, match="is asked with 'document parsing.'"):
        read_config(folder)


def test_a_missing_folder_and_a_hub_id_without_revision_are_explained() -> None:
    with pytest.raises(ModelError, match="there is no folder 'models/nothing'"):
        find_model("models/nothing", None)
    with pytest.raises(ModelError, match="needs its 40-digit commit"):
        find_model("deepseek-ai/DeepSeek-OCR", None)
