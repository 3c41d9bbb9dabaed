"""The store: what a person accepts is in the ground truth, on the disk, before the page is told so; all can be undone.

Every change goes to a journal first, `.checkpoints/correct/journal.jsonl`, then into the file of ground truth, which is
read anew before: an edit made elsewhere stays, and if it was made to the very line, the person is asked.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from ownhand.correction.queue import REASONS, Line, OpenLines, Stamp, stamp_of
from ownhand.correction.rewriting import (
    append_row,
    replace_alto_line,
    replace_cell,
    replace_page_line,
    replace_text_file,
)
from ownhand.errors import Refusal
from ownhand.files import write_atomically, writing
from ownhand.ground_truth.alto_xml import FORMAT as ALTO_XML
from ownhand.ground_truth.annotations import FORMAT as ANNOTATIONS
from ownhand.ground_truth.annotations import NAMES as TABLES
from ownhand.ground_truth.records import File
from ownhand.ground_truth.text_files import FORMAT as TEXT_FILES
from ownhand.text import clean_transcription, is_blank

JOURNAL = "journal.jsonl"
TRIES = 5  # when another program writes the file at the very moment


class ChangedElsewhere(Exception):
    """The line is no longer as the person saw it; `line` is as it is now."""

    def __init__(self, line: Line) -> None:
        super().__init__(line.name)
        self.line = line


@dataclass(frozen=True)
class Entry:
    """A change of one line, as the journal keeps it.

    number: of the entry; at: time in UTC; text_before, text, why_before, why: of the line; seconds: from the moment it
    was shown; proposed: whether the page showed a reading of the model; review: whether it was checked, not
    transcribed; undoes: the number of the entry that this one takes back, with the line as it was before it.
    """

    number: int
    at: str
    name: str
    text_before: str
    text: str
    why_before: str = ""
    why: str = ""
    seconds: float | None = None
    proposed: bool = False
    review: bool = False
    undoes: int | None = None


_ENTRY = TypeAdapter(Entry)


@dataclass(frozen=True)
class Gains:
    """What a person did since the program was started, of each line the last, without what was undone.

    transcribed, set_aside: lines; confirmed, corrected: lines checked and found right or wrong; seconds: median from
    showing to accepting a line, and of those with and without a proposal; None where there is no such line.
    """

    transcribed: int
    set_aside: int
    confirmed: int
    corrected: int
    seconds: float | None
    seconds_with_proposal: float | None
    seconds_without_proposal: float | None

    def __str__(self) -> str:
        counts = {
            "transcribed": self.transcribed,
            "corrected": self.corrected,
            "confirmed": self.confirmed,
            "set aside": self.set_aside,
        }
        done = [f"{count} {what}" for what, count in counts.items() if count]
        if not done:
            return "nothing was changed"
        number, what = done[0].split(" ", 1)
        done[0] = f"{number} line{'' if number == '1' else 's'} {what}"
        times = [f"{self.seconds:.1f} s a line"] if self.seconds is not None else []
        if self.seconds_with_proposal is not None and self.seconds_without_proposal is not None:
            times.append(
                f"{self.seconds_with_proposal:.1f} s with a proposal, {self.seconds_without_proposal:.1f} s without"
            )
        return "; ".join([", ".join(done), *times])


class Store:
    """The lines of a folder as they may be changed, one change at a time; several threads may call.

    folder: where the journal is kept; stands: the changes that were not undone, the last one last.
    """

    def __init__(self, lines: OpenLines, folder: Path) -> None:
        self.lines = lines
        self.journal = folder / JOURNAL
        self.lock = threading.RLock()
        entries = _read_journal(self.journal)
        undone = {entry.undoes for entry in entries}
        self.stands = [entry for entry in entries if entry.undoes is None and entry.number not in undone]
        self.last_of = {entry.name: entry for entry in self.stands}
        self.next_number = self.opened = 1 + max((entry.number for entry in entries), default=0)

    def accept(
        self,
        line: Line,
        seen: str,
        text: str,
        *,
        seconds: float | None = None,
        proposed: bool = False,
        review: bool = False,
    ) -> None:
        """Make `text` the line's transcription; `seen` is the one that the person saw there, "" for none.

        review: even an unchanged text is noted, as checked. ChangedElsewhere when the line has another one by now, with
        nothing written; Refusal for a text that cannot be kept; Unwritable when the disk does not take it.
        """
        text = clean_transcription(text)
        if is_blank(text):
            raise Refusal("an empty text is no transcription")
        if "\N{REPLACEMENT CHARACTER}" in text:
            raise Refusal("the text holds U+FFFD, the trace of a wrong encoding; mend it")
        if "\0" in text:  # a file that holds one is not read at all
            raise Refusal("the text holds U+0000, which no file of ground truth can hold; remove it")
        with self.lock:
            if review or (text, "") != (line.text, line.why):
                self._apply(line, seen, text, "", seconds=seconds, proposed=proposed, review=review)

    def set_aside(self, line: Line, seen: str, why: str) -> None:
        """Take the line out of the ground truth, for a reason of REASONS; raises as `accept` does."""
        if why not in REASONS:
            raise Refusal(f"{why!r} is no reason; reasons are {', '.join(REASONS)}")
        with self.lock:
            self._apply(line, seen, "", why)

    def undo(self) -> tuple[Line, Entry]:
        """Take back the last change that still stands; the line, and the change that was taken back.

        Refusal when there is none, or when the line was changed elsewhere since: that stays, and the next call goes on
        with the change before it.
        """
        with self.lock:
            for entry in reversed(self.stands):
                line = self.lines.by_name.get(entry.name)
                if line is None or line.gone:
                    continue
                self.lines.refresh(line)
                if (line.text, line.why) == (entry.text_before, entry.why_before) and not entry.review:
                    continue  # another program has saved over it, see `overwritten`
                if (line.text, line.why) != (entry.text, entry.why):
                    self._note(line, line.text, line.why, undoes=entry.number)
                    self._forget(entry)
                    raise Refusal(f"{line.label} was changed elsewhere since, and stays as it is")
                self._apply(line, line.text, entry.text_before, entry.why_before, undoes=entry.number)
                self._forget(entry)
                return line, entry
        raise Refusal("there is nothing to undo")

    def overwritten(self, line: Line) -> str:
        """What was accepted for the line and is gone, though nobody took it back here: "" for nothing.

        So it is when a program that had the file open saves its older copy.
        """
        last = self.last_of.get(line.name)
        return last.text if last and line.text == last.text_before != last.text else ""

    def checked(self) -> dict[str, str]:
        """By name, the transcriptions that a person has checked."""
        return {entry.name: entry.text for entry in self.stands if entry.review}

    def gains(self) -> Gains:
        """What was done since the program was started."""
        with self.lock:
            since = [entry for entry in self.last_of.values() if entry.number >= self.opened]

        def median(entries: Iterable[Entry]) -> float | None:
            seconds = [entry.seconds for entry in entries if entry.seconds is not None]
            return statistics.median(seconds) if seconds else None

        return Gains(
            transcribed=sum(bool(entry.text) and not entry.review for entry in since),
            set_aside=sum(bool(entry.why) for entry in since),
            confirmed=sum(entry.review and entry.text == entry.text_before for entry in since),
            corrected=sum(entry.review and entry.text != entry.text_before for entry in since),
            seconds=median(since),
            seconds_with_proposal=median(entry for entry in since if entry.proposed),
            seconds_without_proposal=median(entry for entry in since if not entry.proposed),
        )

    def _apply(
        self,
        line: Line,
        seen: str,
        text: str,
        why: str,
        *,
        seconds: float | None = None,
        proposed: bool = False,
        review: bool = False,
        undoes: int | None = None,
    ) -> None:
        """Journal first, then the ground truth: whatever dies between, the text is on the disk."""
        entry = None
        try:
            for _ in range(TRIES):
                if line.source is None:
                    self.lines.scan()  # there may be a file by now
                self.lines.refresh(line)
                if line.gone or line.text != clean_transcription(seen):
                    raise ChangedElsewhere(line)
                rewritten = self._rewrite(line, text) if text != line.text else None
                if entry is None:
                    entry = self._note(line, text, why, seconds, proposed, review, undoes)
                if self._write(line, text, why, rewritten):
                    return
            raise Refusal(f"{line.label}: another program keeps writing the ground truth; try again")
        except BaseException:
            if entry is not None:
                self._forget(entry)
            raise

    def _write(self, line: Line, text: str, why: str, rewritten: _Rewritten | None) -> bool:
        """Text and reason onto the disk, or neither; False when the file was changed meanwhile.

        The reason first: where both are there, the text counts, so that a kill between the two takes nothing away.
        """
        why_before, done = line.why, False
        self.lines.set_aside(line, why)
        try:
            done = rewritten is None or self._replace(line, text, rewritten)
        finally:
            if not done:
                self.lines.set_aside(line, why_before)
        return done

    def _note(
        self,
        line: Line,
        text: str,
        why: str,
        seconds: float | None = None,
        proposed: bool = False,
        review: bool = False,
        undoes: int | None = None,
    ) -> Entry:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(
            self.next_number, at, line.name, line.text, text, line.why, why, seconds, proposed, review, undoes
        )
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.journal), self.journal.open("ab") as file:
            file.write((json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.next_number += 1
        if undoes is None:
            self.stands.append(entry)
            self.last_of[entry.name] = entry
        return entry

    def _forget(self, entry: Entry) -> None:
        """Take an entry out of those that stand; it stays in the journal."""
        if entry in self.stands:
            self.stands.remove(entry)
            self.last_of.pop(entry.name, None)
            self.last_of |= {one.name: one for one in self.stands if one.name == entry.name}

    def _rewrite(self, line: Line, text: str) -> _Rewritten:
        """The line's file of ground truth with another text of the line."""
        form = self.lines.form or ANNOTATIONS
        name, path = line.source or (TABLES[0], self.lines.raw / TABLES[0])
        stamp = stamp_of(path)
        if stamp and not path.is_file():  # nobody waits for a FIFO here
            raise Refusal(f"{name} is no file; remove it")
        content: bytes | None = path.read_bytes() if stamp else b""
        assert content is not None
        row = line.row
        try:
            if form is ANNOTATIONS and row is None:
                content, row = append_row(content, self.lines.encoding, line.picture, text)
            elif form is ANNOTATIONS:
                content = replace_cell(content, self.lines.encoding, row or 0, text)
            elif form is TEXT_FILES and not text:
                content = None
            elif form is TEXT_FILES:
                content = replace_text_file(content, self.lines.encoding, text)
            else:
                replace = replace_alto_line if form is ALTO_XML else replace_page_line
                content = replace(content, line.line_id, text)
        except Refusal as error:
            raise Refusal(f"{name}: {error}") from None
        return _Rewritten((name, path), stamp, content, row)

    def _replace(self, line: Line, text: str, new: _Rewritten) -> bool:
        """Put the new file in the place of the old one; False, and nothing done, when that was changed meanwhile."""
        lines, (_, path) = self.lines, new.source
        if new.stamp != lines.stamps.get(path):
            return False
        try:
            if new.content is None:
                path.unlink(missing_ok=True)
            else:
                with write_atomically(Path(os.path.realpath(path))) as temporary:  # a link stays one
                    temporary.write_bytes(new.content)
                    if stamp_of(path) != new.stamp:
                        raise _Meanwhile
        except _Meanwhile:
            return False
        _sync_folder(path.parent)
        # Line breaks and rows taken away move those below; then the table is read anew.
        moved = new.row is not None and ("\n" in text + line.text or not text)
        lines.stamps[path] = None if moved else stamp_of(path)
        line.text, line.row, line.source = text, new.row, new.source
        if lines.form is None:
            with suppress(Refusal):  # the text is written; what stands beside it is said with the next line
                lines.scan()
        return True


@dataclass(frozen=True)
class _Rewritten:
    """A file of ground truth as it is to be.

    stamp: of the one that it was made from; content: None where it is to go; row: of the line in a table.
    """

    source: File
    stamp: Stamp | None
    content: bytes | None
    row: int | None


class _Meanwhile(Exception):
    """Another program has written the file."""


def _read_journal(path: Path) -> list[Entry]:
    """The entries in order; what is none, such as a last line that a crash has cut off, is left out."""
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    entries = []
    for line in content.split("\n"):
        with suppress(ValueError):
            entries.append(_ENTRY.validate_json(line, strict=True))
    if content and not content.endswith("\n"):
        with path.open("ab") as file:  # so that the next entry begins a line
            file.write(b"\n")
    return entries


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut; Windows has no such call and needs none."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
