"""Export: what others run is what was trained."""

from __future__ import annotations

import json
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ownhand import export
from ownhand.errors import Refusal
from ownhand.export import check_disk, check_parameters, export_adapter, export_merged
from ownhand.files import Unwritable, write_json
from ownhand.model.adapter import (
    WEIGHTS,
    add_adapter,
    load_adapter,
    lora_config,
    read_adapter_config,
    save_adapter,
    to_native,
)
from ownhand.model.loading import load_base_model
from ownhand.model.sequence import SpecialTokens, as_image_outputs
from ownhand.model.views import ViewRules, compute_vision_tokens
from ownhand.params import Params, TranscribeParams, read_params
from ownhand.vision.features import FeatureCache

ROOT = Path(__file__).parent.parent
EVALUATION = {
    "base": {"cer": 0.5, "cer_low": 0.4, "cer_high": 0.6, "wer": 0.9, "exact_match": 0.0, "runaway_rate": 0.125},
    "adapter": {"cer": 0.123, "cer_low": None, "cer_high": None, "wer": 0.4, "exact_match": 0.25, "runaway_rate": 0.0},
    "n_lines": 32,
    "n_characters": 724,
    "n_pages": 8,
}


def parameters(model_folder: Path, targets: list[str]) -> Params:
    params = read_params(ROOT / "params.yaml")
    return params.model_copy(
        update={
            "model": params.model.model_copy(update={"name_or_path": str(model_folder), "dtype": "float32"}),
            "train": params.train.model_copy(update={"lora_targets": targets, "lora_r": 3, "lora_dropout": 0.0}),
        }
    )


def train_a_little(params: Params, folder: Path) -> None:
    torch.manual_seed(5)
    base = load_base_model(params.model.name_or_path, dtype=torch.float32)
    adapted = add_adapter(base, lora_config(params.train, "x", None))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1)
    save_adapter(adapted, folder, params.model.name_or_path)


def logits(model: Any, tokens: torch.Tensor, special: SpecialTokens) -> torch.Tensor:
    ids = torch.tensor([[special.bos, *[special.image] * len(tokens), 30, 31, 32]])
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=ids, mm_encoder_outputs=as_image_outputs([tokens])).logits
    return output


@pytest.mark.parametrize("targets", [["attention", "mlp"], ["attention", "mlp", "experts"], ["vision", "projector"]])
def test_the_merged_model_reads_as_base_and_adapter(
    tmp_path: Path,
    model_folder: Path,
    special: SpecialTokens,
    pictures: list[Any],
    vision: ViewRules,
    targets: list[str],
) -> None:
    params = parameters(model_folder, targets)
    params = params.model_copy(update={"transcribe": TranscribeParams(adapter_strength=0.6)})
    train_a_little(params, tmp_path / "adapter")
    export_merged(params, tmp_path / "adapter", tmp_path / "merged", EVALUATION)
    base = load_base_model(str(model_folder), dtype=torch.float32)
    views = vision.views(pictures[0])
    plain = logits(base, compute_vision_tokens(base, views), special)
    adapted: Any = load_adapter(base, tmp_path / "adapter", 0.6)
    expected = logits(adapted, compute_vision_tokens(adapted, views), special)
    merged = load_base_model(str(tmp_path / "merged"), dtype=torch.float32)
    found = logits(merged, compute_vision_tokens(merged, views), special)
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_the_merged_model_has_the_official_layout_of_its_base(tmp_path: Path, model_folder: Path) -> None:
    params = parameters(model_folder, ["attention"])
    train_a_little(params, tmp_path / "adapter")
    before = {path.name: path.stat().st_mtime_ns for path in model_folder.iterdir()}
    count = export_merged(params, tmp_path / "adapter", tmp_path / "merged", EVALUATION)
    merged = tmp_path / "merged"

    def names(folder: Path) -> dict[str, list[int]]:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    assert names(merged) == names(model_folder)
    assert count == export.count_parameters(model_folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        assert (merged / name).read_bytes() == (model_folder / name).read_bytes()
    config = json.loads((merged / "config.json").read_text("utf-8"))
    original = json.loads((model_folder / "config.json").read_text("utf-8"))
    assert config["torch_dtype"] == config["language_config"]["torch_dtype"] == "float32"
    assert config["vision_config"] == original["vision_config"] and config["model_type"] == "deepseek_vl_v2"
    assert {path.name: path.stat().st_mtime_ns for path in model_folder.iterdir()} == before
    card = (merged / "README.md").read_text("utf-8")
    assert "| base | 50.0% (40.0% to 60.0%) | 90.0% | 0.0% | 12.5% |" in card
    assert "| adapter | 12.3% | 40.0% | 25.0% | 0.0% |" in card
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("targets", [["attention", "mlp"], ["experts"], ["attention", "experts"]])
def test_the_official_adapter_comes_back(
    tmp_path: Path, model_folder: Path, special: SpecialTokens, cache: FeatureCache, targets: list[str]
) -> None:
    params = parameters(model_folder, targets)
    params = params.model_copy(update={"transcribe": TranscribeParams(adapter_strength=0.6)})
    train_a_little(params, tmp_path / "adapter")
    export_adapter(params, tmp_path / "adapter", tmp_path / "official", EVALUATION)
    with safe_open(tmp_path / "official/adapter_model.safetensors", "pt") as file:
        assert all(name.startswith("base_model.model.model.layers.") for name in file.keys())  # noqa: SIM118
    tokens = cache.tokens("00001")
    read = [
        logits(load_adapter(load_base_model(str(model_folder), dtype=torch.float32), folder, 0.6), tokens, special)
        for folder in (tmp_path / "adapter", tmp_path / "official")
    ]
    assert torch.equal(read[0], read[1])


@pytest.mark.parametrize("targets", [["experts"], ["attention", "mlp", "experts"]])
def test_the_official_adapter_has_one_pair_for_each_matrix_of_the_official_checkpoint(
    tmp_path: Path, model_folder: Path, special: SpecialTokens, cache: FeatureCache, targets: list[str]
) -> None:
    """B times A, added to the checkpoint's matrix of the same name, makes the model that the fused adapter makes."""
    params = parameters(model_folder, targets)
    train_a_little(params, tmp_path / "adapter")
    export_adapter(params, tmp_path / "adapter", tmp_path / "official", EVALUATION)
    adapter = load_file(tmp_path / "official/adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")]
    assert len(names) == len(adapter) / 2
    assert "base_model.model.model.layers.2.mlp.experts.3.up_proj" in names
    shutil.copytree(model_folder, tmp_path / "sum")
    weights = load_file(tmp_path / "sum/model.safetensors")
    for name in names:
        a, b = adapter[f"{name}.lora_A.weight"], adapter[f"{name}.lora_B.weight"]
        scale = params.train.lora_alpha / params.train.lora_r
        weights[f"{name.removeprefix('base_model.model.')}.weight"] += scale * b @ a
    save_file(weights, tmp_path / "sum/model.safetensors", metadata={"format": "pt"})
    tokens = cache.tokens("00001")
    found = logits(load_base_model(str(tmp_path / "sum"), dtype=torch.float32), tokens, special)
    base = load_base_model(str(model_folder), dtype=torch.float32)
    plain = logits(base, tokens, special)
    expected = logits(load_adapter(base, tmp_path / "adapter", params.transcribe.adapter_strength), tokens, special)
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_experts_that_have_no_fused_form_are_refused(tmp_path: Path, model_folder: Path) -> None:
    params = parameters(model_folder, ["experts"])
    train_a_little(params, tmp_path / "adapter")
    export_adapter(params, tmp_path / "adapter", tmp_path / "official", EVALUATION)
    weights = load_file(tmp_path / "official/adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight"
    with pytest.raises(Refusal, match="differ in A"):
        to_native({**weights, name: weights[name] + 1})
    with pytest.raises(Refusal, match="lacks .*gate_proj.*lora_A.*0"):
        to_native({other: tensor for other, tensor in weights.items() if other != name})


def test_the_official_adapter_names_its_modules_as_a_list(tmp_path: Path, model_folder: Path) -> None:
    params = parameters(model_folder, ["attention", "mlp", "experts"])
    train_a_little(params, tmp_path / "adapter")
    export_adapter(params, tmp_path / "adapter", tmp_path / "official", EVALUATION)
    config = json.loads((tmp_path / "official/adapter_config.json").read_text("utf-8"))
    expected = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert sorted(config["target_modules"]) == expected
    assert config["base_model_name_or_path"] == str(model_folder)
    assert config["target_parameters"] is None


def test_an_adapter_of_the_vision_tower_is_exported_merged_only(tmp_path: Path, model_folder: Path) -> None:
    params = parameters(model_folder, ["vision"])
    train_a_little(params, tmp_path / "adapter")
    with pytest.raises(Refusal, match="use the merged model"):
        export_adapter(params, tmp_path / "adapter", tmp_path / "official", EVALUATION)
    assert not (tmp_path / "official").exists()


def test_an_adapter_of_other_parameters_is_not_described_falsely(tmp_path: Path, model_folder: Path) -> None:
    params = parameters(model_folder, ["attention", "experts"])
    train_a_little(params, tmp_path / "adapter")
    config = read_adapter_config(tmp_path / "adapter")
    check_parameters(params.train, config)
    with pytest.raises(Refusal, match="r is 3 in the adapter, 8 in params.yaml"):
        check_parameters(params.train.model_copy(update={"lora_r": 8}), config)
    with pytest.raises(Refusal, match="target_parameters is "):
        check_parameters(params.train.model_copy(update={"lora_targets": ["attention"]}), config)


def test_a_disk_without_room_is_refused_before_anything_is_read(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(Refusal, match=r"needs 0\.\d\d GB, 0\.00 GB are free"):
        export_merged(parameters(model_folder, ["attention"]), tmp_path / "nowhere", tmp_path / "merged", EVALUATION)
    check_disk(tmp_path, 900_000)
    with pytest.raises(Refusal):
        check_disk(tmp_path, 1_000_000)


def test_a_model_in_another_layout_is_refused(tmp_path: Path, model_folder: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "base")
    (tmp_path / "base/config.json").write_text('{"model_type": "unlimited_ocr"}', encoding="utf-8")
    with pytest.raises(Refusal, match="unlimited_ocr"):
        export_merged(parameters(tmp_path / "base", ["attention"]), tmp_path, tmp_path / "merged", EVALUATION)


def test_without_an_evaluation_nothing_is_exported(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    with pytest.raises(Refusal, match="dvc repro"):
        export.main()


def prepare_export(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which `export` can run: parameters, an adapter, an evaluation."""
    params = parameters(model_folder, ["attention"])
    monkeypatch.chdir(folder)
    monkeypatch.setattr(export, "read_params", lambda: params)
    train_a_little(params, export.ADAPTER)
    write_json(export.EVALUATION, EVALUATION)


@pytest.mark.parametrize("kind", ["safetensors", "config", "card"])
def test_interrupted_while_the_official_adapter_is_written_the_old_one_is_whole(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    export.main()
    before = {path.name: path.read_bytes() for path in export.OFFICIAL_ADAPTER.iterdir()}

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    name = {"safetensors": "save_file", "config": "LoraConfig.save_pretrained", "card": "card"}[kind]
    with monkeypatch.context() as patch:
        patch.setattr(f"ownhand.export.{name}", stop)
        with pytest.raises(KeyboardInterrupt):
            export.export_adapter(export.read_params(), export.ADAPTER, export.OFFICIAL_ADAPTER, EVALUATION)
    assert {path.name: path.read_bytes() for path in export.OFFICIAL_ADAPTER.iterdir()} == before
    assert sorted(path.name for path in Path("models").iterdir()) == ["adapter", "adapter-official", "merged"]


def test_a_full_disk_is_no_refusal_of_the_adapter(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)

    def fill(*_: Any, **__: Any) -> Any:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("ownhand.export.save_file", fill)
    with pytest.raises(Unwritable, match=r"models/adapter-official could not be written .*No space left.*the disk at "):
        export.main()


def test_an_adapter_that_is_no_number_is_exported_in_no_form(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    weights = load_file(export.ADAPTER / "adapter_model.safetensors")
    name = sorted(weights)[0]
    weights[name][0, 0] = float("nan")
    save_file(weights, export.ADAPTER / "adapter_model.safetensors")
    for write, target in ((export.export_merged, export.MERGED), (export.export_adapter, export.OFFICIAL_ADAPTER)):
        with pytest.raises(Refusal, match=rf"adapter_model\.safetensors holds NaN or infinity in {re.escape(name)}"):
            write(export.read_params(), export.ADAPTER, target, EVALUATION)
        assert not target.exists()


def test_an_adapter_that_is_replaced_between_its_two_forms_is_said(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    write = export.export_adapter

    def replace_and_write(*arguments: Any) -> None:
        weights = load_file(export.ADAPTER / WEIGHTS)
        save_file({name: weight + 1 for name, weight in weights.items()}, export.ADAPTER / WEIGHTS)
        write(*arguments)

    monkeypatch.setattr(export, "export_adapter", replace_and_write)
    with pytest.raises(Refusal, match="models/adapter changed while it was exported"):
        export.main()


def test_two_exports_at_once_both_end_well(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    monkeypatch.setattr(export, "load_base_model", slowly(export.load_base_model))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            export.main()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.name for path in Path("models").iterdir()) == ["adapter", "adapter-official", "merged"]


def slowly(function: Any) -> Any:
    """`function`, which both callers have come to before either goes on, if nothing keeps them apart."""
    together = threading.Barrier(2)

    def called(*arguments: Any, **more: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            together.wait(1)
        return function(*arguments, **more)

    return called


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 100_000, "null", "{}", "[]", '{"base": "x", "adapter": null}', '{"base": {}, "adapter": {}}'],
)
def test_an_evaluation_without_rates_is_named_before_a_model_is_loaded(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    export.EVALUATION.write_text(content, encoding="utf-8")
    monkeypatch.delattr(export, "load_base_model")
    with pytest.raises(Refusal, match=r"summary\.json is damaged.*dvc repro --force --single-item evaluate"):
        export.main()


@pytest.mark.parametrize("target", ["merged", "adapter-official"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_base_model_in_a_folder_that_is_written_stays(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, target: str, linked: bool
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    base = Path("models", "base" if linked else target)
    shutil.copytree(model_folder, base)
    if linked:
        Path("models", target).symlink_to("base", target_is_directory=True)
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    params = parameters(base, ["attention"])
    monkeypatch.setattr(export, "read_params", lambda: params)
    with pytest.raises(Refusal, match=f"the base model stands in models/{target}, which the export replaces; rename"):
        export.main()
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_a_sum_that_is_no_number_is_not_exported(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_export(tmp_path, model_folder, monkeypatch)
    weights = {name: tensor * 1e30 for name, tensor in load_file(export.ADAPTER / "adapter_model.safetensors").items()}
    save_file(weights, export.ADAPTER / "adapter_model.safetensors")
    with pytest.raises(Refusal, match="models/merged holds NaN or infinity in .*; .*dvc repro train"):
        export.main()
    assert not export.MERGED.exists()
