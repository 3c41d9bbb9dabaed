"""The base model by its files, before it is loaded: every finding provoked."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import UnlimitedOcrForConditionalGeneration

from benchmarks.random_checkpoint import IMAGE_ID, official_config
from ownhand.checks.base_model import (
    FoundModel,
    ModelFacts,
    check_base_model,
    count_matches,
    gather_model,
)
from ownhand.checks.findings import Finding
from ownhand.errors import Refusal
from ownhand.model.loading import load_base_model
from ownhand.model.official import UNUSED_OFFICIAL, build_config, official_tensors
from ownhand.model.weights import is_finite
from ownhand.params import Params, read_params

ROOT = Path(__file__).parent.parent
SHAPES = {"model.embed_tokens.weight": (341, 64), "lm_head.weight": (341, 64)}
GOOD = ModelFacts(
    "deepseek-ai/DeepSeek-OCR",
    "9f30c71f441d010e5429c532364a86705536c53a",
    is_folder=False,
    model_type="deepseek_vl_v2",
    files=SHAPES,
    expected=SHAPES,
    weights=2_935_000_000,
    adapter_weights=4_000_000,
    vocabulary=128900,
    embedding=129280,
)


def params(**groups: dict[str, Any]) -> Params:
    whole = read_params(ROOT / "params.yaml")
    return whole.model_copy(update={k: getattr(whole, k).model_copy(update=v) for k, v in groups.items()})


def found(findings: list[Finding]) -> dict[str, str]:
    return {finding.code: finding.level for finding in findings if finding.level != "ready"}


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"unreachable": "not in the cache and no network"}, "MODEL-001", "blocker"),
        ({"unreachable": "needs its 40-digit commit", "revision": None}, "MODEL-002", "blocker"),
        ({"is_folder": True}, "MODEL-002", "warning"),
        ({"unreadable": "model_type 'llama' is not one that ownhand knows"}, "MODEL-003", "blocker"),
        ({"files": {"lm_head.weight": (341, 64)}}, "MODEL-004", "blocker"),
        ({"files": {**SHAPES, "model.visual.head.weight": (8,)}}, "MODEL-004", "blocker"),
        ({"files": {**SHAPES, "lm_head.weight": (341, 32)}}, "MODEL-004", "blocker"),
        ({"files": {**SHAPES, "x": (1,)}, "model_type": "deepseek_ocr2"}, "MODEL-004", "warning"),
        ({"files": None}, "MODEL-004", "warning"),
        ({"broken": "incomplete header", "files": None}, "MODEL-004", "blocker"),
        ({"adapter_weights": 400_000_000}, "MODEL-006", "warning"),
        ({"vocabulary": 129281}, "MODEL-007", "blocker"),
    ],
)
def test_each_fault_is_found_and_nothing_else(changes: dict[str, Any], code: str, level: str) -> None:
    findings = check_base_model(replace(GOOD, **changes), "cuda")
    assert found(findings) == {code: level}
    assert all(one.remedy for one in findings if one.level != "ready")


def test_the_official_file_may_hold_the_matrix_that_its_own_code_never_uses() -> None:
    assert found(check_base_model(replace(GOOD, files={**SHAPES, UNUSED_OFFICIAL: (1024, 3, 14, 14)}), "cuda")) == {}


def test_a_large_model_on_a_cpu_is_named_and_a_small_one_is_not() -> None:
    assert found(check_base_model(GOOD, "cpu")) == {"ENV-011": "warning"}
    assert found(check_base_model(replace(GOOD, weights=2_600_000), "cpu")) == {}


def gather(folder: Path, **train: Any) -> tuple[ModelFacts, FoundModel | None]:
    return gather_model(params(model={"name_or_path": str(folder)}, train=train))


@pytest.fixture
def copy(tmp_path: Path, model_folder: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def test_a_whole_checkpoint_is_described(model_folder: Path) -> None:
    facts, model = gather(model_folder)
    stored = load_file(model_folder / "model.safetensors")
    assert facts.files == facts.expected == {name: tuple(tensor.shape) for name, tensor in stored.items()}
    assert facts.weights == sum(tensor.numel() for tensor in stored.values())
    assert facts.vocabulary == facts.embedding and facts.adapter_weights > 0
    assert model is not None and min(model.limits.matched.values()) > 0
    assert found(check_base_model(facts, "cpu")) == {}


@pytest.mark.parametrize("change", ["drop", "add", "reshape"])
def test_weights_that_do_not_fit_are_named(copy: Path, change: str) -> None:
    stored = load_file(copy / "model.safetensors")
    if change == "drop":
        del stored["lm_head.weight"]
    elif change == "add":
        stored["lm_head.bias"] = torch.zeros(3)
    else:
        stored["lm_head.weight"] = stored["lm_head.weight"][:5].clone()
    save_file(stored, copy / "model.safetensors")
    findings = check_base_model(gather(copy)[0], "cpu")
    assert found(findings) == {"MODEL-004": "blocker"}
    assert "lm_head" in next(one.seen for one in findings if one.code == "MODEL-004")


def spoil(folder: Path, name: str, change: Any) -> None:
    """Remove it, write bytes, or a value into the first place of that key in a JSON file."""
    if change is None:
        (folder / name).unlink()
        return
    if isinstance(change, bytes):
        (folder / name).write_bytes(change)
        return

    def put(value: Any) -> bool:
        if isinstance(value, dict):
            for key, new in change.items():
                if key in value:
                    value[key] = new
                    return True
            return any(put(inner) for inner in value.values())
        return False

    content = json.loads((folder / name).read_text(encoding="utf-8"))
    assert put(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("config.json", None, "MODEL-003"),
        ("config.json", b"", "MODEL-003"),
        ("config.json", b"[]", "MODEL-003"),
        ("config.json", "\u0451".encode("cp1251"), "MODEL-003"),
        ("config.json", {"model_type": "llama"}, "MODEL-003"),
        ("config.json", {"model_type": ["deepseek_vl_v2"]}, "MODEL-003"),
        ("config.json", {"language_config": None}, "MODEL-003"),
        ("config.json", {"language_config": []}, "MODEL-003"),
        ("config.json", {"hidden_size": "128"}, "MODEL-003"),
        ("config.json", {"hidden_size": 0}, "MODEL-003"),
        ("config.json", {"hidden_size": -128}, "MODEL-003"),
        ("config.json", {"hidden_size": 127}, "MODEL-003"),
        ("config.json", {"num_hidden_layers": 10**9}, "MODEL-003"),
        ("config.json", {"num_attention_heads": 0}, "MODEL-003"),
        ("config.json", {"downsample_channels": 5}, "MODEL-003"),
        ("config.json", {"downsample_channels": []}, "MODEL-003"),
        ("config.json", {"global_attn_indexes": None}, "MODEL-003"),
        ("config.json", {"width": -1}, "MODEL-003"),
        ("config.json", {"patch_size": 0}, "MODEL-003"),
        ("processor_config.json", b"{", "MODEL-003"),
        ("processor_config.json", b"7", "MODEL-003"),
        ("processor_config.json", {"view_sizes": [64]}, "MODEL-003"),
        ("processor_config.json", {"tile": "64"}, "MODEL-003"),
        ("processor_config.json", {"tile": 0}, "MODEL-003"),
        ("processor_config.json", {"tile": True}, "MODEL-003"),
        ("processor_config.json", {"pixels_per_token": -16}, "MODEL-003"),
        ("tokenizer.json", None, "MODEL-003"),
        ("tokenizer.json", b"", "MODEL-003"),
        ("tokenizer.json", b"{}", "MODEL-003"),
        ("tokenizer.json", {"type": "Nothing"}, "MODEL-003"),
        ("model.safetensors", b"", "MODEL-004"),
        ("model.safetensors", b"\xff" * 99, "MODEL-004"),
        ("model.safetensors.index.json", b"{", "MODEL-004"),
        ("model.safetensors.index.json", b'{"weight_map": []}', "MODEL-004"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}', "MODEL-004"),
    ],
)
def test_a_damaged_file_is_found_by_check_and_named_by_the_loader(
    copy: Path, name: str, change: Any, code: str
) -> None:
    spoil(copy, name, change)
    findings = check_base_model(gather(copy)[0], "cpu")
    assert found(findings) == {code: "blocker"}
    assert name in next(one.seen for one in findings if one.code == code)
    if name != "processor_config.json":  # which is no matter of the weights
        with pytest.raises(Refusal, match=re.escape(name)):
            load_base_model(str(copy), dtype=torch.float32)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_are_named(copy: Path, value: float, dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in load_file(copy / "model.safetensors").items()}
    stored["lm_head.weight"][1, 1] = value
    save_file(stored, copy / "model.safetensors", metadata={"format": "pt"})
    findings = check_base_model(gather(copy)[0], "cpu")
    assert found(findings) == {"MODEL-004": "blocker"}
    assert "NaN or infinity in lm_head.weight" in next(one.seen for one in findings if one.code == "MODEL-004")
    with pytest.raises(Refusal, match=r"NaN or infinity in lm_head\.weight"):
        load_base_model(str(copy), dtype=torch.float32)


def test_numbers_without_a_sum_are_numbers() -> None:
    assert is_finite(torch.full((4,), 3e38)) and is_finite(torch.tensor([1, 2])) and is_finite(torch.zeros(0))
    assert not is_finite(torch.tensor([float("inf"), float("-inf")]))


def test_a_name_that_is_no_folder_and_no_hub_id_is_unreachable() -> None:
    facts, model = gather(Path("models/elsewhere"))
    assert model is None and found(check_base_model(facts, "cpu")) == {"MODEL-001": "blocker"}
    facts, _ = gather_model(params(model={"name_or_path": "deepseek-ai/DeepSeek-OCR", "revision": None}))
    assert found(check_base_model(facts, "cpu")) == {"MODEL-002": "blocker"}


def test_every_lora_target_matches_the_full_model() -> None:
    with torch.device("meta"):
        model = UnlimitedOcrForConditionalGeneration(build_config(official_config(12), IMAGE_ID))
    train = read_params(ROOT / "params.yaml").train
    assert count_matches(model, train, "attention") == 12 * 4
    assert count_matches(model, train, "mlp") == 12 * 3  # the dense layer, and shared experts of the other 11
    assert count_matches(model, train, "experts") == 11 * 2
    assert count_matches(model, train, "projector") == 1
    assert count_matches(model, train, "vision") > 100
    assert len(official_tensors(model)) == 2709
