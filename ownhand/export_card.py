"""The README of an exported folder: what it is, how well it reads, and how engines serve it.

A command is marked as run only where a test of ours runs it (tests/test_engines.py); all others were read in the
engines' documentation and source.
"""

from __future__ import annotations

import json
from typing import Any

from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.params import Params

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values that --max-lora-rank takes
ENGINE_TILES = {"vLLM and SGLang": 6, "llama.cpp and Ollama": 9}
VLLM_FLAGS = """\
  --logits-processors vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor \\
  --no-enable-prefix-caching --mm-processor-cache-gb 0"""


def card(params: Params, evaluation: dict[str, Any], *, merged: bool) -> str:
    """The README of an export: what it is, the error rates before and after on lines it has not seen, the engines."""
    kind = "Base model and handwriting adapter in one" if merged else "Handwriting adapter, official tensor names"
    relation = "" if merged else "library_name: peft\n"
    if merged:
        note = f"The rates are those of base and adapter apart; merging rounds the sum of both to {params.model.dtype}."
    elif "experts" in params.train.lora_targets:
        note = "It adapts the decoder, each routed expert by itself; the base model is needed beside it."
    else:
        note = "It adapts the decoder only; the base model is needed beside it."
    rows = "\n".join(
        f"| {reader} | {_rate(evaluation[reader], 'cer')} | {_rate(evaluation[reader], 'wer')} | "
        f"{evaluation[reader]['exact_match']:.1%} | {evaluation[reader]['runaway_rate']:.1%} |"
        for reader in ("base", "adapter")
    )
    return (
        "---\n"
        f"base_model: {params.model.name_or_path}\n"
        f"{relation}"
        "pipeline_tag: image-to-text\n"
        "---\n\n"
        f"# {kind}\n\n"
        f"LoRA (r {params.train.lora_r}, alpha {params.train.lora_alpha}, {', '.join(params.train.lora_targets)}) on "
        f"`{params.model.name_or_path}`"
        f"{f' at {params.model.revision}' if params.model.revision else ''}, in {params.model.dtype}"
        f"{_four_bits(params)}.\n"
        f"Pictures: mode {params.encode.mode}, at most {params.encode.max_tiles} tiles.\n"
        f"Prompt: {json.dumps('<image>' + FAMILIES[OFFICIAL_MODEL_TYPE].prompt)}\n\n"
        f"{note}\n\n"
        f"Measured on {evaluation['n_lines']} lines ({evaluation['n_characters']} characters, {evaluation['n_pages']} "
        "pages) that training has not seen:\n\n"
        "| | CER | WER | exact lines | runaway outputs |\n|---|---|---|---|---|\n"
        f"{rows}\n\n"
        f"{serving(params, merged=merged)}"
    )


def serving(params: Params, *, merged: bool) -> str:
    """How engines serve an exported folder, each with what was run of it and what was only read."""
    prompt = FAMILIES[OFFICIAL_MODEL_TYPE].prompt.strip()
    base = "." if merged else "BASE"
    where = "" if merged else f"`BASE` is the folder of `{params.model.name_or_path}`. "
    lora, ollama_lora, with_lora = "", "", ""
    if not merged:
        lora = f"python convert_lora_to_gguf.py . --base {base} --outfile hand.gguf --outtype f32\n"
        ollama_lora, with_lora = "ADAPTER ./hand.gguf\n", " --lora hand.gguf"
    return f"""## Serving it

{where}Commands are given from this folder. They decode greedily (temperature 0){_beams(params)}. {_tiles(params)}

**llama.cpp. Run by a test of ownhand on its demo model, text part only:** both text conversions, and reading with the \
results; log-probabilities equal torch's to 0.0001, greedy tokens are the same. **Only read in its source:** all that \
needs pictures. The prompt is `{prompt}`, since llama.cpp puts the line break behind the picture itself; it has no \
no-repeat-ngram guard.

```
python convert_hf_to_gguf.py {base} --outfile model.gguf --outtype bf16
python convert_hf_to_gguf.py {base} --mmproj --outfile mmproj.gguf
{lora}llama-mtmd-cli -m model.gguf --mmproj mmproj.gguf{with_lora} --image line.jpg -p "{prompt}" --temp 0
llama-server -m model.gguf --mmproj mmproj.gguf{with_lora} -c 8192
```

**vLLM. Only read in its documentation and source, not run.**

```
{_vllm(params, merged=merged)}
```

**SGLang. Only read in its documentation and source, not run.** {_sglang(merged)}

**Ollama. Only read in its documentation and source, not run.** It runs llama.cpp: `ollama create hand` with the files \
from above and this `Modelfile`.

```
FROM ./model.gguf
FROM ./mmproj.gguf
{ollama_lora}TEMPLATE {{{{ .Prompt }}}}
PARAMETER temperature 0
PARAMETER num_ctx 8192
```

Whether a server reads as well as it should: `ownhand read-served --validation --out served.jsonl` reads validation \
pictures through it, `ownhand compare served.jsonl` sets its rates beside those above.
"""


def _four_bits(params: Params) -> str:
    """Where the routed experts had four bits, which the exported weights do not have."""
    where = [
        doing
        for doing, group in (("training", params.train), ("measuring the rates", params.transcribe))
        if group.expert_weights == "nf4"
    ]
    return f", the routed experts in NF4 while {' and while '.join(where)}" if where else ""


def _beams(params: Params) -> str:
    """How the rates were measured, beside greedy decoding."""
    if params.transcribe.beams == 1:
        return ", as the rates above were measured"
    return f"; the rates above were measured with {params.transcribe.beams} beams, so expect more errors"


def _tiles(params: Params) -> str:
    """What engines do with pictures, and where that is not what was trained."""
    counts = " and ".join(f"{tiles} ({engines})" for engines, tiles in ENGINE_TILES.items())
    text = f"Engines cut pictures as mode gundam does, into at most {counts} tiles"
    if params.encode.mode != "gundam":
        return f"{text}; this was trained with mode {params.encode.mode}: expect other rates there."
    return f"{text}; this was trained with {params.encode.max_tiles} at most."


def _vllm(params: Params, *, merged: bool) -> str:
    if merged:
        return f"vllm serve . --served-model-name hand \\\n{VLLM_FLAGS}"
    revision = f" --revision {params.model.revision}" if params.model.revision else ""
    rank = next((rank for rank in VLLM_RANKS if rank >= params.train.lora_r), VLLM_RANKS[-1])
    return (
        f"vllm serve {params.model.name_or_path}{revision} \\\n"
        f"  --enable-lora --max-lora-rank {rank} --lora-modules hand=$PWD \\\n{VLLM_FLAGS}"
    )


def _sglang(merged: bool) -> str:
    if not merged:
        return "Its documentation names no adapters for this model: serve `models/merged`."
    return (
        "The prompt has `<image>` and a line break in front.\n\n"
        "```\npython -m sglang.launch_server --model-path . --served-model-name hand --port 30000\n```"
    )


def _rate(scores: dict[str, Any], name: str) -> str:
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    interval = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
    return f"{scores[name]:.1%}{interval}"
