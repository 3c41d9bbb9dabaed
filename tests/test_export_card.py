"""The README of an export: the measured rates, and commands that fit what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ownhand.export_card import card, serving
from ownhand.params import Params, read_params

ROOT = Path(__file__).parent.parent
RATES = {"cer": 0.123, "cer_low": 0.1, "cer_high": 0.15, "wer": 0.4, "exact_match": 0.25, "runaway_rate": 0.125}
EVALUATION = {"base": RATES, "adapter": RATES, "n_lines": 32, "n_characters": 724, "n_pages": 8}


def params(group: str = "encode", **values: Any) -> Params:
    found = read_params(ROOT / "params.yaml")
    return found.model_copy(update={group: getattr(found, group).model_copy(update=values)})


@pytest.mark.parametrize("merged", [True, False])
def test_every_engine_is_marked_as_run_or_only_read(merged: bool) -> None:
    text = card(params(), EVALUATION, merged=merged)
    assert "| adapter | 12.3% (10.0% to 15.0%) | 40.0% | 25.0% | 12.5% |" in text
    for engine in ("vLLM", "SGLang", "Ollama"):
        assert f"**{engine}. Only read in its documentation and source, not run.**" in text
    assert "**llama.cpp. Run by a test of ownhand on its demo model, text part only:**" in text
    assert '-p "Free OCR."' in text and text.count("```") % 2 == 0


def test_the_adapter_stands_beside_its_base_and_the_merged_model_alone() -> None:
    revision = "9f30c71f441d010e5429c532364a86705536c53a"
    found = params("model", name_or_path="deepseek-ai/DeepSeek-OCR", revision=revision)
    adapter, merged = serving(found, merged=False), serving(found, merged=True)
    assert f"vllm serve deepseek-ai/DeepSeek-OCR --revision {revision} " in adapter
    assert "--lora hand.gguf" in adapter and "ADAPTER ./hand.gguf" in adapter and "sglang.launch_server" not in adapter
    assert "lora" not in merged.lower().replace("explore", "") and "vllm serve . " in merged
    assert "sglang.launch_server --model-path ." in merged


@pytest.mark.parametrize(("rank", "allowed"), [(3, 8), (16, 16), (17, 32)])
def test_vllm_is_told_a_rank_that_it_knows(rank: int, allowed: int) -> None:
    assert f"--max-lora-rank {allowed} " in serving(params("train", lora_r=rank), merged=False)


def test_another_way_of_cutting_pictures_is_said() -> None:
    assert "trained with 6 at most" in serving(params(max_tiles=6), merged=True)
    assert "trained with mode base: expect other rates" in serving(params(mode="base"), merged=True)


def test_experts_in_four_bits_are_said() -> None:
    assert "NF4" not in card(params(), EVALUATION, merged=True)
    text = card(params("train", expert_weights="nf4"), EVALUATION, merged=True)
    assert "in float32, the routed experts in NF4 while training.\n" in text


def test_engines_that_read_greedily_are_not_promised_the_rates_of_beam_search() -> None:
    assert "(temperature 0), as the rates above were measured." in serving(params("transcribe", beams=1), merged=True)
    assert "measured with 5 beams, so expect more errors." in serving(params("transcribe", beams=5), merged=True)
