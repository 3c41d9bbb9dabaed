"""One training run, from samples on two sides to a trained adapter: for `train`, and for each fold of a
cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerState, TrainingArguments

from ownhand import processes
from ownhand.errors import Refusal
from ownhand.model.adapter import add_adapter, load_adapter_weights, lora_config, needs_pictures
from ownhand.model.base import BaseModel
from ownhand.model.views import compute_vision_tokens
from ownhand.params import Params
from ownhand.samples import SIDES, Sample
from ownhand.training.batches import VisionCollator
from ownhand.training.checkpoints import SealCheckpoints, last_whole_checkpoint
from ownhand.training.schedule import Schedule
from ownhand.training.selection import MIN_LINES_FOR_CER, KeepBest, make_cer_reader
from ownhand.training.trainer import CachedSamples, TokenWeightedTrainer
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures
from ownhand.vision.rehearsal import rehearsal_samples


@dataclass(frozen=True)
class Datasets:
    """Training samples with their augmented copies, validation samples, and the collator for both.

    see: (model, image id) -> vision tokens of a picture as this model sees it, (tokens, width).
    """

    train: CachedSamples
    val: CachedSamples
    collator: VisionCollator
    vocabulary: int
    see: Callable[[Any, str], torch.Tensor]
    read_cer: Callable[[Any], float] | None


def prepare_datasets(params: Params, samples: Sequence[Sample], cache: FeatureCache) -> Datasets:
    """`samples` by their side, with ids, labels and cached vision tokens; rehearsal lines train beside them.

    Refusal when the batch exceeds the training set.
    """
    base = BaseModel.open(params, weights=False)
    sides = {split: [sample for sample in samples if sample.split == split] for split in SIDES}
    sides["train"] += rehearsal_samples(params.train.rehearsal_share, sides["train"])
    everything = [*sides["train"], *sides["val"]]
    pictures = Pictures(everything, params.encode) if needs_pictures(params.train.lora_targets) else None
    collator = VisionCollator(base.special, base.dtype)
    sets = {
        split: CachedSamples(
            own,
            cache,
            base,
            min(params.train.max_tokens, params.train.batch_tokens or params.train.max_tokens),
            with_copies=split == "train",
            pictures=pictures,
        )
        for split, own in sides.items()
    }
    if params.train.batch_size % processes.count():
        raise Refusal(
            f"train.batch_size is {params.train.batch_size}, which {processes.count()} processes cannot share evenly; "
            "set it to a multiple of runtime.processes"
        )
    if params.train.batch_size > len(sets["train"]) and params.train.batch_tokens is None:
        raise Refusal(
            f"train.batch_size is {params.train.batch_size}, but there are only {len(sets['train'])} training "
            f"examples; set it to at most {len(sets['train'])}"
        )

    def see(model: Any, image_id: str) -> torch.Tensor:
        if pictures is None:
            return cache.tokens(image_id)
        return compute_vision_tokens(model, base.view_rules.views(pictures.image(image_id)))

    read_cer = None
    if params.train.cer_lines:
        read_cer = make_cer_reader(sides["val"], see, base, params.transcribe, params.train.cer_lines)
    return Datasets(sets["train"], sets["val"], collator, base.tokenizer.get_vocab_size(), see, read_cer)


def set_up_lora(params: Params, device: torch.device) -> PeftModel:
    """The frozen decoder with a fresh adapter; the vision tower is left on the disk unless it is a target."""
    model = BaseModel.open(params).load(
        device, vision=needs_pictures(params.train.lora_targets), expert_weights=params.train.expert_weights
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
    model: PeftModel, datasets: Datasets, params: Params, unfinished: Path, keep_best: KeepBest | None = None
) -> TokenWeightedTrainer:
    """Hugging Face's Trainer, its checkpoints in `unfinished`, a folder that belongs to exactly this run."""
    schedule = Schedule.of(datasets.train.lengths(), params.train, params.runtime.checkpoint_steps)
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
        seed=params.train.seed,
        data_seed=params.train.seed,
        use_cpu=model.device.type == "cpu",  # else accelerate sees no second process on a CPU
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        ddp_find_unused_parameters=False,
    )
    if arguments.world_size != processes.count():
        raise RuntimeError(f"{processes.count()} processes, but the Trainer sees {arguments.world_size}")
    trainer = TokenWeightedTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.train,
        eval_dataset=datasets.val,
        data_collator=datasets.collator,
        callbacks=[SealCheckpoints(keep_best.name_best), keep_best] if keep_best else [SealCheckpoints()],
    )
    trainer.read_cer = datasets.read_cer
    trainer.batch_tokens = params.train.batch_tokens
    return trainer


def train(trainer: TokenWeightedTrainer, keep_best: KeepBest | None = None) -> None:
    """Run to the end, from the last whole checkpoint if there is one."""
    checkpoint = last_whole_checkpoint(Path(str(trainer.args.output_dir)))
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
