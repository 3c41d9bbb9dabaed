"""params.yaml: every problem at once, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ownhand.params import ParameterError, read_params

ROOT = Path(__file__).parent.parent


def changed(tmp_path: Path, **groups: dict[str, Any]) -> Path:
    """The repository's params.yaml with some values replaced; None removes a key."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for group, values in groups.items():
        content[group].update(values)
        content[group] = {key: value for key, value in content[group].items() if value is not ...}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_all_problems_stand_in_one_message(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        train={"lora_rr": 8, "learning_rate": "1e-4", "epochs": -1.0, "batch_size": "four", "seed": ...},
        encode={"mode": "huge"},
        model={"revision": "main"},
    )
    with pytest.raises(ParameterError) as caught:
        read_params(path)
    message = str(caught.value)
    assert "7 problem(s)" in message
    assert "train.lora_rr: unknown key; did you mean train.lora_r?" in message
    assert "train.learning_rate: '1e-4' is text for YAML; write the number with a dot" in message
    assert "train.epochs: Input should be greater than 0; seen: -1.0" in message
    assert "train.batch_size: Input should be a valid integer; seen: 'four'" in message
    assert "train.seed: missing" in message
    assert "encode.mode" in message and "'gundam'" in message
    assert "model.revision" in message


def test_an_unknown_key_of_a_group_within_a_group_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    path = changed(tmp_path, encode={"augment": {"blurr": 0.01}})
    with pytest.raises(
        ParameterError, match=r"encode\.augment\.blurr: unknown key; did you mean encode\.augment\.blur\?"
    ):
        read_params(path)


def test_a_whole_group_missing_or_unknown_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["trian"] = content.pop("train")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ParameterError, match="trian: unknown key; did you mean train"):
        read_params(path)


def test_dropout_on_fused_experts_is_a_conflict(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="lora_dropout must be 0 with the target `experts`"):
        read_params(changed(tmp_path, train={"lora_dropout": 0.1, "lora_targets": ["experts"]}))


def test_a_single_fold_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="folds: 1 would leave nothing to train on"):
        read_params(changed(tmp_path, evaluate={"folds": 1}))


def test_a_missing_file_and_broken_yaml_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="in the folder that holds dvc.yaml"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("train: [", encoding="utf-8")
    with pytest.raises(ParameterError, match="not valid YAML"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16", "utf-16-le"])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "params.yaml").write_text("train:  # обучение\n  seed: 1\n", encoding=encoding)
    with pytest.raises(ParameterError, match=r"params\.yaml is not (UTF-8 text|valid YAML)"):
        read_params(tmp_path / "params.yaml")
