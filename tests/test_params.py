"""params.yaml: every problem at once, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ownhand.params import LARGEST_BYTES, ParameterError, Params, TrainParams, groups, read_params

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
        train={"lora_rr": 8, "learning_rate": "0.5", "epochs": -1.0, "batch_size": "four", "seed": ...},
        encode={"mode": "huge"},
        model={"revision": "main"},
    )
    with pytest.raises(ParameterError) as caught:
        read_params(path)
    message = str(caught.value)
    assert "7 problem(s)" in message
    assert "train.lora_rr: unknown key; did you mean train.lora_r?" in message
    assert "train.learning_rate: '0.5' is text for YAML; write the number without quotes" in message
    assert "train.epochs: Input should be greater than 0; seen: -1.0" in message
    assert "train.batch_size: Input should be a valid integer; seen: 'four'" in message
    assert f"train.seed: missing; its default is {TrainParams().seed}" in message
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
    path = tmp_path / "params.yaml"
    with pytest.raises(ParameterError, match="in the folder that holds dvc.yaml"):
        read_params(path)
    for content, reason in (
        ("train: [", "line 1 is not valid YAML"),
        ("a: 1\nb: {\n", "line 3 is not valid YAML"),
        ("a: 1\na: 2\n", 'line 2 is not valid YAML: found duplicate key "a"'),
        ("- a", "must hold groups such as `train:`, it holds list"),
        ("", "it holds NoneType"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("1: 2", "1: Keys should be strings"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ParameterError, match=re.escape(reason)):
            read_params(path)


def write_value(tmp_path: Path, name: str, value: str) -> Path:
    """The repository's params.yaml with a value as somebody types it."""
    group, _, key = name.partition(".")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    head, tail = text.split(f"\n{group}:", 1)
    tail, count = re.subn(rf"^(  {key}: ).*", lambda found: found[1] + value, tail, count=1, flags=re.MULTILINE)
    assert count == 1
    path = tmp_path / "params.yaml"
    path.write_text(f"{head}\n{group}:{tail}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("train.seed", "4294967296", "less than or equal to 4294967295"),
        ("train.seed", "-1", "greater than or equal to 0"),
        ("runtime.processes", "1000000", "less than or equal to 1024"),
        ("runtime.threads", "1000000000000", "less than or equal to 1024"),
        ("runtime.device", "cuda:99999999999999999999", "String should match pattern"),
        ("evaluate.bootstrap_samples", "10000000", "less than or equal to 100000"),
        ("train.epochs", ".inf", "finite number; seen: inf"),
        ("train.epochs", ".nan", "finite number; seen: nan"),
        ("train.epochs", "1.0e15", "less than or equal to 10000; seen: 1000000000000000.0"),
        ("train.epochs", "'6'", "'6' is text for YAML; write the number without quotes"),
        ("train.epochs", "1,5", "valid number; seen: '1,5'"),
        ("train.epochs", "true", "valid number; seen: True"),
        ("train.epochs", "9" * 400, "valid number; seen: 999"),
        ("train.epochs", "0x" + "f" * 10_000, "seen: a number of thousands of digits"),
        ("train.epochs", "2026-01-01", "valid number; seen: datetime.date"),
        ("train.lora_alpha", "1e400", "valid integer; seen: inf"),
        ("train.lora_alpha", "true", "valid integer; seen: True"),
        ("train.lora_alpha", "4.5", "valid integer"),
        ("train.lora_alpha", "!!binary aGVsbG8=", "valid integer; seen: b'hello'"),
        ("train.gradient_checkpointing", "1", "valid boolean; seen: 1"),
        ("prepare.encoding", "zip", "no text encoding of this name; usual: utf-8, cp1251; seen: 'zip'"),
        ("prepare.encoding", "klingon", "no text encoding"),
        ("prepare.min_side_px", "5000", "min_side_px must be below max_side_px"),
        ("prepare.max_aspect", f"[{'x, ' * 1000}]", "..."),
    ],
)
def test_a_value_that_would_fail_later_is_refused_with_its_name(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        read_params(write_value(tmp_path, name, value))
    assert name in str(caught.value) or name.partition(".")[0] in str(caught.value)
    assert said in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["2e-4", "2.0e-4", "0.0002", "2.E-4"])
def test_every_way_to_write_a_number_means_the_number(tmp_path: Path, value: str) -> None:
    assert read_params(write_value(tmp_path, "train.learning_rate", value)).train.learning_rate == 2e-4


def test_no_number_is_without_bounds() -> None:
    """A number beyond what makes sense fails hours later, or never ends."""
    for name, model in groups():
        for field, schema in model.model_json_schema()["properties"].items():
            for kind in schema.get("anyOf", [schema]):
                if kind.get("type") in ("integer", "number"):
                    assert kind.keys() & {"minimum", "exclusiveMinimum"}, f"{name}.{field}"
                    assert kind.keys() & {"maximum", "exclusiveMaximum"}, f"{name}.{field}"


def test_every_parameter_has_a_default_in_its_range_and_a_meaning() -> None:
    assert Params() == Params.model_validate(Params().model_dump())
    for name, model in groups():
        for field, info in model.model_fields.items():
            assert info.description or f"{name}.{field}" in dict(groups()), f"{name}.{field}"


def bomb() -> str:
    """Nine lines that stand for 387 million values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bomb(), r"line 2: \*a is a YAML alias"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", r"line 3: \*a is a YAML alias"),
        ("- " * 2000, "9 deep"),
        ("\n".join(f"{' ' * depth}a:" for depth in range(100)), "line 9: lists or groups within groups, 9 deep"),
        ("[" * 200, "9 deep"),
        ("# " + "x" * LARGEST_BYTES, "more than parameters take"),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ParameterError, match=said):
        read_params(path)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1251", r"line 2 is not UTF-8 \(cp1251, if its letters are Cyrillic"),
        ("utf-16", "not UTF-8 but UTF-16"),
        ("utf-16-le", "not UTF-8 but UTF-16"),
        ("utf-16-be", "not UTF-8 but UTF-16"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, encoding: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    text = "# first line\n# Доля строк\n" + (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ParameterError, match=said):
        read_params(path)
    path.write_bytes(text.encode("utf-8-sig"))
    assert read_params(path) == read_params(ROOT / "params.yaml")
