"""The benchmark of readers: outputs are read right, nothing is done twice, and a loss stands in the table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from validation_set import write_validation_set

from benchmarks.readers import __main__ as command
from benchmarks.readers import peers
from benchmarks.readers.__main__ import README, command_of, compare, data_set, gather
from benchmarks.readers.peers import (
    Kraken,
    Training,
    clean,
    count_epochs,
    divide,
    read_with_tesseract,
    tesseract_version,
)
from benchmarks.readers.table import BEGIN, END, Peer, replace_table
from ownhand.errors import Refusal, run_stage
from ownhand.samples import PROCESSED, Sample, read_metadata

WORDS = ("мама мыла раму", "добрый день", "снег до обеда", "чай с мятой", "два окна", "без пяти три", "где ключ")
ROWS = [(f"p{number}", text, text[2:], text[1:]) for number, text in enumerate(WORDS)]  # the adapter misses a letter


def line(number: int, text: str = "строка") -> Sample:
    name = f"{number:05d}"
    return Sample(name, f"{name}.jpg", text, f"{name}.jpg", "p1", "", 10, 10, "train", "")


def validation(root: Path) -> list[Sample]:
    return [sample for sample in read_metadata(root / PROCESSED) if sample.split == "val"]


def peer(root: Path, name: str, texts: Sequence[str], training: Training | None = None) -> Peer:
    folder = root / "work" / name
    folder.mkdir(parents=True)
    for sample, text in zip(validation(root), texts, strict=True):
        (folder / f"{sample.image_id}.txt").write_text(text, encoding="utf-8")
    return Peer(name, f"the reader {name}", gather(folder, validation(root)), training)


def cells(table: str, start: str) -> list[str]:
    row = next(row for row in table.split("\n") if row.startswith(f"| {start}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_form_feeds_and_line_ends_are_no_text() -> None:
    assert clean("Урок физики,\n\f") == "Урок физики,"
    assert clean("\f") == ""


def test_a_continued_log_counts_an_epoch_once() -> None:
    assert count_epochs("stage 0/∞ ━━ 137/137\rstage 1/∞ ━━\nstage 1/∞ ━━ 137/137\nstage 2/∞") == 3
    assert count_epochs("Initializing new model.") == 0


def test_every_tenth_line_stops_kraken_and_trains_nothing() -> None:
    lines = [line(number) for number in range(152)]
    learned, stopping = divide(lines)
    assert (len(learned), len(stopping)) == (137, 15)
    assert sorted(learned + stopping, key=lambda one: one.image_id) == lines
    assert divide(lines[:2]) == (lines[:1], lines[1:2])
    with pytest.raises(Refusal, match="at least 2 training lines"):
        divide(lines[:1])
    with pytest.raises(Refusal, match=r"1 of 2 .* more than one, the first 00001"):
        divide([line(0), line(1, "одна\nдве")])


def test_a_missing_tesseract_or_language_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    with pytest.raises(Refusal, match="Tesseract is not on this machine.*apt install"):
        tesseract_version("rus")
    monkeypatch.setattr(peers.shutil, "which", lambda name: name)
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="tesseract 5.3.0\neng\nosd\n"))
    with pytest.raises(Refusal, match="no model for rus, only for eng osd"):
        tesseract_version("rus+eng")
    assert tesseract_version("eng") == "5.3.0"


def test_tesseract_reads_each_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_validation_set(tmp_path, ROWS)
    commands: list[list[str]] = []

    def run(words: list[str], **_: Any) -> SimpleNamespace:
        commands.append(words)
        return SimpleNamespace(returncode=0, stdout="чай\n\f".encode(), stderr=b"")

    monkeypatch.setattr(peers.subprocess, "run", run)
    for lines in (validation(root)[:2], validation(root)):
        read_with_tesseract(root, lines, tmp_path / "read", "rus", 7)
    assert len(commands) == len(ROWS)
    assert commands[0][2:] == ["stdout", "-l", "rus", "--psm", "7"]
    rows = gather(tmp_path / "read", validation(root)).read_text(encoding="utf-8").splitlines()
    assert [json.loads(row) for row in rows] == [
        {"image_id": sample.image_id, "prediction": "чай"} for sample in validation(root)
    ]


def test_a_picture_that_tesseract_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_validation_set(tmp_path, ROWS)
    failed = SimpleNamespace(returncode=1, stdout=b"", stderr=b"cannot open")
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(Refusal, match=r"val/images/00002\.jpg: Tesseract ended with 1: cannot open"):
        read_with_tesseract(root, validation(root), tmp_path / "read", "rus", 7)


class StandIn(Kraken):
    """kraken whose commands are this Python with `program`; remembers them."""

    program = ""

    def _command(self, *words: str) -> list[str]:
        self.commands = [*getattr(self, "commands", []), list(words)]
        return [sys.executable, "-c", self.program]


def training_set(root: Path) -> list[Sample]:
    """The one training sample of the validation set and a second one, with pictures."""
    lines = [line(0), line(1)]
    for one in lines:
        (root / one.image_path).write_bytes(b"picture")
    return lines


def test_training_goes_on_from_its_newest_checkpoint_and_is_done_once(tmp_path: Path) -> None:
    lines, kraken = training_set(tmp_path), StandIn(tmp_path / "environment", tmp_path / "kraken", ["--augment"])
    kraken.program = (
        "import pathlib; f = pathlib.Path('model'); f.mkdir(); (f / 'checkpoint_00.ckpt').touch();"
        "print('stage 0/9'); raise SystemExit('no space')"
    )
    with pytest.raises(Refusal, match=r"kraken ended with 1: no space .*kraken\.log"):
        kraken.train(tmp_path, lines)
    assert "--resume" not in kraken.commands[0] and kraken.commands[0][-1] == "--augment"
    kraken.program = "print('stage 0/9')"
    with pytest.raises(Refusal, match="ended before it was trained; run the same command again"):
        kraken.train(tmp_path, lines)
    kraken.program = "import sys; print('stage 1/9'); open('model/best_0.5.safetensors', 'w').close(); print(sys.argv)"
    took = kraken.train(tmp_path, lines)
    log = (tmp_path / "kraken/kraken.log").read_text(encoding="utf-8")
    assert f"'--resume', '{tmp_path / 'kraken/model/checkpoint_00.ckpt'}'".replace("\\", "\\\\") in log
    assert (took.lines, took.stopping_lines) == (1, 1)
    assert kraken.train(tmp_path, lines) == took
    assert len(kraken.commands) == 3
    assert [path.name for path in (tmp_path / "kraken/model").iterdir()] == ["best_0.5.safetensors"]
    learned = (tmp_path / "kraken/learned.lst").read_text(encoding="utf-8").split()
    assert [Path(path).with_suffix(".gt.txt").read_text(encoding="utf-8") for path in learned] == ["строка"]


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    lines, kraken = training_set(tmp_path), StandIn(tmp_path / "environment", tmp_path / "kraken")
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)", "start_kraken.py"]
    with subprocess.Popen(sleeping) as left_running:
        (tmp_path / "kraken").mkdir()
        (tmp_path / "kraken/running.json").write_text(str(left_running.pid), encoding="utf-8")
        with pytest.raises(Refusal, match=f"still trains here as process {left_running.pid}"):
            kraken.train(tmp_path, lines)
        left_running.kill()


def test_lines_that_kraken_did_not_read_are_missed(tmp_path: Path) -> None:
    lines, kraken = training_set(tmp_path), StandIn(tmp_path / "environment", tmp_path / "kraken")
    (tmp_path / "kraken/model").mkdir(parents=True)
    (tmp_path / "kraken/model/best_0.5.safetensors").touch()
    kraken.program = "open('00000.txt', 'w').close()"
    with pytest.raises(Refusal, match="read nothing for 1 of 2 .*the first 00001"):
        kraken.read(tmp_path, lines)
    kraken.program = "[open(f'0000{n}.txt', 'w').close() for n in range(2)]"
    kraken.read(tmp_path, lines)
    kraken.read(tmp_path, lines)
    assert len(kraken.commands) == 2


def test_pip_that_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="WARNING: slow\nERROR: No matching distribution\n")
    monkeypatch.setattr(peers.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(Refusal, match="could not install .*kraken.*: ERROR: No matching distribution"):
        Kraken(tmp_path / "environment", tmp_path / "kraken").install()
    assert not (tmp_path / "environment/installed.json").exists()


def test_a_loss_stands_in_the_table_as_a_loss(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path, ROWS)
    others = [
        peer(root, "better", WORDS),
        peer(root, "worse", [""] * len(WORDS), Training(7, 600.0, 137, 15)),
        peer(root, "same", [adapter for *_, adapter in ROWS]),
    ]
    table = compare(root, others, "python -m benchmarks.readers")
    assert cells(table, "the reader better")[-1] == "**better: ours loses**"
    assert cells(table, "the reader worse")[-1] == "worse"
    assert cells(table, "the reader same")[1:3] == [cells(table, "ours, with")[1], "+0.0 (0.0 to 0.0)"]
    assert cells(table, "the reader same")[-1] == "no difference shown"
    assert cells(table, "the reader better")[1].startswith("0.0 %")
    n = sum(len(text) for text in WORDS)
    assert cells(table, "ours, with")[1].startswith(f"{100 * len(WORDS) / n:.1f} %")
    assert "worse: 7 epochs on 137 of the training lines" in table and "10 minutes of one core" in table
    assert "`python -m benchmarks.readers`" in table


def test_few_pages_are_too_few_to_say(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path, ROWS[:2])
    assert cells(compare(root, [peer(root, "other", WORDS[:2])], ""), "the reader other")[-1] == "too few pages to say"


def test_the_table_is_replaced_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\n{END}\nafter\n", encoding="utf-8")
    for table in ("first", "second"):
        replace_table(path, table)
    replace_table(path, None)
    assert path.read_text(encoding="utf-8") == f"before\n{BEGIN}\nsecond\n{END}\nafter\n"
    path.write_text(f"{END}\n{BEGIN}\n", encoding="utf-8")
    with pytest.raises(Refusal, match="needs two lines"):
        replace_table(path, "table")
    replace_table(README, None)  # the repository's own has its markers


def test_other_pictures_texts_or_sides_are_another_data_set(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path, ROWS)
    samples = validation(root)
    first = data_set(root, samples)
    assert data_set(root, samples) == first
    assert data_set(root, samples[1:]) != first
    (root / samples[0].image_path).write_bytes(b"another picture")
    assert data_set(root, samples) != first


def test_the_command_of_the_table_names_no_folder_of_this_machine() -> None:
    arguments = SimpleNamespace(
        readers="kraken", languages="rus", psm=7, kraken="--augment", root=Path("/home/me"), work=Path("/tmp/me")
    )
    assert command_of(arguments) == "python -m benchmarks.readers --readers=kraken --kraken=--augment"  # type: ignore[arg-type]


def test_a_sentence_and_no_traceback_without_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_validation_set(tmp_path, ROWS)
    (root / "data/predictions/adapter.jsonl").unlink()
    monkeypatch.setattr(command, "be_nice", lambda: None)
    monkeypatch.setattr(sys, "argv", ["readers", "--root", str(root), "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit) as ended:
        run_stage(command.main)
    assert ended.value.code == 1
    assert "adapter.jsonl is missing; run `dvc repro" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["readers", "--readers", "tesseract,calamari"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--readers knows tesseract, kraken, not calamari" in capsys.readouterr().err
