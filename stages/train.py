"""Train: LoRA on the base model, fed with vision tokens from the cache.

Reads   data/processed/metadata.json, data/features/, the base model (without its vision tower); parameters `model`,
        `train`, and of `transcribe` how lines are read for the CER curve. With the LoRA targets `vision` or `projector`
        also the pictures, the vision tower and the parameters `encode`: what is trained cannot come from a cache.
Writes  models/adapter/ (PEFT layout), metrics/train.json, metrics/curves/{train_loss,val_loss,val_cer}.csv.
Refuses a machine that cannot do it, samples that do not fit `max_tokens` or `batch_tokens`, a batch larger than the
        training set, a loss that is not a number.
Alone   python -m stages.train

Interrupted, it goes on from its last complete checkpoint and ends with the weights of an uninterrupted run. The
checkpoints lie in .checkpoints/train/, keyed by everything that decides the result, and are removed on success.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerState, TrainingArguments, set_seed

from stages.lib import processes
from stages.lib.checks.environment import check_environment
from stages.lib.checks.findings import refuse_blockers
from stages.lib.checks.machine import gather_environment
from stages.lib.failures import Refusal, run_stage
from stages.lib.files import write_json, write_text
from stages.lib.metadata import METADATA, read_metadata
from stages.lib.model.adapter import add_adapter, load_adapter_weights, lora_config, needs_pictures, save_adapter
from stages.lib.model.families import read_family
from stages.lib.model.loading import find_model, load_base_model, read_tokenizer, special_tokens
from stages.lib.model.sequence import CachedVisionCollator
from stages.lib.params import Params, read_params
from stages.lib.processes import start_processes
from stages.lib.runtime import DTYPES, alone_in, checkpoint_folder, fingerprint, set_up
from stages.lib.training.outcome import measure, model_card, write_curves
from stages.lib.training.schedule import Schedule
from stages.lib.training.selection import MIN_LINES_FOR_CER, KeepBest, make_cer_reader
from stages.lib.training.trainer import (
    CachedSamples,
    MarkCompleteCheckpoints,
    TokenWeightedTrainer,
    last_complete_checkpoint,
)
from stages.lib.vision.features import FeatureCache, VisionInput, compute_vision_tokens
from stages.lib.vision.pictures import PictureCollator, Pictures
from stages.lib.vision.views import read_view_sizes

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
    read_cer: Callable[[Any], float] | None


def main() -> None:
    params = read_params()
    if start_processes("stages.train", params.runtime.processes):
        return
    refuse_blockers(check_environment(gather_environment(params.runtime)))  # it may have changed since `check` ran
    device = set_up(params.runtime)
    set_seed(params.train.seed)
    datasets = prepare_datasets(params)
    model = set_up_lora(params, device)
    keep_best = create_keep_best(datasets, params)
    trainer = create_trainer(model, datasets, params, keep_best)
    before = trainer.mean_loss(datasets.val)
    with alone_in(Path(str(trainer.args.output_dir))):
        train(trainer, keep_best)
        selected = select(trainer, keep_best)
        metrics = measure(trainer, datasets.train, datasets.val, datasets.vocabulary, before)
        metrics["selected_step"] = selected
        if processes.number():
            return
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
            min(params.train.max_tokens, params.train.batch_tokens or params.train.max_tokens),
            with_copies=split == "train",
            pictures=pictures,
        )
        for split in ("train", "val")
    }
    if params.train.batch_size % processes.count():
        raise Refusal(
            f"train.batch_size is {params.train.batch_size}, which {processes.count()} processes cannot share evenly; "
            "set it to a multiple of runtime.processes"
        )
    if params.train.batch_size > len(sets["train"]) and params.train.batch_tokens is None:
        raise Refusal(
            f"train.batch_size is {params.train.batch_size}, but there are only {len(sets['train'])} training views; "
            f"set it to at most {len(sets['train'])}"
        )
    read_cer = None
    if params.train.cer_lines:
        val = [sample for sample in samples if sample.split == "val"]

        def tokens_of(model: Any, image_id: str) -> torch.Tensor:
            return compute_vision_tokens(model, pictures.views(image_id)) if pictures else cache.tokens(image_id)

        read_cer = make_cer_reader(val, tokens_of, tokenizer, special, params.transcribe, params.train.cer_lines)
    return Datasets(sets["train"], sets["val"], collator, tokenizer.get_vocab_size(), read_cer)


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


def create_keep_best(datasets: Datasets, params: Params) -> KeepBest | None:
    """What keeps the best adapter; None where the last one is kept."""
    by = params.train.select
    if by == "last":
        return None
    if by == "cer" and len(datasets.val) < MIN_LINES_FOR_CER:
        print(
            f"train: {len(datasets.val)} validation line(s) are too few to choose by CER ({MIN_LINES_FOR_CER} are the "
            "least); the loss chooses"
        )
        by = "loss"
    return KeepBest(by, params.train.patience)


def create_trainer(
    model: PeftModel, datasets: Datasets, params: Params, keep_best: KeepBest | None = None
) -> TokenWeightedTrainer:
    """Hugging Face's Trainer, its checkpoints in a folder that belongs to exactly this run."""
    schedule = Schedule.of(datasets.train.lengths(), params.train, params.runtime.checkpoint_steps)
    unfinished = checkpoint_folder(
        "train",
        fingerprint(
            params.model,
            params.encode,
            params.train,
            params.transcribe,
            files=[METADATA, FEATURES / "index.json", *model_files(params)],
        ),
    )
    arguments = TrainingArguments(
        output_dir=str(unfinished),
        max_steps=schedule.steps,
        per_device_train_batch_size=params.train.batch_size // processes.count(),
        per_device_eval_batch_size=params.train.batch_size // processes.count(),
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
        disable_tqdm=processes.number() > 0,
        ddp_find_unused_parameters=False,
    )
    trainer = TokenWeightedTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.train,
        eval_dataset=datasets.val,
        data_collator=datasets.collator,
        callbacks=[MarkCompleteCheckpoints(), *([keep_best] if keep_best else [])],
    )
    trainer.read_cer = datasets.read_cer
    trainer.batch_tokens = params.train.batch_tokens
    return trainer


def model_files(params: Params) -> list[Path]:
    """What identifies the base model in the fingerprint: the small files, and for a local folder the weights."""
    folder = find_model(params.model.name_or_path, params.model.revision, weights=False)
    weights = [] if params.model.revision else list(folder.glob("*.safetensors"))
    return sorted([*folder.glob("*.json"), *weights])


def train(trainer: TokenWeightedTrainer, keep_best: KeepBest | None = None) -> None:
    """Run to the end, from the last complete checkpoint if there is one."""
    checkpoint = last_complete_checkpoint(Path(str(trainer.args.output_dir)))
    if checkpoint:
        print(f"train: goes on from {checkpoint.name} of an interrupted run")
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        stopped = keep_best is not None and keep_best.has_run_out(state.log_history)
        if stopped or state.global_step >= trainer.args.max_steps:  # it was over: the Trainer would take another step
            trainer.state = state
            load_adapter_weights(trainer.model, checkpoint)
            return
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def select(trainer: TokenWeightedTrainer, keep_best: KeepBest | None) -> int:
    """Put the adapter that is kept into the model; the step that it is from."""
    if keep_best is None:
        return trainer.state.global_step
    step, folder = keep_best.best_folder(Path(str(trainer.args.output_dir)), trainer.state.log_history)
    load_adapter_weights(trainer.model, folder)
    return step


def save(trainer: TokenWeightedTrainer, metrics: dict[str, Any], params: Params) -> None:
    """Adapter, model card, metrics and curves; then the checkpoints may go."""
    model: Any = trainer.model
    unfinished = ADAPTER.with_name(f"{ADAPTER.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_adapter(model, unfinished, params.model.name_or_path)
    write_text(unfinished / "README.md", model_card(metrics, params))
    shutil.rmtree(ADAPTER, ignore_errors=True)
    unfinished.replace(ADAPTER)  # so that half an adapter never has this name
    write_json(METRICS, metrics)
    write_curves(CURVES, trainer.state.log_history)
    shutil.rmtree(str(trainer.args.output_dir), ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
