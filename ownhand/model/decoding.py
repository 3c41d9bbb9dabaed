"""Decoding: vision tokens become text, by beam search with one repetition guard, the same for everything we compare."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList

from ownhand import processes
from ownhand.errors import Refusal
from ownhand.files import AppendedLines
from ownhand.model.base import BaseModel
from ownhand.model.sequence import as_image_outputs, build_prompt_ids, pad_batch
from ownhand.params import TranscribeParams
from ownhand.progress import track
from ownhand.samples import Reading, Sample

LOOP_MIN_TOKENS, LOOP_MIN_REPEATS = 20, 4

Row = dict[str, Any]  # of a prediction file


class ConfidenceRecorder(LogitsProcessor):
    """Notes the log-probabilities of the likeliest tokens of every step, after the repetition guard; changes nothing.

    Each step continues a text with one of its 2 * beams likeliest tokens, with the likeliest where there is one beam.
    Keeping the scores of all steps instead would cost batch x beams x steps x vocabulary floats.
    """

    def __init__(self, beams: int) -> None:
        self.kept = 1 if beams == 1 else 2 * beams
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        wide = scores.float()
        best = wide.topk(min(self.kept, wide.shape[-1]), dim=-1)
        self.steps.append((best.indices.cpu(), (best.values - wide.logsumexp(dim=-1, keepdim=True)).cpu()))
        return scores

    def chosen(self, answers: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Log-probability of every token of `answers` (texts, steps).

        rows: of each step's scores, the one that the token continues (texts, steps). A token that is not among the
        likeliest is as likely as the last of them: of equals, generation may have taken another.
        """
        chances = torch.empty(answers.shape)
        for step, (ids, log_probabilities) in enumerate(self.steps[: answers.shape[1]]):
            own = rows[:, step]
            chances[:, step] = log_probabilities[own, -1]
            text, place = (ids[own] == answers[:, step, None]).nonzero(as_tuple=True)
            chances[text, step] = log_probabilities[own][text, place]
        return chances


def as_reader(model: PeftModel, reader: str) -> AbstractContextManager[None]:
    """The model as `reader` has it: "base" is without the adapter."""
    return model.disable_adapter() if reader == "base" else nullcontext()


def transcribe_samples(
    model: Any,
    samples: Sequence[Sample],
    counts: Sequence[int],
    tokens_of: Callable[[str], torch.Tensor],
    base: BaseModel,
    params: TranscribeParams,
    unfinished: Path,
    description: str,
) -> list[Row]:
    """A row of a prediction file for each sample, in order of image id; all processes together, and each gets all.

    `counts` are the samples' numbers of vision tokens, `tokens_of` gives those of an image id. What has been read lies
    in `unfinished`, a name for files that belong to exactly this task: a run that was killed goes on behind it.
    """
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    parts = [unfinished.with_name(f"{unfinished.name}-{number}.jsonl") for number in range(processes.count())]
    with AppendedLines(parts[processes.number()], hashed=True) as lines:
        known = {row["image_id"] for row in lines.kept}
        done = {i for i, sample in enumerate(samples) if sample.image_id in known}
        batches = transcribe_batches(
            model, counts, lambda i: tokens_of(samples[i].image_id), base, params, description, done
        )
        for batch in batches:
            for i, reading in batch.items():
                if i not in done:
                    lines.append(reading.row(samples[i].image_id))
    processes.wait_for_all()
    rows = {row["image_id"]: row for part in parts for row in AppendedLines.read(part, hashed=True)}
    return [rows[sample.image_id] for sample in sorted(samples, key=lambda sample: sample.image_id)]


def transcribe_tokens(
    model: Any,
    vision_tokens: Sequence[torch.Tensor],
    base: BaseModel,
    params: TranscribeParams,
    description: str | None,
) -> list[Reading]:
    """One reading per picture, in order; `vision_tokens` are (tokens, width) tensors. No description, no progress.

    For as many pictures as fit into memory; all processes together read them, and each gets all readings.
    """
    counts = [len(tokens) for tokens in vision_tokens]
    batches = transcribe_batches(model, counts, lambda i: vision_tokens[i], base, params, description)
    own = {i: reading for batch in batches for i, reading in batch.items()}
    readings = {i: reading for part in processes.gather(own) for i, reading in part.items()}
    return [readings[i] for i in range(len(vision_tokens))]


def transcribe_batches(
    model: Any,
    counts: Sequence[int],
    tokens_of: Callable[[int], torch.Tensor],
    base: BaseModel,
    params: TranscribeParams,
    description: str | None,
    done: Container[int] = (),
) -> Iterator[dict[int, Reading]]:
    """This process's readings by number of the picture, batch by batch: no more than one batch is in memory.

    The model sees bos, the picture's vision tokens, the prompt, and goes on from there until eos by beam search: the
    `params.beams` likeliest beginnings are followed at a time, and of the texts that they end as, that of the highest
    mean log-probability per token is the reading.

    `counts` are the pictures' numbers of vision tokens, `tokens_of` gives those of one, (tokens, width). Pictures of
    like size are read together, padded on the left where the attention mask hides it. Batches depend on `counts` alone;
    one whose pictures are all `done` is left out.
    """
    order = sorted(range(len(counts)), key=lambda i: counts[i])
    with track(order, what=description, unit="line") as progress:
        for start in processes.share(range(0, len(order), params.batch_size)):
            part = order[start : start + params.batch_size]
            if not all(i in done for i in part):
                readings = _transcribe_batch(model, [tokens_of(i).to(model.device) for i in part], base, params)
                yield dict(zip(part, readings, strict=True))
            progress.update(len(part))


@torch.inference_mode()
def _transcribe_batch(
    model: Any, vision_tokens: Sequence[torch.Tensor], base: BaseModel, params: TranscribeParams
) -> list[Reading]:
    special = base.special
    prompts = [build_prompt_ids(special, len(tokens)) for tokens in vision_tokens]
    inputs = {name: tensor.to(model.device) for name, tensor in pad_batch(prompts, special.pad, side="left").items()}
    recorder = ConfidenceRecorder(params.beams)
    output = model.generate(
        **inputs,
        mm_encoder_outputs=as_image_outputs(vision_tokens),
        max_new_tokens=params.max_new_tokens,
        do_sample=False,
        num_beams=params.beams,
        no_repeat_ngram_size=params.no_repeat_ngram_size or None,
        logits_processor=LogitsProcessorList([recorder]),
        return_dict_in_generate=True,
        bos_token_id=special.bos,
        eos_token_id=special.eos,
        pad_token_id=special.pad,
    )
    answers = output.sequences[:, inputs["input_ids"].shape[1] :].cpu()
    own_rows = torch.arange(len(answers))[:, None].expand(answers.shape)
    chances = recorder.chosen(answers, output.beam_indices.cpu() if params.beams > 1 else own_rows).tolist()
    return [
        _reading(ids, log_probabilities, base, params.max_new_tokens)
        for ids, log_probabilities in zip(answers.tolist(), chances, strict=True)
    ]


def is_loop(ids: Sequence[int]) -> bool:
    """Whether the ids end in one pattern repeated at least 4 times over at least 20 tokens."""
    for period in range(1, len(ids) // LOOP_MIN_REPEATS + 1):
        span = max(LOOP_MIN_TOKENS, LOOP_MIN_REPEATS * period)
        if len(ids) >= span and all(ids[-k] == ids[-k - period] for k in range(1, span - period + 1)):
            return True
    return False


def _reading(ids: list[int], log_probabilities: list[float], base: BaseModel, limit: int) -> Reading:
    ended = base.special.eos in ids
    text_ids = ids[: ids.index(base.special.eos)] if ended else ids[:limit]
    chosen = log_probabilities[: len(text_ids) + ended]
    if not chosen or not all(map(math.isfinite, chosen)):
        raise Refusal(
            "the model gives no numbers (NaN) for a picture: with model.dtype float16 use bfloat16 or float32; else "
            "the vision tokens in data/features are damaged: run `dvc repro --force --single-item encode`"
        )
    text = base.tokenizer.decode(text_ids, skip_special_tokens=True)
    names = [base.tokenizer.id_to_token(token) or "" for token in text_ids]
    return Reading(
        text=text,
        new_tokens=len(text_ids),
        runaway=not ended or is_loop(text_ids),
        confidence=round(math.exp(sum(chosen) / len(chosen)), 6),
        character_confidence=_by_character(text, names, chosen),
    )


def _by_character(text: str, tokens: list[str], log_probabilities: list[float]) -> tuple[float, ...]:
    """The probability of each code point's token, the lowest of several.

    A byte-level token's name has one character for each byte of the text.
    """
    of_byte = [math.exp(one) for token, one in zip(tokens, log_probabilities, strict=False) for _ in token]
    ends = list(accumulate(len(character.encode()) for character in text))
    if len(of_byte) != (ends[-1] if ends else 0):
        return ()
    return tuple(round(min(of_byte[start:end]), 4) for start, end in pairwise([0, *ends]))


def json_lines(rows: Sequence[Row]) -> str:
    """One JSON object a line, letters readable."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
