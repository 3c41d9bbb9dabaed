"""llama.cpp in a process of its own, so that an abort of its C++ code fails a test and does not end the test run.

    python tests/llama_cpp.py convert SOURCE SCRIPT [ARGUMENTS OF THE SCRIPT]
    python tests/llama_cpp.py read REQUEST.json

`convert` runs one of the converters of a llama.cpp source folder, with two things bent for a model as small as the
demo's: the converter knows a pre-tokenizer by what it makes of one text, which no small tokenizer repeats, and its map
of tensor names has a hole for models of fewer than eight layers.
`read` continues `ids` with `n` greedy tokens, end of text excluded, by xllamacpp; it prints their ids, the
log-probabilities of the first step's best tokens, and an answer of its chat protocol.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def convert(source: str, script: str, arguments: list[str]) -> None:
    sys.path[:0] = [source, str(Path(source, "gguf-py"))]
    import conversion.base
    import gguf

    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "deepseek-v3"
    names = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = lambda architecture, layers: names(architecture, max(layers, 8))
    sys.argv = [script, *arguments]
    runpy.run_path(str(Path(source, script)), run_name="__main__")


def read(request: dict[str, object]) -> dict[str, object]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = request["model"]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in request["adapters"]]
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.cpuparams.n_threads = 512, 1, 0, 1
    params.warmup = False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    answer = server.handle_completions(
        {
            "prompt": request["ids"],
            "n_predict": request["n"],
            "temperature": 0,
            "ignore_eos": True,
            "n_probs": request["best"],
        }
    )
    steps = answer["choices"][0]["logprobs"]["content"]
    best = {token["id"]: token["logprob"] for token in steps[0]["top_logprobs"]}
    question = {"role": "user", "content": [{"type": "text", "text": "Free OCR."}]}
    chat = server.handle_chat_completions({"messages": [question], "temperature": 0, "max_tokens": 8, "logprobs": True})
    return {"tokens": [step["id"] for step in steps], "best": best, "chat": chat}


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        print(json.dumps(read(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
