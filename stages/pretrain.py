"""Make the demo base model: a small model of DeepSeek-OCR's own architecture, trained from nothing on drawn text.

Reads   demo/fonts/{printed,handwritten,held_out}, demo/texts/pretraining.txt and the `pretrain` group of params.yaml.
Writes  models/base/: safetensors in the official layout and names, config.json, tokenizer.json,
        processor_config.json and README.md with what was measured.
Refuses an empty font folder.
Alone   python -m stages.pretrain [--seconds N] [--finish]

It takes hours, so it is a frozen stage of dvc.yaml: `dvc repro` never starts it, `dvc repro --force pretrain` after
`dvc unfreeze pretrain` does. Interrupted, it goes on from its last checkpoint in .checkpoints/pretrain.

Two things decide whether it learns at all: weights initialised near 1/sqrt(width) everywhere, and random strings of up
to three characters first. With words from the start it learns the language and never looks at the picture.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
import yaml
from PIL import ImageOps
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import UnlimitedOcrForConditionalGeneration

from stages.lib.dataset.paper import paper_colour
from stages.lib.files import write_atomically, write_json, write_text
from stages.lib.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from stages.lib.model.loading import BOS, EOS, IMAGE, PAD, special_tokens
from stages.lib.model.official import build_config
from stages.lib.model.sequence import SpecialTokens, build_prompt_ids, build_training_ids, pad_batch
from stages.lib.vision.drawing import draw_line, lacks, random_hand
from stages.lib.vision.views import ViewSizes, make_views

CYRILLIC = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
LATIN = "abcdefghijklmnopqrstuvwxyz"
EXTRA = "«»„“”‘’–—…№°§"
MAX_LENGTH = 28
MAX_TILES = 8
LONGER_BELOW = 1.1  # nats per token; isolated letters such as c and C cannot be told apart, so it never comes near 0

# DeepSeek-OCR's official fields with small numbers, and the few fields that the official file leaves to its code.
WIDTH = 128
TILE_PX = 64
PATCH_PX = 8
VIEW_SIZES: dict[str, Any] = {
    "tiny": 64,
    "small": 64,
    "base": 64,
    "large": 128,
    "tile": TILE_PX,
    "pixels_per_token": 4 * PATCH_PX,
}


def official_config(vocabulary: int, special: SpecialTokens) -> dict[str, Any]:
    """The `config.json` of the demo base model, in the official fields."""
    return {
        "architectures": ["DeepseekOCRForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "candidate_resolutions": [[TILE_PX, TILE_PX]],
        "global_view_pos": "head",
        "tile_tag": "2D",
        "torch_dtype": "bfloat16",
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
        "initializer_range": 0.08,
        "language_config": {
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "torch_dtype": "bfloat16",
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "moe_intermediate_size": WIDTH,
            "num_hidden_layers": 4,
            "first_k_dense_replace": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
            "max_position_embeddings": 2048,
            "use_mla": False,
            "lm_head": True,
            "bos_token_id": special.bos,
            "eos_token_id": special.eos,
        },
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "input_dim": 2 * WIDTH,
            "n_embed": WIDTH,
        },
        "vision_config": {
            "model_type": "vision",
            "model_name": "deeplip_b_l",
            "image_size": TILE_PX,
            "width": {
                "clip-l-14-224": {"width": WIDTH, "layers": 2, "heads": 4, "image_size": 28, "patch_size": 14},
                "sam_vit_b": {
                    "width": WIDTH,
                    "layers": 3,
                    "heads": 2,
                    "global_attn_indexes": [0, 1, 2],
                    "downsample_channels": [WIDTH, WIDTH],
                    "patch_size": PATCH_PX,
                    "output_channels": WIDTH,
                    "mlp_ratio": 2,
                },
            },
        },
    }


def build_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer in which every Russian letter is one token; any other text falls back to bytes."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([BOS, EOS, PAD, IMAGE, *alphabet])}
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges: list[tuple[str, str]] = []
    for character in CYRILLIC + CYRILLIC.upper() + EXTRA:
        symbols = to_bytes.pre_tokenize_str(character)[0][0]
        for end in range(2, len(symbols) + 1):
            if symbols[:end] not in vocabulary:
                vocabulary[symbols[:end]] = len(vocabulary)
                merges.append((symbols[: end - 1], symbols[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (BOS, EOS, PAD, IMAGE)])
    return tokenizer


class TextSource:
    """Texts to draw: random strings, real words in random order, and words with wrong letters.

    Wrong letters and random strings keep the decoder from guessing words instead of reading them.
    """

    def __init__(self, lines: list[str]) -> None:
        self.words = sorted({word for line in lines for word in line.split()})
        self.letters = list(CYRILLIC)
        common, rare = "0123456789.,-!?:", "\"()«»„“–—…№°%;/+='’*&@#"
        # Latin and Cyrillic are never mixed within a string: many of their letters look the same.
        self.alphabets = [
            (list(alphabet + alphabet.upper() + common + rare), weights)
            for alphabet in (CYRILLIC, LATIN)
            for weights in [[4.0] * len(alphabet) + [1.5] * (len(alphabet) + len(common)) + [0.3] * len(rare)]
        ]

    def draw(self, rng: random.Random, longest: int, word_share: float) -> str:
        """One text of 1 to `longest` characters without spaces at its ends."""
        length = rng.randint(1, longest) if rng.random() < 0.5 else rng.randint(max(1, longest // 2), longest)
        if rng.random() < word_share:
            return self._words(rng, length)
        characters, weights = self.alphabets[rng.random() < 0.07]
        letters = rng.choices(characters, weights, k=length)
        for i in range(1, length - 1):
            if rng.random() < 0.08:
                letters[i] = " "
        return " ".join("".join(letters).split())

    def _words(self, rng: random.Random, length: int) -> str:
        text = ""
        wrong = 0.15 if rng.random() < 0.5 else 0.0
        while True:
            word = rng.choice(self.words)
            if wrong:
                word = "".join(rng.choice(self.letters) if rng.random() < wrong else c for c in word)
            if rng.random() < 0.15:
                word = word.capitalize()
            if rng.random() < 0.05:
                word = str(rng.randint(0, 2030))
            longer = f"{text} {word}" if text else word
            if len(longer) > length:
                return text or word[:length]
            text = longer


class DrawnLines(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of drawn lines; `difficulty` is a shared tensor (longest text, share of words, strength)."""

    def __init__(self, texts: TextSource, fonts: list[Path], batch_size: int, seed: int, difficulty: torch.Tensor):
        self.texts, self.fonts, self.batch_size, self.seed, self.difficulty = texts, fonts, batch_size, seed, difficulty
        self.tokenizer = build_tokenizer()
        self.special = special_tokens(self.tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
        self.sizes = ViewSizes(**VIEW_SIZES)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        torch.set_num_threads(1)
        seed = self.seed * 1000 + (worker.id if worker else 0)
        rng, noise = random.Random(seed), np.random.default_rng(seed)
        while True:
            yield self._batch(rng, noise)

    def _batch(self, rng: random.Random, noise: np.random.Generator) -> dict[str, Any]:
        longest, word_share, strength = int(self.difficulty[0]), float(self.difficulty[1]), float(self.difficulty[2])
        samples: list[tuple[str, Any]] = []
        while len(samples) < self.batch_size:
            text, font = self.texts.draw(rng, longest, word_share), rng.choice(self.fonts)
            if any(lacks(font, character) for character in text):
                continue
            image = draw_line(text, font, random_hand(noise, strength * rng.random()), noise, rng.randint(40, 72))
            if image.width < 2 * image.height and (longest < 8 or rng.random() < 0.9):
                # A row of tiles, as every line of text is; a lone letter would be stretched over two tiles upright.
                width = round(image.height * rng.uniform(2.0, 3.0))
                image = ImageOps.expand(image, (0, 0, width - image.width, 0), paper_colour(image))
            samples.append((text, make_views(image, "gundam", self.sizes, MAX_TILES)))
        return make_batch(samples, self.tokenizer, self.special)


def make_batch(samples: list[tuple[str, Any]], tokenizer: Tokenizer, special: SpecialTokens) -> dict[str, Any]:
    """A training batch with pixels from (text, views) pairs."""
    rows = [build_training_ids(tokenizer, special, views.tokens, text, 2048) for text, views in samples]
    batch: dict[str, Any] = pad_batch([ids for ids, _ in rows], special.pad, [labels for _, labels in rows])
    tiles = [views.tiles for _, views in samples if views.tiles is not None]
    batch["pixel_values"] = torch.stack([views.global_view for _, views in samples])
    batch["pixel_values_local"] = torch.cat(tiles) if tiles else None
    batch["num_local_patches"] = [0 if views.tiles is None else len(views.tiles) for _, views in samples]
    batch["patches_grid"] = [list(views.grid) for _, views in samples]
    return batch


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200, decay_share: float = 0.25) -> float:
    """Warm-up, constant, then linear to zero over the last `decay_share` of the steps."""
    decay_from = steps * (1 - decay_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < decay_from:
        return peak
    return peak * max(0.0, (steps - step) / (steps - decay_from))


class Curriculum:
    """How hard the texts are: longer by one character whenever the smoothed loss per token is low enough."""

    def __init__(self, difficulty: torch.Tensor) -> None:
        self.difficulty = difficulty
        self.longest, self.loss, self.since = 3, 9.0, 0

    def update(self, loss: float) -> None:
        self.loss = 0.97 * self.loss + 0.03 * loss
        self.since += 1
        if self.loss < LONGER_BELOW and self.since >= 40 and self.longest < MAX_LENGTH:
            self.longest, self.since = self.longest + 1, 0
        self.difficulty[0] = self.longest
        self.difficulty[1] = min(0.6, max(0.0, 0.06 * (self.longest - 4)))
        self.difficulty[2] = min(1.0, 0.25 + 0.05 * (self.longest - 3))


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


def draw_samples(texts: list[str], fonts: list[Path], seed: int, strength: float) -> list[tuple[str, Any]]:
    """(text, views) pairs for measuring, always the same for one seed."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    samples = []
    for text in texts:
        able = [font for font in fonts if not any(lacks(font, character) for character in text)]
        image = draw_line(text, rng.choice(able), random_hand(noise, strength), noise)
        samples.append((text, make_views(image, "gundam", ViewSizes(**VIEW_SIZES), MAX_TILES)))
    return samples


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


def write_base_model(
    model: Any,
    folder: Path,
    measured: dict[str, float],
    settings: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """The official layout: weights under the official names, and the files that stand beside them."""
    tokenizer = build_tokenizer()
    special = special_tokens(tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", official_config(tokenizer.get_vocab_size(), special))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "model_max_length": 2048,
        },
    )
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "DeepseekVLV2Processor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_token": IMAGE,
            "pad_token": PAD,
            "patch_size": PATCH_PX,
            "downsample_ratio": 4,
            "normalize": True,
            "view_sizes": VIEW_SIZES,
        },
    )
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in measured.items())
    write_text(
        folder / "README.md",
        "# The demo base model\n\n"
        "A small model of DeepSeek-OCR's own architecture in the official file layout, trained from random weights by\n"
        f"`stages/pretrain.py` on {settings['steps']:,} batches of {settings['batch_size']} drawn Russian lines.\n"
        "It exists so that the whole pipeline can run anywhere; it reads short single lines and nothing else.\n"
        "It was trained on drawn text only, in the fonts of `demo/fonts/printed` and `demo/fonts/handwritten`.\n\n"
        "CER on 64 lines each, texts and noise not used in training:\n\n"
        f"| lines | CER |\n|---|---|\n{rows}\n",
    )


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
