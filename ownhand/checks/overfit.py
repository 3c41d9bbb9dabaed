"""The overfit gate: can this model learn four lines by heart from these pictures, with this code?

The same road as encode, train and transcribe: vision tokens from the frozen tower through the feature cache, the same
sequences, collator, adapter, loss and trainer. Only the number of lines and steps is small.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from ownhand.checks.findings import Finding, blocker, ready, warning
from ownhand.evaluation.metrics import count_character_errors, micro_average
from ownhand.model.adapter import add_adapter, lora_config, needs_pictures
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.model.views import compute_vision_tokens
from ownhand.params import Params
from ownhand.samples import Sample
from ownhand.training.batches import VisionCollator
from ownhand.training.trainer import CachedSamples, TokenWeightedTrainer
from ownhand.vision.features import FeatureCache, write_features
from ownhand.vision.pictures import Pictures

LINES = 4
MOST_STEPS = 300
STEPS_BETWEEN_LOOKS = 20
LEARNED_LOSS = 0.02  # nats per token: each token has a probability of 0.98
MOST_LOSS = 0.1  # from here on something was not learned
MOST_CER = 0.02
SWAPPED_MARGIN = 1.0  # nats per token by which a wrong picture must raise the loss


@dataclass(frozen=True)
class OverfitFacts:
    """Losses in nats per token: of the base model, after training, and then with the pictures shuffled (None for a
    single line); uniform: of guessing among all tokens; cer: on the trained lines."""

    lines: int
    steps: int
    base_loss: float
    loss: float
    swapped_loss: float | None
    uniform: float
    cer: float


def check_overfit(facts: OverfitFacts) -> list[Finding]:
    """Findings LEARN-001 and LEARN-002."""
    findings = []
    against = f"loss {facts.base_loss:.2f}, guessing among all tokens {facts.uniform:.2f} (ln of the vocabulary)"
    if facts.base_loss >= facts.uniform:
        findings.append(
            warning(
                "LEARN-002",
                against,
                "compare encode.mode with the model's modes and MODEL-004; look at the pictures in data/processed",
            )
        )
    else:
        findings.append(ready("LEARN-002", against))
    swapped = "" if facts.swapped_loss is None else f", with swapped pictures {facts.swapped_loss:.2f}"
    seen = f"{facts.lines} lines, {facts.steps} steps: loss {facts.loss:.3f}{swapped}, CER {facts.cer:.3f}"
    learned = facts.loss <= MOST_LOSS and facts.cer <= MOST_CER
    looked = facts.swapped_loss is None or facts.swapped_loss >= facts.loss + SWAPPED_MARGIN
    if learned and looked:
        findings.append(ready("LEARN-001", seen))
        return findings
    unreadable = "pictures that are empty or too dark, or an encode.mode in which the letters are too small"
    causes = unreadable
    if not learned:
        causes = (
            "train.learning_rate too low or too high, train.lora_r too small, a part missing in train.lora_targets, "
            f"model.dtype float16, {unreadable}"
        )
    what = "the model recites without looking" if learned else "the model does not learn from these pictures"
    findings.append(blocker("LEARN-001", f"{what}: {seen}", f"likely causes: {causes}"))
    return findings


def choose_lines(samples: Sequence[Sample], count: int = LINES) -> list[Sample]:
    """The shortest training samples with texts of their own: the cheapest proof. Fewer when there are no more."""
    chosen: dict[str, Sample] = {}
    for sample in sorted(samples, key=lambda one: (len(one.text), one.image_id)):
        if sample.split == "train":
            chosen.setdefault(sample.text, sample)
    return list(chosen.values())[:count]


def overfit(
    samples: Sequence[Sample], params: Params, device: torch.device, most_steps: int = MOST_STEPS
) -> OverfitFacts:
    """Train `samples` until their loss is near zero, at most `most_steps` steps, and read them back."""
    set_seed(params.train.seed)
    base = BaseModel.open(params)
    pictures = Pictures(samples, params.encode)
    sees = needs_pictures(params.train.lora_targets)
    with tempfile.TemporaryDirectory() as unfinished:
        cache = _encode(samples, pictures, base, params, device, Path(unfinished))
        lines = CachedSamples(samples, cache, base, params.train.max_tokens, False, pictures if sees else None)
        collator = VisionCollator(base.special, base.dtype)
        trainer = _create_trainer(lines, collator, base, params, device, most_steps, Path(unfinished))
        base_loss = trainer.mean_loss(lines)
        trainer.train()
        loss = trainer.mean_loss(lines)
        swapped = trainer.mean_loss(lines.with_swapped_pictures()) if len(samples) > 1 else None
        tokens = [cache.tokens(sample.image_id) for sample in samples]
        if sees:
            images = (pictures.image(sample.image_id) for sample in samples)
            tokens = [compute_vision_tokens(trainer.model, base.view_rules.views(image)) for image in images]
        readings = transcribe_tokens(trainer.model.eval(), tokens, base, params.transcribe, "check: reads")
    pairs = zip(samples, readings, strict=True)
    return OverfitFacts(
        lines=len(samples),
        steps=trainer.state.global_step,
        base_loss=base_loss,
        loss=loss,
        swapped_loss=swapped,
        uniform=math.log(base.tokenizer.get_vocab_size()),
        cer=micro_average(count_character_errors(sample.text, reading.text) for sample, reading in pairs),
    )


def _encode(
    samples: Sequence[Sample],
    pictures: Pictures,
    base: BaseModel,
    params: Params,
    device: torch.device,
    folder: Path,
) -> FeatureCache:
    model = base.load(device, decoder=False)
    keys = (sample.image_id for sample in samples)
    tokens = ((key, compute_vision_tokens(model, base.view_rules.views(pictures.image(key)))) for key in keys)
    write_features(folder / "features", tokens, {}, params.runtime.shard_mb)
    return FeatureCache(folder / "features")


def _create_trainer(
    lines: CachedSamples,
    collator: Any,
    base: BaseModel,
    params: Params,
    device: torch.device,
    most_steps: int,
    folder: Path,
) -> TokenWeightedTrainer:
    loaded = base.load(
        device, vision=needs_pictures(params.train.lora_targets), expert_weights=params.train.expert_weights
    )
    model = add_adapter(loaded, lora_config(params.train, params.model.name_or_path, params.model.revision))
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=most_steps,
        per_device_train_batch_size=min(params.train.batch_size, len(lines)),
        per_device_eval_batch_size=min(params.train.batch_size, len(lines)),
        learning_rate=params.train.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=STEPS_BETWEEN_LOOKS // 2,
        weight_decay=params.train.weight_decay,
        max_grad_norm=params.train.max_grad_norm,
        gradient_checkpointing=params.train.gradient_checkpointing,
        save_strategy="no",
        logging_strategy="no",
        seed=params.train.seed,
        data_seed=params.train.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
    )
    trainer = TokenWeightedTrainer(model=model, args=arguments, train_dataset=lines, data_collator=collator)
    trainer.batch_tokens = params.train.batch_tokens
    trainer.add_callback(StopWhenLearned(trainer, lines))
    return trainer


class StopWhenLearned(TrainerCallback):
    """Ends the training as soon as the lines are known by heart."""

    def __init__(self, trainer: TokenWeightedTrainer, lines: CachedSamples) -> None:
        self.trainer = trainer
        self.lines = lines

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % STEPS_BETWEEN_LOOKS == 0 and self.trainer.mean_loss(self.lines) <= LEARNED_LOSS:
            control.should_training_stop = True
