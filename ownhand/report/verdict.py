"""The verdict: numbers of summary.json as plain sentences, careful to say no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["improved", "worse", "open", "too few"]

PAGES_FOR_GOOD_INTERVALS = 20  # below it, percentile bootstrap intervals over clusters come out too narrow
WORD_LETTERS = 8  # of the example that shows how little a short validation set can say
MOST_FREQUENT = 3  # confusions named in the verdict
GOOD_GUIDE, SOME_GUIDE = -0.5, -0.2  # rank correlations of confidence and CER at which it is called a guide
NBSP = "\u00a0"


@dataclass(frozen=True)
class Verdict:
    """headline: the rates; answer: has it improved; sureness: why one may believe it; limits: what it cannot say."""

    state: State
    headline: str
    answer: str
    sureness: str
    limits: tuple[str, ...]


def percent(share: float | None, digits: int = 1) -> str:
    """0.1234 as "12.3 %" with a no-break space; None as a dash."""
    return "–" if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 line", "2 lines", "1,200 characters"."""
    return f"{number:,}{NBSP}{noun}" + ("" if number == 1 else "s")


def interval(low: float, high: float) -> str:
    """Two shares as "9.1–16.0 %"; a lower end below zero is written out: "−1.2 to 3.4 %"."""
    if low < 0:
        return f"{100 * low:.1f} to {100 * high:.1f}{NBSP}%".replace("-", "−")
    return f"{100 * low:.1f}–{100 * high:.1f}{NBSP}%"


def judge(summary: dict[str, Any], confidence_level: float, min_pages: int) -> Verdict:
    """The verdict on the content of summary.json.

    "improved" and "worse" need both: an interval of the difference clear of zero and a p-value below
    1 - `confidence_level`. "too few" means that summary.json gives no interval.
    """
    difference = summary["difference"]
    if difference["cer_low"] is None:
        return _too_few(summary, min_pages)
    significant = difference["p_value"] < 1 - confidence_level
    state: State = "open"
    if significant and difference["cer_low"] > 0:
        state = "improved"
    elif significant and difference["cer_high"] < 0:
        state = "worse"
    return Verdict(
        state=state,
        headline=_headline(summary, confidence_level),
        answer=_answer(summary, state),
        sureness=_sureness(summary, confidence_level),
        limits=(*_text_limits(summary), *_page_limits(summary["n_pages"]), *_general_limits()),
    )


def _headline(summary: dict[str, Any], confidence_level: float) -> str:
    base, adapter = summary["base"], summary["adapter"]
    level = f"{100 * confidence_level:g}{NBSP}%"
    with_interval = f" ({level} interval {interval(adapter['cer_low'], adapter['cer_high'])})"
    return f"The adapter {_reads(adapter['cer'])}{with_interval}; the base model alone {_alone(base['cer'])}."


def _reads(cer: float) -> str:
    if cer > 1:
        return f"makes more errors than there are characters: {percent(cer)}"
    return f"reads {percent(cer)} of the characters wrong"


def _alone(cer: float) -> str:
    return f"makes more errors than there are characters: {percent(cer)}" if cer > 1 else percent(cer)


def _answer(summary: dict[str, Any], state: State) -> str:
    relative = summary["difference"]["relative"]
    if state == "improved":
        return f"Yes, it has improved: {percent(relative, 0)} fewer character errors than the base model."
    if state == "worse":
        more = "" if relative is None else f": {percent(-relative, 0)} more character errors than the base model"
        return f"No, it has become worse{more}."
    return "Not shown: these pages do not tell the adapter from the base model."


def _sureness(summary: dict[str, Any], confidence_level: float) -> str:
    difference = summary["difference"]
    low, high, p_value = difference["cer_low"], difference["cer_high"], difference["p_value"]
    clear = "clear of zero" if low > 0 or high < 0 else "which includes zero"
    chance = "less than 0.1" if p_value < 0.001 else f"{100 * p_value:.1f}"
    ends = f"{100 * low:.1f} to {100 * high:.1f}".replace("-", "−")
    return (
        f"The base model’s rate is {_points(difference['cer'])} percentage points above the adapter’s "
        f"({100 * confidence_level:g}{NBSP}% interval {ends}, {clear}). If the adapter changed nothing, a difference "
        f"this large would turn up by chance in {chance}{NBSP}% of cases. Both figures draw whole pages, because lines "
        "of one page resemble each other."
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")


def _too_few(summary: dict[str, Any], min_pages: int) -> Verdict:
    base, adapter = summary["base"]["cer"], summary["adapter"]["cer"]
    lines, pages, characters = summary["n_lines"], summary["n_pages"], summary["n_characters"]
    on = "on the one validation line" if lines == 1 else f"on {count(lines, 'validation line')}"
    here = "this line" if lines == 1 else "these lines"
    seen = f"Here the adapter made {_comparison(base, adapter)} the base model; that is no evidence for other pages."
    limits = (
        f"It can tell how {here} {'was' if lines == 1 else 'were'} read (compare picture and reading below), and that "
        "the pipeline runs from photograph to text.",
        f"It cannot tell how well the next page will be read. One misread word of {WORD_LETTERS} letters moves the "
        f"rate by {100 * WORD_LETTERS / characters:.1f} percentage points, and other validation samples would give "
        "another rate.",
        f"To get an answer, annotate lines from more pages, so that at least {count(min_pages, 'page')} can be kept "
        f"for validation ({PAGES_FOR_GOOD_INTERVALS} or more make a good interval).",
    )
    return Verdict(
        state="too few",
        headline=f"The adapter {_reads(adapter)} {on}; the base model alone {_alone(base)}.",
        answer=f"Too few to say: {count(lines, 'validation line')} from {count(pages, 'page')}.",
        sureness=f"{seen} With fewer than {count(min_pages, 'page')} an interval would be fiction, so none is given.",
        limits=(*_text_limits(summary), *limits),
    )


def _comparison(base: float, adapter: float) -> str:
    if adapter == base:
        return "as many errors as"
    return "fewer errors than" if adapter < base else "more errors than"


def _text_limits(summary: dict[str, Any]) -> tuple[str, ...]:
    note = describe_trained_texts(summary)
    return (note,) if note else ()


def describe_trained_texts(summary: dict[str, Any]) -> str | None:
    """How many lines have a text that was trained on, too, and the rates without them; None where there are none.

    `summary` is summary.json or its part `cross_validation`.
    """
    trained, lines = summary["n_lines_trained_texts"], summary["n_lines"]
    base, adapter = summary["base"], summary["adapter"]
    if not trained:
        return None
    if trained == lines:
        return (
            "Each of these lines has a text that was trained on, too, in another picture: nothing here tells reading "
            "from reciting. Add pages with other texts."
        )
    return (
        f"{count(trained, 'line')} of {lines:,} {'has' if trained == 1 else 'have'} a text that was trained on, too, "
        "in another picture (a greeting, a date, a page number). Without them the adapter reads "
        f"{percent(adapter['cer_unseen_texts'])} of the characters wrong instead of {percent(adapter['cer'])}, the "
        f"base model alone {percent(base['cer_unseen_texts'])} instead of {percent(base['cer'])}."
    )


def _page_limits(pages: int) -> tuple[str, ...]:
    if pages >= PAGES_FOR_GOOD_INTERVALS:
        return ()
    return (
        f"{count(pages, 'validation page')} are few: the intervals are approximate and somewhat too narrow "
        f"(from {PAGES_FOR_GOOD_INTERVALS} pages on they can be trusted).",
    )


def _general_limits() -> tuple[str, ...]:
    return (
        "It holds for pages like these: the same hand, paper, pen and way of taking photographs.",
        "If settings were chosen by comparing this very number, it is too good; new pages will tell.",
    )


def describe_cost(summary: dict[str, Any]) -> str:
    """The less rosy figures, from summary.json: words, lines without an error, and what print has cost."""
    base, adapter, retention = summary["base"], summary["adapter"], summary["retention"]
    exact = round(adapter["exact_match"] * summary["n_lines"])
    told = (
        f"Counted in words, {percent(adapter['wer'])} are wrong (base model {percent(base['wer'])}); "
        f"{exact or 'none'} of {count(summary['n_lines'], 'line')} {'is' if exact == 1 else 'are'} without any error."
    )
    if retention["lost"]:
        more = "more" if retention["lost"] > 0 else "fewer"
        told += (
            f" In print it makes {more} errors than before: {percent(retention['adapter_cer'])} of the characters are "
            f"wrong (base model {percent(retention['base_cer'])})."
        )
    return told


def describe_reading(reads: dict[str, Any], recites: bool) -> str:
    """Whether it looks at the pictures or recites, from `reads` of summary.json and what proof.py found.

    A model that looks at its pictures must make far more errors when it is shown others, or none.
    """
    wrong = [
        f"with {words} {percent(reads[key])}"
        for key, words in (
            ("cer_swapped_pictures", "the pictures of other lines"),
            ("cer_blank_pictures", "blank pictures"),
        )
        if reads[key] is not None
    ]
    figures = f"with its own pictures {percent(reads['cer'])} of the characters are wrong, {', '.join(wrong)}"
    on = f"({count(reads['n_lines'], 'line')})"
    if recites:
        return f"It may recite rather than read: {figures} {on}."
    return f"It looks at the pictures: {figures} {on}."


def describe_confusions(confusions: Sequence[tuple[str, str, int]]) -> str:
    """The most frequent confusions in words."""
    if not confusions:
        return "Nothing: every character was read."
    named = [
        f"{_confusion(written, read)} ({count(times, 'time')})" for written, read, times in confusions[:MOST_FREQUENT]
    ]
    shown, errors = (sum(times for *_, times in part) for part in (confusions[:MOST_FREQUENT], confusions))
    return f"Most often: {', '.join(named)}. That is {shown} of {count(errors, 'error')}."


def _confusion(written: str, read: str) -> str:
    if not written:
        return f"{_quoted(read)} read where nothing is written"
    return f"{_quoted(written)} not read" if not read else f"{_quoted(written)} read as {_quoted(read)}"


def _quoted(character: str) -> str:
    return "a space" if character == " " else f"“{character}”"


def describe_next(characters: Sequence[str]) -> str:
    """What to annotate next, from the characters that are often wrong and rare in training."""
    if not characters:
        return "More pages like these: no single character stands out as both hard and rare in training."
    return (
        f"Lines with {', '.join(_quoted(character) for character in characters)}: often wrong here, and among the "
        "rarest in training."
    )


def describe_confidence(correlation: float | None) -> str | None:
    """Whether a low confidence means a high CER, from the rank correlation of the two; None without one."""
    if correlation is None:
        return None
    figure = f"(rank correlation of confidence and CER {correlation:.2f}; −1 would be a perfect guide)".replace(
        "-", "−"
    )
    if correlation <= GOOD_GUIDE:
        return f"Yes: the less certain lines are the worse ones {figure}."
    if correlation <= SOME_GUIDE:
        return f"Somewhat: less certain lines tend to be worse {figure}."
    return f"No: on these lines confidence is no guide {figure}."


def describe_loss(train: dict[str, Any]) -> str | None:
    """The validation loss with own and swapped pictures, from train.json; None when it is missing or of one line."""
    loss, swapped = train.get("val_loss"), train.get("val_loss_swapped_pictures")
    if loss is None or swapped is None or train.get("val_lines") == 1:
        return None
    return f"The validation loss per token is {loss:.2f} with own pictures, {swapped:.2f} with those of other lines."
