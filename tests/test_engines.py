"""Engines: llama.cpp reads the exported adapters and the merged model as we do.

Only the text part: llama.cpp's clip.cpp is written for the vision tower's real sizes and aborts on the demo model's.
Needs the wheel `xllamacpp`, and llama.cpp's converters, whose folder LLAMA_CPP_SOURCE names (CONTRIBUTING.md says where
they come from).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ownhand.export import export_adapter, export_merged
from ownhand.model.adapter import add_adapter, load_adapter, lora_config, save_adapter
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import load_base_model, read_tokenizer, special_tokens
from ownhand.model.sequence import SpecialTokens
from ownhand.params import Params, read_params
from ownhand.serving_client import _prediction

ROOT = Path(__file__).parent.parent
SOURCE = os.environ.get("LLAMA_CPP_SOURCE", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="the wheel xllamacpp is not installed"),
    pytest.mark.skipif(
        not Path(SOURCE, "convert_lora_to_gguf.py").is_file(), reason="LLAMA_CPP_SOURCE names no llama.cpp source"
    ),
]
EVALUATION = {
    **{
        reader: {"cer": 0.5, "cer_low": None, "cer_high": None, "wer": 0.9, "exact_match": 0.0, "runaway_rate": 0.0}
        for reader in ("base", "adapter")
    },
    **{"n_lines": 1, "n_characters": 10, "n_pages": 1},
}
TOKENS, BEST = 8, 20
# Everything in float32: the largest difference seen was 0.000004. With llama.cpp's own float16 cache of keys and values
# it was 0.003.
CLOSE = 0.0001


@pytest.fixture(scope="module")
def params() -> Params:
    params = read_params(ROOT / "params.yaml")
    return params.model_copy(
        update={
            "model": params.model.model_copy(update={"name_or_path": str(ROOT / "models/base"), "dtype": "float32"})
        }
    )


def with_targets(params: Params, targets: list[str]) -> Params:
    changed = {"lora_targets": targets, "lora_r": 3, "lora_alpha": 6, "lora_dropout": 0.0}
    return params.model_copy(update={"train": params.train.model_copy(update=changed)})


def train_a_little(params: Params, folder: Path) -> None:
    torch.manual_seed(5)
    adapted = add_adapter(
        load_base_model(params.model.name_or_path, dtype=torch.float32), lora_config(params.train, "x", None)
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1)
    save_adapter(adapted, folder, params.model.name_or_path)


def llama_cpp(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "tests/llama_cpp.py"), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def read_by_llama_cpp(folder: Path, model: Path, adapters: list[Path], ids: list[int]) -> dict[str, Any]:
    request = {"model": str(model), "adapters": [str(path) for path in adapters], "ids": ids, "n": TOKENS, "best": BEST}
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    answer: dict[str, Any] = json.loads(llama_cpp("read", str(folder / "request.json")).splitlines()[-1])
    return answer


def read_by_torch(model: Any, ids: list[int], special: SpecialTokens) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens, end of text excluded, and the log-probabilities of the first step."""
    ids, first = list(ids), None
    for _ in range(TOKENS):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        first = scores if first is None else first
        scores = scores.clone()
        scores[special.eos] = -torch.inf
        ids.append(int(scores.argmax()))
    assert first is not None
    return ids[-TOKENS:], first


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/base in llama.cpp's format."""
    return to_gguf(ROOT / "models/base", tmp_path_factory.mktemp("gguf"))


def to_gguf(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint in llama.cpp's format, float32; its config.json gets a field that the demo's leaves out."""
    shutil.copytree(checkpoint, folder / "checkpoint")
    config = json.loads((folder / "checkpoint/config.json").read_text("utf-8"))
    config["language_config"]["qk_rope_head_dim"] = 0
    (folder / "checkpoint/config.json").write_text(json.dumps(config), encoding="utf-8")
    target = folder / "model.gguf"
    llama_cpp(
        "convert",
        SOURCE,
        "convert_hf_to_gguf.py",
        str(folder / "checkpoint"),
        "--outfile",
        str(target),
        "--outtype",
        "f32",
    )
    return target


@pytest.mark.parametrize("targets", [[], ["attention", "mlp"], ["attention", "mlp", "experts"]])
def test_llama_cpp_reads_as_torch_does(tmp_path: Path, params: Params, gguf: Path, targets: list[str]) -> None:
    special = special_tokens(read_tokenizer(ROOT / "models/base"), FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
    ids = [special.bos, *special.prompt, *range(40, 100, 7)]
    model: Any = load_base_model(params.model.name_or_path, dtype=torch.float32)
    plain = read_by_torch(model, ids, special)[1]
    adapters, models = [], [gguf]
    if targets:
        params = with_targets(params, targets)
        train_a_little(params, tmp_path / "adapter")
        model = load_adapter(model, tmp_path / "adapter", params.transcribe.adapter_strength)
        export_adapter(params, tmp_path / "adapter", tmp_path / "official", EVALUATION)
        adapters = [tmp_path / "adapter.gguf"]
        llama_cpp(
            *("convert", SOURCE, "convert_lora_to_gguf.py", str(tmp_path / "official")),
            *("--base", str(gguf.parent / "checkpoint"), "--outfile", str(adapters[0]), "--outtype", "f32"),
        )
        export_merged(params, tmp_path / "adapter", tmp_path / "merged", EVALUATION)
        models.append(to_gguf(tmp_path / "merged", tmp_path / "merged-gguf"))
    tokens, expected = read_by_torch(model, ids, special)
    assert torch.equal(expected, plain) is (not targets)
    for path in models:
        found = read_by_llama_cpp(tmp_path, path, adapters if path == gguf else [], ids)
        assert found["tokens"] == tokens, path
        assert len(found["best"]) == BEST
        differences = [abs(value - float(expected[int(token)])) for token, value in found["best"].items()]
        assert max(differences) < CLOSE, path
        assert 0 < _prediction(found["chat"])["confidence"] <= 1  # an answer as ownhand read-served takes it
    if targets:
        assert (expected - plain).abs().max() > 100 * CLOSE
