"""Ours beside what one would take instead, on the same validation lines: Tesseract and kraken.

    python -m benchmarks.readers [--readers tesseract,kraken] [--languages rus] [--kraken=--augment]
    python -m benchmarks.readers --root FOLDER      (another repository with a finished `dvc repro`)

Tesseract reads untrained, as it comes with the machine. kraken learns from nothing on the training lines that the
adapter had, on one core, in its own environment (it is made here, 1.6 GB: kraken's pins clash with ours). Base model
and adapter are those of data/predictions; nothing is trained or read anew for them.

Reads data/processed, data/predictions and params.yaml below the root. Unfinished work, models and readings lie in
.checkpoints/readers/, by data set: what is there is not done again, so that after a new base model the same command
only scores. Writes the table into benchmarks/README.md, between its markers; for another root, or elsewhere with
--table FILE, it is only printed. Hours for kraken, a minute for Tesseract.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.readers.peers import TEXT, Kraken, Training, be_nice, clean, read_with_tesseract, tesseract_version
from benchmarks.readers.table import Peer, make_table, replace_table
from ownhand.errors import run_stage
from ownhand.evaluation.readings import own_files, score_lines
from ownhand.evaluation.summary import compare_rates
from ownhand.files import hash_file, write_text
from ownhand.params import read_params
from ownhand.runtime import alone_in
from ownhand.samples import PROCESSED, Sample, read_metadata

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "benchmarks/README.md"
PEERS = ("tesseract", "kraken")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="a repository with a finished `dvc repro`; else this")
    parser.add_argument("--work", type=Path, default=ROOT / ".checkpoints/readers", help="folder for unfinished work")
    parser.add_argument("--readers", default=",".join(PEERS), help=f"which of {', '.join(PEERS)}")
    parser.add_argument("--languages", default="rus", help="of Tesseract, such as rus+eng")
    parser.add_argument("--psm", type=int, default=7, help="Tesseract's page segmentation mode; 7: one line, 3: a page")
    parser.add_argument(
        "--kraken", default="", metavar="OPTIONS", help="more options of `ketos train`: --kraken=--augment"
    )
    parser.add_argument("--table", type=Path, help="Markdown file with the markers of the table")
    arguments = parser.parse_args()
    unknown = set(arguments.readers.split(",")) - set(PEERS)
    if unknown:
        parser.error(f"--readers knows {', '.join(PEERS)}, not {', '.join(sorted(unknown))}")
    be_nice()
    target = arguments.table or (README if arguments.root.resolve() == ROOT.resolve() else None)
    if target:
        replace_table(target, None)  # markers that are missing are missed before hours of work
    peers, command = read_all(arguments), command_of(arguments)
    table = compare(arguments.root, peers, command)
    print(table)
    if target:
        replace_table(target, table)
        print(f"written to {target.as_posix()}")


def read_all(arguments: argparse.Namespace) -> list[Peer]:
    """Let each chosen peer read the validation lines; raises Refusal before any work when something is missing."""
    samples = read_metadata(arguments.root / PROCESSED)
    training, validation = ([sample for sample in samples if sample.split == split] for split in ("train", "val"))
    score_lines(samples, own_files(arguments.root))  # refused now, and not after kraken
    chosen = arguments.readers.split(",")
    tesseract = tesseract_version(arguments.languages) if "tesseract" in chosen else ""
    work = arguments.work / data_set(arguments.root, samples)
    peers = []
    with alone_in(work):
        if "tesseract" in chosen:
            folder = work / f"tesseract-{arguments.languages}-{arguments.psm}"
            read_with_tesseract(arguments.root, validation, folder, arguments.languages, arguments.psm)
            described = f"Tesseract {tesseract}, {arguments.languages}, `--psm {arguments.psm}`, untrained"
            peers.append(Peer("tesseract", described, gather(folder, validation), None))
        if "kraken" in chosen:
            name = "-".join(["kraken", *re.findall(r"[\w.]+", arguments.kraken)])
            kraken = Kraken(arguments.work / "kraken-environment", work / name, shlex.split(arguments.kraken))
            kraken.install()
            training_took: Training = kraken.train(arguments.root, training)
            kraken.read(arguments.root, validation)
            options = f", `{arguments.kraken}`" if arguments.kraken else ""
            described = f"kraken {kraken.version}, from nothing on the same lines{options}"
            peers.append(Peer("kraken", described, gather(kraken.readings, validation), training_took))
    return peers


def compare(root: Path, peers: Sequence[Peer], command: str) -> str:
    """The table as Markdown, by the code that evaluates base model and adapter; all differences are to the adapter."""
    samples = read_metadata(root / PROCESSED)
    params = read_params(root / "params.yaml").evaluate
    lines = score_lines(samples, own_files(root), {peer.name: peer.predictions for peer in peers})
    trained = sum(sample.split == "train" for sample in samples)
    return make_table(lines, compare_rates(lines, params), peers, params.confidence_level, trained, command)


def gather(folder: Path, lines: Sequence[Sample]) -> Path:
    """The texts of a folder as one prediction file, of the form that data/others takes."""
    rows = []
    for line in lines:
        text = clean((folder / f"{line.image_id}{TEXT}").read_text(encoding="utf-8"))
        rows.append(json.dumps({"image_id": line.image_id, "prediction": text}, ensure_ascii=False) + "\n")
    path = folder.with_name(f"{folder.parent.name if folder.name == 'val' else folder.name}.jsonl")
    write_text(path, "".join(rows))
    return path


def data_set(root: Path, samples: Sequence[Sample]) -> str:
    """12 hexadecimal digits of everything that peers see: pictures, texts and the split."""
    seen = [[s.image_id, s.split, s.text, hash_file(root / s.image_path)] for s in samples if s.split != "test"]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:12]


def command_of(arguments: argparse.Namespace) -> str:
    """The command with what decides the figures; folders of this machine are left out."""
    words = ["python", "-m", "benchmarks.readers"]
    defaults = {"readers": ",".join(PEERS), "languages": "rus", "psm": 7, "kraken": ""}
    for name, default in defaults.items():
        if getattr(arguments, name) != default:
            words.append(f"--{name}={getattr(arguments, name)}")
    return shlex.join(words)


if __name__ == "__main__":
    run_stage(main)
