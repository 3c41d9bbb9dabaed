"""The table: every reader's error rates with their intervals, and how far each is from our adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.readers.peers import Training
from ownhand.errors import Refusal
from ownhand.evaluation.readings import ScoredLine
from ownhand.evaluation.summary import Rate
from ownhand.evaluation.uncertainty import Interval
from ownhand.files import write_text

BEGIN, END = "<!-- readers: python -m benchmarks.readers writes from here -->", "<!-- readers: to here -->"
OURS = {"adapter": "ours, with the adapter", "base": "ours, base model alone"}


@dataclass(frozen=True)
class Peer:
    """A reader that is not ours: its name among the rates, its description, its prediction file, and its training."""

    name: str
    description: str
    predictions: Path
    training: Training | None


def make_table(
    lines: Sequence[ScoredLine],
    rates: Sequence[Rate],
    peers: Sequence[Peer],
    confidence_level: float,
    training_lines: int,
    command: str,
) -> str:
    """Markdown: a row for each reader, ours first, and under it what was compared and the command that did it."""
    by_name = {(rate.reader, rate.name): rate for rate in rates}
    described = OURS | {peer.name: peer.description for peer in peers}
    level = f"{confidence_level:.0%}".replace("%", " %")
    rows = [
        f"| reader | CER ({level} interval) | minus the adapter's | p | WER | exact lines | beside the adapter |",
        "|---|---|---|---|---|---|---|",
    ]
    for reader, description in described.items():
        cer = by_name[reader, "cer"]
        cells = (
            description,
            f"{_percent(cer.value)}{_between(cer.interval)}",
            "" if reader == "adapter" else f"{_points(cer.difference)}{_between(cer.difference_interval)}",
            "" if cer.p_value is None else f"{cer.p_value:.2g}",
            _percent(by_name[reader, "wer"].value),
            _percent(by_name[reader, "exact_match"].value),
            "" if reader == "adapter" else judge(cer, confidence_level),
        )
        rows.append(f"| {' | '.join(cells)} |")
    pages = len({line.page for line in lines})
    notes = [
        f"`{command}`: {len(lines)} validation lines of {pages} page{'' if pages == 1 else 's'}, {training_lines} "
        "training lines. Intervals and p draw whole pages; differences are paired, both readers on the same pages.",
        *(_word_training(peer) for peer in peers if peer.training),
    ]
    return "\n".join([*rows, "", *notes])


def judge(cer: Rate, confidence_level: float) -> str:
    """A reader beside the adapter in words; a difference counts when interval and p-value both say so."""
    interval, p_value = cer.difference_interval, cer.p_value
    if interval is None or p_value is None:
        return "too few pages to say"
    if p_value < 1 - confidence_level and interval.low > 0:
        return "worse"
    if p_value < 1 - confidence_level and interval.high < 0:
        return "**better: ours loses**"
    return "no difference shown"


def replace_table(path: Path, table: str | None) -> None:
    """Put `table` between the markers of a Markdown file; None only looks for them.

    Raises Refusal when the file or its two markers, in order, are missing.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Refusal(f"{path.as_posix()} needs two lines between which the table goes:\n{BEGIN}\n{END}")
    if table is not None:
        write_text(path, f"{before}{BEGIN}\n{table}\n{END}{after}")


def _word_training(peer: Peer) -> str:
    took = peer.training
    assert took
    return (
        f"{peer.name}: {took.epochs} epochs on {took.lines} of the training lines, the other {took.stopping_lines} "
        f"told it when to stop; {took.cpu_seconds / 60:.0f} minutes of one core."
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _between(interval: Interval | None) -> str:
    return f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else ""
