"""Findings of the readiness report: their codes, and how they are shown.

A code names a question; the finding is its answer on this machine and these samples. Codes are stable and explained
in docs/findings.md.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ready", "warning", "blocker"]
LEVELS: tuple[Level, ...] = ("blocker", "warning", "ready")
PAGE = "docs/findings.md"
INDENT = 19  # of the second column in the terminal
WIDTHS = (72, 140)  # of the terminal's text, at least and at most

# code: (what is asked, why it matters)
CATALOGUE: dict[str, tuple[str, str]] = {
    "ENV-001": ("Python", "Older versions lack what the code uses."),
    "ENV-002": ("Packages", "Other versions than the tested ones read the same model differently, or not at all."),
    "ENV-003": ("Kernels for the GPU", "A torch that was built before the GPU stops with “no kernel image”."),
    "ENV-004": ("CUDA in torch", "A torch without CUDA leaves the GPU idle and takes days instead of hours."),
    "ENV-005": ("Device", "The device that runtime.device asks for must be there."),
    "ENV-006": ("Driver of the GPU", "A driver older than torch's CUDA hides the GPU from torch."),
    "ENV-007": ("Disk", "A full disk ends a run in its middle."),
    "ENV-009": ("Length of paths", "Windows refuses paths of more than 259 characters."),
    "ENV-010": ("Threads", "More threads than cores get in each other's way."),
    "ENV-011": ("Speed of the device", "Billions of weights need a GPU: a CPU takes seconds for one line."),
    "ENV-012": ("Processes", "More processes than there are GPUs, or cores, fail or stand in each other's way."),
    "ENV-013": ("Four bits", "Experts in nf4 need bitsandbytes, and a device for which it is used."),
    "CONF-001": ("Parameters", "A value that cannot be meant is found before anything runs."),
    "CONF-002": ("Batch against training set", "A batch that the training set cannot fill is never what was meant."),
    "CONF-003": ("Effective batch", "batch_size x accumulation is the number of sequences behind each step."),
    "CONF-004": ("Warm-up", "In a run that ends before its warm-up, the learning rate never arrives."),
    "CONF-005": ("Checkpoints", "Without a checkpoint before the end, an interruption costs the whole run."),
    "CONF-006": ("Evaluations", "A loss that is measured at the end only cannot show when learning stopped."),
    "CONF-007": (
        "Number format",
        "In float16 small gradients are zero, large ones infinite; nothing scales them.",
    ),
    "CONF-008": ("bfloat16 on this device", "GPUs before compute capability 8.0 have no bfloat16 units."),
    "CONF-009": ("Mode", "Each model knows certain view sizes; others have no meaning for it."),
    "CONF-010": ("Tiles", "Pictures are cut as the model was trained and will be served, or it sees new shapes."),
    "CONF-011": ("Length limit", "Positions beyond the model's limit were never trained."),
    "CONF-012": ("LoRA targets", "A target that matches no weight trains nothing."),
    "CONF-013": ("Attention", "The attention implementation must exist for this model."),
    "CONF-014": ("Optimizer steps", "A handful of steps teaches nothing."),
    "CONF-015": ("Length of predictions", "A limit below the longest transcription cuts what could be right."),
    "CONF-016": ("Shape of the lines", "A mode that squashes a long line into a square makes its letters unreadable."),
    "CONF-017": ("Token budget", "A sequence that is longer than a batch may be fits into none."),
    "CONF-018": ("Size of the letters", "Letters smaller than a base model was trained on are recited, not read."),
    "DATA-001": ("Samples", "Training needs at least one sample on each side of the split."),
    "DATA-002": ("Size of the validation set", "Few pages cannot carry a statement about pages not seen."),
    "DATA-003": ("Same text on both sides", "A text that was trained on can be recited instead of read."),
    "DATA-004": ("Text inside a text", "A validation text that stands inside a training text can be recited, too."),
    "DATA-007": ("Unseen characters", "A character that occurs in no training text cannot be learned from this set."),
    "DATA-008": ("Characters in bytes", "A character of several tokens is harder to learn and makes texts longer."),
    "DATA-009": ("Characters that get lost", "What the tokenizer cannot express can never be read."),
    "DATA-010": ("Rejected samples", "What was rejected is missing from the training set."),
    "DATA-011": ("Longest sequence", "A sequence beyond train.max_tokens would have to be cut and is refused."),
    "DATA-012": ("Pictures on the disk", "Every sample needs its picture."),
    "DATA-013": ("Cross-validation", "More folds than groups of pages cannot be made."),
    "DATA-014": ("What is no file", "DVC reads all of data/raw and waits for ever where nothing can be read."),
    "MODEL-001": ("Base model", "The checkpoint must be in a folder, in the cache or within reach."),
    "MODEL-002": ("Revision", "Without its commit a hub id can mean another model tomorrow."),
    "MODEL-003": ("Architecture", "Only architectures whose loading was proven are loaded."),
    "MODEL-004": ("Tensors", "Weights that find no place stay random, and nobody notices."),
    "MODEL-005": ("Memory", "A training step that does not fit the device fails after everything was encoded."),
    "MODEL-006": ("Adapter", "The adapter must fit this model and be a small part of it."),
    "MODEL-007": ("Tokenizer", "Ids of the tokenizer must have a row in the model's embedding."),
    "LEARN-001": ("Four lines by heart", "A model that cannot learn four lines will not learn two hundred."),
    "LEARN-002": ("Base model against guessing", "A base model worse than guessing is loaded or asked wrongly."),
}


@dataclass(frozen=True)
class Finding:
    """The answer to the question of `code`: what was seen and, unless all is well, what to do.

    A blocker cannot work; a warning works, but perhaps not as meant.
    """

    code: str
    level: Level
    seen: str
    remedy: str = ""

    @property
    def title(self) -> str:
        return CATALOGUE[self.code][0]


def ready(code: str, seen: str) -> Finding:
    return Finding(code, "ready", seen)


def warning(code: str, seen: str, remedy: str) -> Finding:
    return Finding(code, "warning", seen, remedy)


def blocker(code: str, seen: str, remedy: str) -> Finding:
    return Finding(code, "blocker", seen, remedy)


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Blockers first, then warnings; in order of the catalogue within a level."""
    codes = list(CATALOGUE)
    return sorted(findings, key=lambda one: (LEVELS.index(one.level), codes.index(one.code), one.seen))


def is_ready(findings: Sequence[Finding]) -> bool:
    return not any(finding.level == "blocker" for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """One line: READY, or NOT READY and why."""
    named = {level: [one.code for one in sort_findings(findings) if one.level == level] for level in LEVELS}
    parts = [
        f"{count(len(codes), level)} ({', '.join(dict.fromkeys(codes))})"
        for level, codes in named.items()
        if codes and level != "ready"
    ]
    if is_ready(findings):
        return "READY: " + ("; ".join(parts) if parts else f"{count(len(findings), 'check')}, nothing to mend")
    return "NOT READY: " + "; ".join(parts)


def as_text(findings: Sequence[Finding]) -> str:
    """The table for the terminal, as wide as that is; what must be mended stands last, above the prompt."""
    width = max(WIDTHS[0], min(shutil.get_terminal_size().columns - 1, WIDTHS[1]))
    lines = []
    for finding in reversed(sort_findings(findings)):
        text = [f"{finding.title}: {finding.seen}"] + ([f"-> {finding.remedy}"] if finding.remedy else [])
        wrapped = [line for part in text for line in _wrap(part, width - INDENT)]
        head = f"{finding.level:<9}{finding.code:<10}"
        lines += [head + wrapped[0], *(" " * INDENT + line for line in wrapped[1:])]
    return "\n".join(lines)


def _wrap(text: str, width: int) -> list[str]:
    return [line for row in text.split("\n") for line in textwrap.wrap(row, width, break_on_hyphens=False)]


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "ready": is_ready(findings),
        "verdict": verdict(findings),
        "findings": [
            {"code": one.code, "title": one.title, "level": one.level, "seen": one.seen, "remedy": one.remedy}
            for one in sort_findings(findings)
        ],
    }


def as_markdown(findings: Sequence[Finding]) -> str:
    rows = [
        f"| {one.level} | [{one.code}](../{PAGE}#{one.code.lower()}) | {one.title} | {_cell(one.seen)} "
        f"| {_cell(one.remedy)} |"
        for one in sort_findings(findings)
    ]
    head = ["| level | code | checked | seen | what to do |", "|---|---|---|---|---|"]
    return "\n".join(["# Readiness for training", "", f"**{verdict(findings)}**", "", *head, *rows]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def gigabytes(number: float) -> str:
    """Bytes as "3.1 GB", small numbers as "12 MB"."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 line", "2 lines"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
