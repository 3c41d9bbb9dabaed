"""What the Trainer needs from us: samples from the cache, and a loss in which every token weighs the same."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from ownhand import processes
from ownhand.errors import Refusal
from ownhand.files import writing
from ownhand.model.adapter import load_adapter_weights
from ownhand.model.base import BaseModel
from ownhand.model.loss import label_logits_loss
from ownhand.model.sequence import IGNORED_LABEL, SequenceTooLong, build_training_ids
from ownhand.progress import Lines, is_watched
from ownhand.samples import Sample
from ownhand.training.batches import LengthBuckets, cut_in_order
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures, copy_keys
from ownhand.vision.rehearsal import is_rehearsal

LOSS_REMEDY = "Lower train.learning_rate, or use model.dtype bfloat16 or float32 instead of float16"


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A transcription and the picture, or augmented copy of one, that it is trained with.

    key: of the picture's vision tokens; vision_tokens: their number; tokens: of the whole sequence.
    """

    image_id: str
    key: str
    text: str
    vision_tokens: int
    tokens: int


class CachedSamples(Dataset[dict[str, Any]]):
    """Every sample once, or once per augmented copy, with its vision tokens from the cache.

    Ids and labels are built when they are asked for. With `pictures` the samples bring views instead: the vision tower
    is then part of what is trained. Raises Refusal with the names of all samples whose sequence exceeds `max_tokens`:
    cutting would remove eos.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        cache: FeatureCache,
        base: BaseModel,
        max_tokens: int,
        with_copies: bool,
        pictures: Pictures | None = None,
    ) -> None:
        self.cache = cache
        self.base = base
        self.max_tokens = max_tokens
        self.pictures = pictures
        self.examples: list[TrainingExample] = []
        too_long = []
        for sample in samples:
            if pictures:
                keys = [sample.image_id, *copy_keys(sample.image_id, pictures.encode.copies)]
            else:
                keys = cache.keys_of(sample.image_id)
            for key in keys if with_copies else keys[:1]:
                count = base.view_rules.count_tokens(*pictures.size(key)) if pictures else cache.count(key)
                try:
                    tokens = len(self._ids(count, sample.text)[0])
                except SequenceTooLong as error:
                    too_long.append(f"{sample.original_filename} ({key}): {error}")
                    continue
                self.examples.append(TrainingExample(sample.image_id, key, sample.text, count, tokens))
        if too_long:
            raise Refusal(
                "these samples do not fit train.max_tokens or, where it is set, train.batch_tokens; raise it, shorten "
                "the texts or use an encode.mode with fewer vision tokens:\n  " + "\n  ".join(too_long)
            )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A sample; behind the end the same once more, without labels (see LengthBuckets)."""
        example = self.examples[index % len(self.examples)]
        ids, labels = self._ids(example.vision_tokens, example.text)
        if index >= len(self.examples):
            labels = [IGNORED_LABEL] * len(labels)
        row = {"image_id": example.image_id, "input_ids": ids, "labels": labels}
        if self.pictures is not None:
            return {**row, "views": self.base.view_rules.views(self.pictures.image(example.key))}
        return {**row, "vision_tokens": self.cache.tokens(example.key)}

    def _ids(self, vision_tokens: int, text: str) -> tuple[list[int], list[int]]:
        return build_training_ids(self.base.tokenizer, self.base.special, vision_tokens, text, self.max_tokens)

    def lengths(self) -> list[int]:
        """Tokens of each sequence, without reading a vision token."""
        return [example.tokens for example in self.examples]

    def without_copies(self, most: int) -> CachedSamples:
        """At most so many of the hand's pictures themselves, evenly spread."""
        own = [one for one in self.examples if one.key == one.image_id and not is_rehearsal(one.image_id)]
        count = min(most, len(own))
        chosen = copy(self)
        chosen.examples = [own[i * len(own) // count] for i in range(count)]
        return chosen

    def with_swapped_pictures(self) -> CachedSamples:
        """The same texts, each with the picture of the next sample that has another text."""
        swapped = copy(self)
        swapped.max_tokens = sys.maxsize  # another picture may have more tokens
        swapped.examples = []
        for i, example in enumerate(self.examples):
            others = (self.examples[(i + step) % len(self)] for step in range(1, len(self)))
            other = next((other for other in others if other.text != example.text), example)
            tokens = example.tokens - example.vision_tokens + other.vision_tokens
            swapped.examples.append(
                TrainingExample(example.image_id, other.key, example.text, other.vision_tokens, tokens)
            )
        return swapped


class TokenWeightedTrainer(Trainer):
    """Hugging Face's Trainer with the loss over label positions only, every token weighing the same.

    A batch of 8 and 8 accumulated batches of 1 therefore give the same gradient.
    """

    model: Any
    read_cer: Callable[[Any], float] | None = None  # model -> CER on validation lines, for the curve
    batch_tokens: int | None = None  # the most tokens of a batch, all processes together
    model_accepts_loss_kwargs = True  # the Trainer then counts the labels of a whole accumulated step

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if processes.number() or not is_watched():
            self.remove_callback(ProgressCallback)
            self.remove_callback(PrinterCallback)
            if processes.number() == 0:
                self.add_callback(ProgressLines())

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        total, count = label_logits_loss(model, inputs)
        loss = total / (num_items_in_batch if num_items_in_batch is not None else count)
        if num_items_in_batch is not None:
            loss = loss * processes.count()  # gradients are averaged over processes, num_items is of all together
        if not torch.isfinite(loss):
            raise Refusal(
                f"the loss is {float(loss.detach())} at step {self.state.global_step} in a batch with the samples "
                f"{', '.join(inputs['image_ids'])}; the last checkpoint stays. "
                f"{LOSS_REMEDY}"
            )
        return (loss, {}) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of like length. They are shared out already: for accelerate this is the only process."""
        samples: Any = self.train_dataset
        batch_size = self.args.train_batch_size * processes.count()
        batches = LengthBuckets(samples.lengths(), batch_size, int(self.args.data_seed or 0), self.batch_tokens)
        beside: dict[str, Any] = {}
        if samples.pictures is not None:  # copies are drawn while the model works; a fork of its threads could hang
            beside = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "spawn"}
        loader = DataLoader(samples, batch_sampler=batches, collate_fn=self.data_collator, **beside)
        ready: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return ready

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """As the Trainer does it, but what a full disk has left half goes again at once."""
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
        except Refusal:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_adapter_weights(self.model if model is None else model, Path(resume_from_checkpoint))

    def evaluate(self, eval_dataset: Any = None, **_: Any) -> dict[str, float]:  # type: ignore[override]
        """Mean loss per label over the validation samples, and their CER when there is a reader."""
        metrics = {"eval_loss": self.mean_loss(self.eval_dataset if eval_dataset is None else eval_dataset)}
        if self.read_cer is not None:
            metrics["eval_cer"] = self.read_cer(self.model)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def mean_loss(self, dataset: Any) -> float:
        """Mean cross-entropy per label, in nats."""
        model: Any = self.model
        model.eval()
        total = count = 0.0
        own = processes.share(range(len(dataset)))
        lengths = dataset.lengths()
        batches = cut_in_order([lengths[i] for i in own], self.args.per_device_eval_batch_size, self.batch_tokens)
        for batch in DataLoader(Subset(dataset, own), batch_sampler=batches, collate_fn=self.data_collator):
            loss, labels = label_logits_loss(model, self._prepare_inputs(batch))
            total, count = total + float(loss), count + float(labels)
        model.train()
        parts = processes.gather((total, count))
        mean = float(sum(part[0] for part in parts) / sum(part[1] for part in parts))
        if not math.isfinite(mean):
            raise Refusal(
                f"the loss on {len(dataset)} sequences is {mean} after step {self.state.global_step}: the last step "
                f"was too large, or the numbers do not fit {model.dtype}. {LOSS_REMEDY}"
            )
        return mean


class ProgressLines(TrainerCallback):
    """Tells of a training that nobody watches: a line every so often, and one for each evaluation."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.lines: Lines[Any] = Lines((), total=state.max_steps, what="training", unit="step", done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.lines.update(state.global_step - self.lines.done)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        assert metrics is not None
        cer = f", CER {metrics['eval_cer']:.1%}" if "eval_cer" in metrics else ""
        loss = f"loss on validation {metrics['eval_loss']:.3f}{cer}"
        print(f"training: step {state.global_step:,} of {state.max_steps:,}: {loss}", file=sys.stderr, flush=True)
