"""Train: LoRA on the base model, fed with vision tokens from the cache.

Reads   data/processed/metadata.json, data/features/, the base model (without its vision tower); parameters `model`,
        `train`. With the LoRA targets `vision` or `projector` also the pictures, the vision tower and the parameters
        `encode`: what is trained cannot come from a cache.
Writes  models/adapter/ (PEFT layout), metrics/train.json, metrics/curves/{train,val}_loss.csv.
Refuses a machine that cannot do it, samples that do not fit `max_tokens`, a batch larger than the training set, a loss
        that is not a number.
Alone   python -m stages.train

Interrupted, it goes on from its last complete checkpoint and ends with the weights of an uninterrupted run. The
checkpoints lie in .checkpoints/train/, keyed by everything that decides the result, and are removed on success.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainingArguments, set_seed

from stages.lib.adapter import add_adapter, lora_config, needs_pictures, save_adapter
from stages.lib.checks.environment import check_environment
from stages.lib.checks.machine import gather_environment
from stages.lib.failures import Refusal, run_stage
from stages.lib.families import read_family
from stages.lib.features import FeatureCache, VisionInput
from stages.lib.files import write_json, write_text
from stages.lib.findings import refuse_blockers
from stages.lib.metadata import METADATA, read_metadata
from stages.lib.model import find_model, load_base_model, read_tokenizer, special_tokens
from stages.lib.params import Params, read_params
from stages.lib.pictures import PictureCollator, Pictures
from stages.lib.runtime import DTYPES, checkpoint_folder, fingerprint, set_up
from stages.lib.schedule import Schedule
from stages.lib.sequence import CachedVisionCollator
from stages.lib.training import (
    CachedSamples,
    MarkCompleteCheckpoints,
    TokenWeightedTrainer,
    last_complete_checkpoint,
)
from stages.lib.views import read_view_sizes

FEATURES = Path("data/features")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/train.json")
CURVES = Path("metrics/curves")


@dataclass(frozen=True)
class Datasets:
    """Training samples with their augmented copies, validation samples, and the collator for both."""

    train: CachedSamples
    val: CachedSamples
    collator: CachedVisionCollator | PictureCollator
    vocabulary: int


def main() -> None:
    params = read_params()
    refuse_blockers(check_environment(gather_environment(params.runtime)))  # it may have changed since `check` ran
    device = set_up(params.runtime)
    set_seed(params.train.seed)
    datasets = prepare_datasets(params)
    model = set_up_lora(params, device)
    trainer = create_trainer(model, datasets, params)
    before = trainer.mean_loss(datasets.val)
    train(trainer)
    metrics = measure(trainer, datasets, before)
    save(trainer, metrics, params)
    print(
        f"train: read {len(datasets.train)} training views of {metrics['train_lines']} lines and {len(datasets.val)} "
        f"validation lines; {metrics['optimizer_steps']} steps; loss on validation {before:.3f} -> "
        f"{metrics['val_loss']:.3f}; wrote {ADAPTER.as_posix()}; refused 0"
    )
    for finding in metrics["findings"].values():
        print(f"train: WARNING {finding}")


def prepare_datasets(params: Params) -> Datasets:
    """Samples with ids, labels and cached vision tokens. Refusal when the batch exceeds the training set."""
    folder = find_model(params.model.name_or_path, params.model.revision, weights=False)
    tokenizer = read_tokenizer(folder)
    special = special_tokens(tokenizer, read_family(folder).prompt)
    cache = FeatureCache(FEATURES)
    samples = read_metadata()
    pictures = None
    collator: CachedVisionCollator | PictureCollator = CachedVisionCollator(special)
    if needs_pictures(params.train.lora_targets):
        vision = VisionInput(params.encode.mode, read_view_sizes(folder), params.encode.max_tiles)
        pictures = Pictures(samples, vision, params.encode.seed)
        collator = PictureCollator(special, DTYPES[params.model.dtype])
    sets = {
        split: CachedSamples(
            [sample for sample in samples if sample.split == split],
            cache,
            tokenizer,
            special,
            params.train.max_tokens,
            with_copies=split == "train",
            pictures=pictures,
        )
        for split in ("train", "val")
    }
    if params.train.batch_size > len(sets["train"]):
        raise Refusal(
            f"train.batch_size is {params.train.batch_size}, but there are only {len(sets['train'])} training views; "
            f"set it to at most {len(sets['train'])}"
        )
    return Datasets(sets["train"], sets["val"], collator, tokenizer.get_vocab_size())


def set_up_lora(params: Params, device: torch.device) -> PeftModel:
    """The frozen decoder with a fresh adapter; the vision tower is left on the disk unless it is a target."""
    model = load_base_model(
        params.model.name_or_path,
        params.model.revision,
        dtype=DTYPES[params.model.dtype],
        device=device,
        attn_implementation=params.model.attn_implementation,
        vision=needs_pictures(params.train.lora_targets),
    )
    return add_adapter(model, lora_config(params.train, params.model.name_or_path, params.model.revision))


def create_trainer(model: PeftModel, datasets: Datasets, params: Params) -> TokenWeightedTrainer:
    """Hugging Face's Trainer, its checkpoints in a folder that belongs to exactly this run."""
    schedule = Schedule.of(len(datasets.train), params.train, params.runtime.checkpoint_steps)
    unfinished = checkpoint_folder(
        "train",
        fingerprint(
            params.model, params.encode, params.train, files=[METADATA, FEATURES / "index.json", *model_files(params)]
        ),
    )
    arguments = TrainingArguments(
        output_dir=str(unfinished),
        max_steps=schedule.steps,
        per_device_train_batch_size=params.train.batch_size,
        per_device_eval_batch_size=params.train.batch_size,
        gradient_accumulation_steps=params.train.accumulation,
        learning_rate=params.train.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=schedule.warmup_steps,
        weight_decay=params.train.weight_decay,
        max_grad_norm=params.train.max_grad_norm,
        gradient_checkpointing=params.train.gradient_checkpointing,
        eval_strategy="steps",
        eval_steps=schedule.evaluation_interval,
        logging_steps=max(1, schedule.steps // 50),
        save_strategy="steps",
        save_steps=schedule.checkpoint_interval,
        save_total_limit=2,
        seed=params.train.seed,
        data_seed=params.train.seed,
        use_cpu=params.runtime.device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=False,
    )
    return TokenWeightedTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.train,
        eval_dataset=datasets.val,
        data_collator=datasets.collator,
        callbacks=[MarkCompleteCheckpoints()],
    )


def model_files(params: Params) -> list[Path]:
    """What identifies the base model in the fingerprint: the small files, and for a local folder the weights."""
    folder = find_model(params.model.name_or_path, params.model.revision, weights=False)
    weights = [] if params.model.revision else list(folder.glob("*.safetensors"))
    return sorted([*folder.glob("*.json"), *weights])


def train(trainer: TokenWeightedTrainer) -> None:
    """Run to the end, from the last complete checkpoint if there is one."""
    checkpoint = last_complete_checkpoint(Path(str(trainer.args.output_dir)))
    if checkpoint:
        print(f"train: goes on from {checkpoint.name} of an interrupted run")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def measure(trainer: TokenWeightedTrainer, datasets: Datasets, before: float) -> dict[str, Any]:
    """What the run was worth, in nats per token: before, after, with shuffled pictures, and against guessing."""
    after = trainer.mean_loss(datasets.val)
    shuffled = trainer.mean_loss(datasets.val.with_shuffled_pictures())
    uniform = math.log(datasets.vocabulary)
    model: Any = trainer.model
    findings = {}
    if after >= uniform:
        findings["TRAIN-001"] = (
            f"the validation loss {after:.2f} is no better than guessing among all {datasets.vocabulary} tokens "
            f"({uniform:.2f}): nothing was learned"
        )
    if after >= before:
        findings["TRAIN-002"] = f"the validation loss did not fall: {before:.3f} before training, {after:.3f} after"
    if len(datasets.val) > 1 and shuffled < after + 0.1:
        findings["TRAIN-003"] = (
            f"with the pictures shuffled among the lines the loss is {shuffled:.2f}, hardly higher than {after:.2f}: "
            "the model recites instead of reading"
        )
    return {
        "train_lines": len({row["image_id"] for row in datasets.train.rows}),
        "train_views": len(datasets.train),
        "val_lines": len(datasets.val),
        "optimizer_steps": trainer.state.global_step,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train_loss": trainer.mean_loss(datasets.train),
        "val_loss_before": before,
        "val_loss": after,
        "val_loss_shuffled_pictures": shuffled,
        "uniform_loss": uniform,
        "findings": findings,
    }


def save(trainer: TokenWeightedTrainer, metrics: dict[str, Any], params: Params) -> None:
    """Adapter, model card, metrics and curves; then the checkpoints may go."""
    model: Any = trainer.model
    shutil.rmtree(ADAPTER, ignore_errors=True)
    save_adapter(model, ADAPTER, params.model.name_or_path)
    write_text(ADAPTER / "README.md", model_card(metrics, params))
    write_json(METRICS, metrics)
    history = trainer.state.log_history
    write_curve(CURVES / "train_loss.csv", [(row["step"], row["loss"]) for row in history if "loss" in row])
    write_curve(CURVES / "val_loss.csv", [(row["step"], row["eval_loss"]) for row in history if "eval_loss" in row])
    shutil.rmtree(str(trainer.args.output_dir), ignore_errors=True)


def write_curve(path: Path, points: list[tuple[float, float]]) -> None:
    """A CSV with the columns step and loss (nats per token)."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "loss"])
    table.writerows((step, f"{loss:.6f}") for step, loss in points)
    write_text(path, text.getvalue())


def model_card(metrics: dict[str, Any], params: Params) -> str:
    """The README of the adapter, with the metadata block that model hubs read."""
    return (
        "---\n"
        f"base_model: {params.model.name_or_path}\n"
        "library_name: peft\n"
        "pipeline_tag: image-to-text\n"
        "---\n\n"
        "# Handwriting adapter\n\n"
        f"LoRA (r {params.train.lora_r}, alpha {params.train.lora_alpha}, {', '.join(params.train.lora_targets)}; "
        f"{metrics['trainable_parameters']:,} parameters) for `{params.model.name_or_path}`, trained on "
        f"{metrics['train_lines']} lines for {metrics['optimizer_steps']} steps.\n\n"
        f"Validation loss per token: {metrics['val_loss_before']:.3f} before, {metrics['val_loss']:.3f} after, "
        f"{metrics['val_loss_shuffled_pictures']:.3f} with shuffled pictures. "
        "Error rates: `metrics/evaluation.json`.\n\n"
        f"Read new photographs with `python -m stages.read`: mode {params.encode.mode}, at most "
        f"{params.encode.max_tiles} tiles.\n"
    )


if __name__ == "__main__":
    run_stage(main)
