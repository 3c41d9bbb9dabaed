"""Make the demo base model: a small model of DeepSeek-OCR's own architecture, trained on drawn and real lines.

Reads   demo/fonts/{printed,handwritten,held_out}, demo/texts/pretraining.txt and demo/texts/prose, word lists of the
        package wordfreq, and real lines (demo/real_lines.py, which clones their sources from GitHub).
Writes  models/base/: safetensors in the official layout and names, config.json, tokenizer.json,
        processor_config.json and README.md with what was measured.
Refuses an empty font folder.
Alone   python -m demo.pretrain [--seconds N] [--grow FOLDER]     goes on from .checkpoints/pretrain
        python -m demo.pretrain --cooldown 2000                   the last steps, with a falling rate, then writes
        OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m demo.pretrain ...     on two cores that are idle

It takes hours of two CPU cores; `pip install wordfreq` first. Interrupted, it goes on from its last checkpoint. The
weights that it writes and measures are a running mean of the trained ones. Several processes share out each batch, and
train on the mean of their gradients.

Two things decide whether it learns at all from nothing: weights initialised near 1/sqrt(width) everywhere, and random
strings of up to three characters first. With words from the start it learns the language and never looks.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import jiwer
import torch
from tokenizers import Tokenizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import UnlimitedOcrForConditionalGeneration

from demo.lines import (
    MAX_TILES,
    USUAL_LENGTH,
    Curriculum,
    DrawnLines,
    TextSource,
    draw_samples,
    make_batch,
    real_samples,
)
from demo.real_lines import SOURCES, UNSEEN, cut_sources, read_real_lines
from demo.shape import MAX_LENGTH, build_tokenizer, grow, official_config, write_base_model
from ownhand import processes
from ownhand.files import write_atomically
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import load_base_model, special_tokens
from ownhand.model.official import build_config
from ownhand.model.sequence import build_prompt_ids, pad_batch

BATCH_SIZE = 32
LEARNING_RATES = (2.0e-3, 1.0e-3)  # of Muon and of AdamW
WARMUP_STEPS = 200
MEAN_DECAY = 0.995  # of the running mean of the weights, per step
# Of the copy of the weights that computes; on older CPUs bfloat16 is ten times slower.
DTYPE = torch.float32 if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") else torch.bfloat16
SEED = 3
CHECKPOINT_STEPS = 50
MEASURE_STEPS = 1000
SHORT_TILES = 8  # as in params.yaml: about three characters a tile


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
    """CER on clean and on distorted lines in fonts that training never sees, on training's handwritten fonts, and on
    real lines of hands that training never sees."""
    held_out = sorted((fonts / "held_out").glob("*.woff2"))
    handwritten = sorted((fonts / "handwritten").glob("*.woff2"))
    long_texts = [f"{first} {second}" for first, second in zip(texts[::2], texts[1::2], strict=True)]
    sets = {
        "printed_unseen_fonts": draw_samples(texts, held_out, 1, 0.2, SHORT_TILES),
        "printed_unseen_fonts_distorted": draw_samples(texts, held_out, 2, 1.0, SHORT_TILES),
        "handwritten_seen_fonts": draw_samples(texts, handwritten, 3, 0.5, SHORT_TILES),
        "handwritten_seen_fonts_long_lines": draw_samples(long_texts, handwritten, 4, 0.5, MAX_TILES),
        "real_unseen_hands": real_samples(read_real_lines(UNSEEN)),
    }
    model.eval()
    model.config.text_config.use_cache = True
    scores = {}
    for name, samples in sets.items():
        readings = read_lines(model, samples, tokenizer)
        scores[name] = round(float(jiwer.cer([text for text, _ in samples], readings)), 4)
    model.config.text_config.use_cache = False
    return scores


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum of each matrix (Jordan and others, 2024), for stacks of matrices too.

    torch.optim.Muon takes no stacks and works in bfloat16, which some CPUs have to imitate; this one keeps float32.
    Steps are scaled as there with `match_rms_adamw`, so that one learning rate means about the same as AdamW's.
    """

    def __init__(self, parameters: list[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step; every parameter needs a gradient of shape (..., rows, columns)."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                updates = []
                for parameter in parameters:
                    gradient = parameter.grad
                    assert gradient is not None
                    buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(buffer, group["momentum"]))
                scale = 0.2 * math.sqrt(max(shape[-2:]))
                for parameter, update in zip(parameters, orthogonalise(torch.stack(updates)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"] * scale)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (..., rows, columns) with singular values near 1, by five Newton-Schulz steps of the fifth order."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: torch.Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def make_optimizers(model: Any) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the layers' matrices, AdamW for everything else (embeddings, convolutions, vectors).

    From the same weights on the same batches, the loss that AdamW alone reached after 200 steps took Muon 50.
    """
    others = ("embed", "lm_head", "rel_pos", "mlp.gate.weight", "conv", "neck")
    hidden: list[torch.Tensor] = []
    decayed: list[torch.Tensor] = []
    rest: list[torch.Tensor] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim in (2, 3) and not any(part in name for part in others)
        (hidden if matrix else decayed if parameter.ndim >= 2 else rest).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return Muon(hidden, lr=LEARNING_RATES[0]), torch.optim.AdamW(groups, lr=LEARNING_RATES[1], betas=(0.9, 0.98))


def share_gradients(weights: list[torch.nn.Parameter]) -> None:
    """Give each weight the mean of its gradients in all processes, 0 where one has none; alone, nothing is done."""
    if processes.count() == 1:
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    mean = torch.cat([gradient.flatten() for gradient in gradients]) / processes.count()
    torch.distributed.all_reduce(mean)
    parts = torch.split(mean, [weight.numel() for weight in weights])
    for weight, part in zip(weights, parts, strict=True):
        weight.grad = part.view_as(weight)


def train(model: Any, data: Path, checkpoint: Path, seconds: float, cooldown: int, longest: int) -> tuple[Any, int]:
    """Train until `seconds` are over, or for `cooldown` steps with a falling rate; returns (mean model, steps).

    longest: characters of the longest text at first. Goes on from `checkpoint` where it exists.
    """
    tokenizer = build_tokenizer()
    lines = (data / "texts" / "pretraining.txt").read_text(encoding="utf-8").splitlines()
    corpus, held_out = lines[:-64], lines[-64:]
    printed, handwritten = (sorted((data / "fonts" / name).glob("*.woff2")) for name in ("printed", "handwritten"))
    if not printed or not handwritten:
        raise SystemExit(f"{data / 'fonts'}: no fonts in printed/ or handwritten/")
    real = [line for source in SOURCES if source != UNSEEN for line in read_real_lines(source)]
    optimizers = make_optimizers(model)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(MEAN_DECAY))  # type: ignore[no-untyped-call]
    step, curriculum = 0, Curriculum(longest, 9.0)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        step, curriculum = state["step"], Curriculum(state["longest"], state["loss"])
        print(f"pretrain: goes on from step {step}, texts of up to {curriculum.longest} characters", flush=True)
    computing = copy.deepcopy(model).to(DTYPE)  # computes; `model` keeps the weights in float32
    for layer in computing.model.vision_tower.sam_encoder.layers:
        layer.compile(dynamic=True)
    weights = list(model.parameters())
    pairs = list(zip(weights, computing.parameters(), strict=True))
    own, seed = BATCH_SIZE // processes.count(), SEED + step + 1_000_000 * processes.number()
    prose = {path.stem: path.read_text(encoding="utf-8") for path in sorted((data / "texts" / "prose").glob("*.txt"))}
    dataset = DrawnLines(TextSource(corpus, prose), printed, handwritten, real, own, seed, curriculum.shared)
    batches = iter(DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=3))
    started, first, losses = time.monotonic(), step, []
    computing.train()
    processes.wait_for_all()
    while True:
        share = min(1.0, (step + 1) / WARMUP_STEPS)
        if cooldown:
            share *= 1 - (step - first) / cooldown
        for optimizer, rate in zip(optimizers, LEARNING_RATES, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = share * rate
        with torch.no_grad():
            for weight, copied in pairs:
                copied.copy_(weight)
        batch = next(batches)
        batch["pixel_values"], batch["pixel_values_local"] = (
            None if batch[name] is None else batch[name].to(DTYPE) for name in ("pixel_values", "pixel_values_local")
        )
        loss = computing(**batch).loss
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SystemExit(f"pretrain: the loss is {value} at step {step}; lower LEARNING_RATES")
        loss.backward()
        for weight, copied in pairs:
            weight.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None
        share_gradients(weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        mean.update_parameters(model)
        seen = processes.gather((value, time.monotonic() - started))  # all of them must end with the same step
        value, elapsed = sum(loss for loss, _ in seen) / len(seen), seen[0][1]
        curriculum.update(value)
        losses.append(value)
        step += 1
        ended = elapsed > seconds or (cooldown and step - first == cooldown)
        if processes.number():
            if ended:
                return mean.module, step
            continue
        if step % 50 == 0:
            print(
                f"step {step}  loss {sum(losses[-50:]) / len(losses[-50:]):.3f}  length {curriculum.longest}"
                f"  rate {share:.2f}  {len(losses) * BATCH_SIZE / elapsed:.0f} lines/s  {elapsed:.0f} s",
                flush=True,
            )
        if step % CHECKPOINT_STEPS == 0 or ended:
            state = {
                "model": model.state_dict(),
                "mean": mean.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
                "longest": curriculum.longest,
                "loss": curriculum.loss,
            }
            with write_atomically(checkpoint if not cooldown else checkpoint.with_name("cooled.pt")) as temporary:
                torch.save(state, temporary)
        if step % MEASURE_STEPS == 0 or ended:
            print(f"step {step}  CER {measure(mean.module, tokenizer, held_out, data / 'fonts')}", flush=True)
        if ended:
            return mean.module, step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time, with a checkpoint")
    parser.add_argument("--cooldown", type=int, default=0, help="this many last steps, with a rate that falls to zero")
    parser.add_argument("--grow", type=Path, help="begin with the weights of a smaller demo base model in this folder")
    parser.add_argument("--out", type=Path, default=Path("models/base"))
    arguments = parser.parse_args()
    if not processes.number():
        cut_sources({})
    processes.wait_for_all()
    torch.manual_seed(SEED)
    torch.set_flush_denormal(True)
    tokenizer = build_tokenizer()
    special = special_tokens(tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
    config = build_config(official_config(tokenizer.get_vocab_size(), special), special.image)
    model: Any = UnlimitedOcrForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # on two cores faster than sdpa for these short sequences
    model.config.text_config.use_cache = False
    if arguments.grow:
        grow(model, load_base_model(str(arguments.grow), dtype=torch.float32).state_dict())
    checkpoint = Path(".checkpoints/pretrain/state.pt")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    data = Path("demo")
    longest = USUAL_LENGTH if arguments.grow else 3
    mean, steps = train(model, data, checkpoint, arguments.seconds, arguments.cooldown, longest)
    if processes.number():
        return
    lines = (data / "texts" / "pretraining.txt").read_text(encoding="utf-8").splitlines()
    measured = measure(mean, tokenizer, lines[-64:], data / "fonts")
    write_base_model(mean, arguments.out, measured, {"steps": steps, "batch_size": BATCH_SIZE})
    print(f"pretrain: {steps} steps; CER {measured}; wrote {arguments.out}")


if __name__ == "__main__":
    main()
