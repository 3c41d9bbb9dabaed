"""Make the demo base model: a small model of DeepSeek-OCR's own architecture, trained from nothing on drawn text.

Reads   demo/fonts/{printed,handwritten,held_out}, demo/texts/pretraining.txt and the `pretrain` group of params.yaml.
Writes  models/base/: safetensors in the official layout and names, config.json, tokenizer.json,
        processor_config.json and README.md with what was measured.
Refuses an empty font folder.
Alone   python -m demo.pretrain [--seconds N] [--steps N]

It takes hours, so it is a frozen stage of dvc.yaml: `dvc repro` never starts it, `dvc repro --force pretrain` after
`dvc unfreeze pretrain` does. Interrupted, it goes on from its last checkpoint in .checkpoints/pretrain.

Two things decide whether it learns at all: weights initialised near 1/sqrt(width) everywhere, and random strings of up
to three characters first. With words from the start it learns the language and never looks at the picture.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import jiwer
import torch
import yaml
from tokenizers import Tokenizer
from torch.utils.data import DataLoader
from transformers import UnlimitedOcrForConditionalGeneration

from demo.lines import MAX_LENGTH, Curriculum, DrawnLines, TextSource, draw_samples, make_batch
from demo.shape import build_tokenizer, official_config, write_base_model
from ownhand.files import write_atomically
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import special_tokens
from ownhand.model.official import build_config
from ownhand.model.sequence import build_prompt_ids, pad_batch


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200, decay_share: float = 0.25) -> float:
    """Warm-up, constant, then linear to zero over the last `decay_share` of the steps."""
    decay_from = steps * (1 - decay_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < decay_from:
        return peak
    return peak * max(0.0, (steps - step) / (steps - decay_from))


@torch.no_grad()
def read_lines(model: Any, samples: list[tuple[str, Any]], tokenizer: Tokenizer) -> list[str]:
    """Greedy readings of (text, views) pairs, in order."""
    special = special_tokens(tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
    readings: list[str] = []
    for start in range(0, len(samples), 32):
        part = samples[start : start + 32]
        batch = make_batch([("", views) for _, views in part], tokenizer, special)
        features = model.get_image_features(
            batch["pixel_values"], batch["pixel_values_local"], batch["num_local_patches"], batch["patches_grid"]
        )
        prompts = [build_prompt_ids(special, views.tokens) for _, views in part]
        inputs = pad_batch(prompts, special.pad, side="left")
        output = model.generate(
            **inputs,
            mm_encoder_outputs={"image": features},
            max_new_tokens=MAX_LENGTH + 12,
            do_sample=False,
            pad_token_id=special.pad,
            eos_token_id=special.eos,
        )
        answers = output[:, inputs["input_ids"].shape[1] :].tolist()
        readings += [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    return readings


def measure(model: Any, tokenizer: Tokenizer, texts: list[str], fonts: Path) -> dict[str, float]:
    """CER on clean and on distorted lines in fonts that training never sees, and on training's handwritten fonts."""
    held_out = sorted((fonts / "held_out").glob("*.woff2"))
    handwritten = sorted((fonts / "handwritten").glob("*.woff2"))
    sets = {
        "printed_unseen_fonts": draw_samples(texts, held_out, 1, 0.2),
        "printed_unseen_fonts_distorted": draw_samples(texts, held_out, 2, 1.0),
        "handwritten_seen_fonts": draw_samples(texts, handwritten, 3, 0.5),
    }
    model.eval()
    use_cache, model.config.text_config.use_cache = model.config.text_config.use_cache, True
    scores = {}
    for name, samples in sets.items():
        readings = read_lines(model, samples, tokenizer)
        scores[name] = round(float(jiwer.cer([text for text, _ in samples], readings)), 4)
    model.config.text_config.use_cache = use_cache
    model.train()
    return scores


def train(model: Any, settings: dict[str, Any], data: Path, checkpoint: Path, seconds: float) -> bool:
    """Train until `settings["steps"]`; False when `seconds` ran out before. Goes on from `checkpoint` if it exists."""
    tokenizer = build_tokenizer()
    lines = (data / "texts" / "pretraining.txt").read_text(encoding="utf-8").splitlines()
    corpus, held_out = lines[:-64], lines[-64:]
    fonts = sorted((data / "fonts" / "printed").glob("*.woff2"))
    handwritten = sorted((data / "fonts" / "handwritten").glob("*.woff2"))
    if not fonts or not handwritten:
        raise SystemExit(f"{data / 'fonts'}: no fonts in printed/ or handwritten/")
    fonts += handwritten * round(len(fonts) / len(handwritten))  # half of the lines are handwritten
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(0.9, 0.98))
    difficulty = torch.zeros(3)
    difficulty.share_memory_()  # type: ignore[no-untyped-call] # the drawing process reads it
    curriculum = Curriculum(difficulty)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, curriculum.longest, curriculum.loss = state["step"], state["longest"], state["loss"]
        print(f"pretrain: goes on from step {step}, texts of up to {curriculum.longest} characters", flush=True)
    curriculum.update(curriculum.loss)
    dataset = DrawnLines(TextSource(corpus), fonts, settings["batch_size"], settings["seed"] + step, difficulty)
    batches = iter(DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=3))
    started = time.monotonic()
    losses: list[float] = []
    model.train()
    while step < settings["steps"]:
        rate = learning_rate(step, settings["steps"], settings["learning_rate"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings["bf16"]):
            loss = model(**batch).loss
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SystemExit(f"pretrain: the loss is {value} at step {step}; lower pretrain.learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        curriculum.update(value)
        losses.append(value)
        step += 1
        elapsed = time.monotonic() - started
        if step % 50 == 0:
            speed = len(losses) * settings["batch_size"] / elapsed
            print(
                f"step {step}/{settings['steps']}  loss {sum(losses[-50:]) / 50:.3f}  length {curriculum.longest}"
                f"  lr {rate:.1e}  {speed:.0f} lines/s  {elapsed:.0f} s",
                flush=True,
            )
        out_of_time = elapsed > seconds
        if step % 500 == 0 or step == settings["steps"] or out_of_time:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "longest": curriculum.longest,
                "loss": curriculum.loss,
            }
            with write_atomically(checkpoint) as temporary:
                torch.save(state, temporary)
        if step % 1000 == 0:
            print(f"step {step}  CER {measure(model, tokenizer, held_out, data / 'fonts')}", flush=True)
        if out_of_time:
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time, with a checkpoint")
    parser.add_argument("--steps", type=int, help="instead of pretrain.steps of params.yaml")
    arguments = parser.parse_args()
    settings = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["pretrain"]
    if arguments.steps:
        settings["steps"] = arguments.steps
    torch.manual_seed(settings["seed"])
    torch.set_flush_denormal(True)
    tokenizer = build_tokenizer()
    special = special_tokens(tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
    config = build_config(official_config(tokenizer.get_vocab_size(), special), special.image)
    model: Any = UnlimitedOcrForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # on two cores faster than sdpa for these short sequences
    model.config.text_config.use_cache = False
    checkpoint = Path(".checkpoints/pretrain/state.pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    data = Path("demo")
    if not train(model, settings, data, checkpoint, arguments.seconds):
        raise SystemExit("pretrain: out of time before the last step; run it again to go on")
    lines = (data / "texts" / "pretraining.txt").read_text(encoding="utf-8").splitlines()
    measured = measure(model, tokenizer, lines[-64:], data / "fonts")
    write_base_model(model, Path("models/base"), measured, settings)
    print(f"pretrain: {settings['steps']} steps; CER {measured}; wrote models/base")


if __name__ == "__main__":
    main()
