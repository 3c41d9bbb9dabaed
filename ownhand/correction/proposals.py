"""Proposals: what the model reads in the lines, each read once, in the background, and kept outside the ground truth.

They are kept in `.checkpoints/correct/proposals.jsonl`, under the content of the picture and the fingerprint of what
read it: after a training all lines are read again. Without a model there are none, and the page works as well.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from pydantic import BaseModel as Schema

from ownhand.correction.pictures import open_line
from ownhand.correction.queue import Line, OpenLines
from ownhand.dataset.conversion_cache import HASHES, KnownHashes, picture_key
from ownhand.errors import Refusal
from ownhand.files import AppendedLines, read_table, write_text
from ownhand.ground_truth.regions import Region
from ownhand.images import ImageLimits, UnreadableImage
from ownhand.params import Params, PrepareParams
from ownhand.samples import PROCESSED, Reading, read_metadata
from ownhand.text import clean_transcription, is_blank

PROPOSALS = "proposals.jsonl"
LINES_CSV = Path("metrics/lines.csv")  # what `evaluate` writes
AT_ONCE = 8  # lines read in one go at most: the first proposals are there soon
UNSURE = 0.7  # a word is marked when one of its characters was less probable
NEW_LINES_SECONDS = 5.0  # how often lines are looked for that were not there before


@dataclass(frozen=True)
class ProposalReader:
    """What reads lines; name: for a person; fingerprint: of everything that decides what is read."""

    name: str
    fingerprint: str
    read_pictures: Callable[[Sequence[Image.Image]], list[Reading]]


@dataclass(frozen=True)
class Proposal:
    """A reading of a line; text is "" where the model ran away; characters: how probable each is, () where unknown."""

    text: str
    confidence: float
    characters: tuple[float, ...] = ()

    def words(self) -> list[tuple[str, bool]]:
        """The text in words and the white space between them, and of which words the model was unsure.

        A doubtful space counts for the word behind it.
        """
        parts = []
        for found in re.finditer(r"\s+|\S+", self.text):
            chances = self.characters[max(0, found.start() - 1) : found.end()]
            parts.append((found[0], not found[0].isspace() and min(chances, default=1.0) < UNSURE))
        return parts


class _Kept(Schema):
    """A row of the file: the content that was read, by what, and the proposal."""

    picture: str
    reader: str
    text: str
    confidence: float
    characters: tuple[float, ...]


class Proposals:
    """The readings of lines, as far as there are any; several threads may ask.

    state: "opening" the model, "reading", "ready" for now, or "none"; problem: why there is no model; read: lines that
    this reader has read, now or earlier.
    """

    def __init__(self, folder: Path, prepare: PrepareParams) -> None:
        self.file = folder / PROPOSALS
        self.hashes = KnownHashes(folder / HASHES)
        self.limits = ImageLimits.of(prepare)
        self.state = "none"
        self.problem = ""
        self.reader_name = ""
        self.seeds: dict[str, tuple[str, Proposal]] = {}
        self._by_line: dict[int, tuple[Region | None, Proposal | None]] = {}
        self._kept: dict[str, Proposal] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def read(self) -> int:
        """How many lines have been read."""
        return len(self._by_line)

    def of(self, line: Line) -> Proposal | None:
        """The reading of a line; None while there is none, and where the picture cannot be read."""
        region, proposal = self._by_line.get(line.number, (None, None))
        if proposal and region == line.region:
            return proposal
        truth, seed = self.seeds.get(line.name, ("", None))
        return seed if truth == line.text else None

    def start(self, open_reader: Callable[[], ProposalReader], wanted: Callable[[], Iterable[Line]]) -> None:
        """Open the model and read the wanted lines in the background, in their order, until `stop`."""
        self.state = "opening"
        self._thread = threading.Thread(target=self._run, args=(open_reader, wanted), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop reading after the lines that are being read."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=10)

    def _run(self, open_reader: Callable[[], ProposalReader], wanted: Callable[[], Iterable[Line]]) -> None:
        try:
            reader = open_reader()
            self.reader_name = reader.name
            with self._open_file(reader.fingerprint) as file:
                while not self._stop.is_set():
                    if new := [line for line in wanted() if self._is_new(line)]:
                        self.state = "reading"
                        self._read(reader, new, file)
                        self.hashes.save()
                    self.state = "ready"
                    self._stop.wait(NEW_LINES_SECONDS)
        except (Refusal, OSError, ImportError) as error:
            self.state, self.problem = "none", str(error)
        except Exception as error:  # a page without proposals is better than none
            traceback.print_exc(file=sys.stderr)
            self.state, self.problem = "none", f"{type(error).__name__}: {error}"

    def _is_new(self, line: Line) -> bool:
        known = self._by_line.get(line.number)
        return known is None or known[0] != line.region

    def _read(self, reader: ProposalReader, lines: list[Line], file: AppendedLines) -> None:
        unread: list[tuple[Line, str]] = []
        for line in lines:  # first what is known already, so that the uncertain ones come first at once
            content_hash = self.hashes.of(line.path)
            key = picture_key(content_hash, line.region) if content_hash else ""
            if key in self._kept:
                self._by_line[line.number] = line.region, self._kept[key]
            else:
                unread.append((line, key))
        for start in range(0, len(unread), AT_ONCE):
            part, pictures = [], []
            for line, key in unread[start : start + AT_ONCE]:
                try:
                    pictures.append(open_line(line, self.limits))
                    part.append((line, key))
                except (UnreadableImage, OSError):
                    self._by_line[line.number] = line.region, None
            if self._stop.is_set():
                return
            readings = reader.read_pictures(pictures) if pictures else []
            for (line, key), reading in zip(part, readings, strict=True):
                proposal = self._kept[key] = _propose(reading)
                self._by_line[line.number] = line.region, proposal
                file.append({"picture": key, "reader": reader.fingerprint, **asdict(proposal)})

    def _open_file(self, fingerprint: str) -> AppendedLines:
        """Take over what this reader has read, and drop what others have."""
        rows, own = AppendedLines.read(self.file), []
        for row in rows:
            with suppress(ValueError):  # another reader's, or damaged
                kept = _Kept.model_validate(row)
                if kept.reader == fingerprint:
                    self._kept[kept.picture] = Proposal(kept.text, kept.confidence, kept.characters)
                    own.append(row)
        if len(own) < len(rows):
            write_text(self.file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own))
        return AppendedLines(self.file)


def _propose(reading: Reading) -> Proposal:
    text = clean_transcription(reading.text)
    if reading.runaway or is_blank(text):
        return Proposal("", 0.0)
    fits = len(reading.character_confidence) == len(text) and text == reading.text
    return Proposal(text, reading.confidence, reading.character_confidence if fits else ())


def read_validation(lines: OpenLines, root: Path) -> dict[str, tuple[str, Proposal]]:
    """By name of line, (transcription, adapter's reading) of the last `dvc repro`'s validation; {} without one."""
    seeds = {}
    with suppress(OSError, Refusal, KeyError, ValueError, csv.Error):
        names = {sample.image_id: sample.original_filename for sample in read_metadata(root / PROCESSED, ["val"])}
        for row in read_table(root / LINES_CSV):
            name = names.get(row["image_id"], "")
            if name in lines.by_name:
                proposal = Proposal(row["adapter_prediction"], float(row["adapter_confidence"]))
                seeds[name] = row["truth"], proposal
    return seeds


def open_model(params: Params, adapter: Path) -> ProposalReader:
    """The base model with the adapter, or alone where there is none yet; nothing is downloaded for it.

    Refusal when the base model is not on this machine.
    """
    from huggingface_hub import snapshot_download

    from ownhand import read
    from ownhand.model.loading import holds_all_weights
    from ownhand.runtime import fingerprint

    name = params.model.name_or_path
    if not Path(name).is_dir():
        try:
            cached = Path(snapshot_download(name, revision=params.model.revision, local_files_only=True))
        except (OSError, ValueError):
            cached = None
        if cached is None or not holds_all_weights(cached):
            raise Refusal(f"the base model {name} is not on this machine yet; `dvc repro` fetches it")
    trained = adapter.is_dir()
    model = read.Reader(params, adapter if trained else None)
    files = [*model.base.files(), *(sorted(adapter.glob("adapter_*")) if trained else ())]
    pictures = asdict(ImageLimits.of(params.prepare))
    deciding = (params.model, pictures, params.encode.mode, params.encode.max_tiles, params.transcribe)
    return ProposalReader(
        "the adapter" if trained else "the base model", fingerprint(*deciding, files=files), model.read
    )
