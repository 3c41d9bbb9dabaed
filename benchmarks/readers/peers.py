"""The peers: Tesseract as it comes, and kraken trained from nothing on the same lines, each run as a program.

Both leave one text file for each validation line. What stands there is not done again, and training goes on from its
last checkpoint. One thread each: the figures are of one core.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
from tqdm import tqdm

from ownhand.errors import Refusal
from ownhand.files import write_json, write_text
from ownhand.samples import Sample

KRAKEN = "7.1.1"
STOP_EVERY = 10  # every tenth training line decides when kraken stops, and trains nothing
LAG = 40  # epochs without a better one before it stops; its own default, 10, can end before it reads anything
SEED = 1
SECONDS_BETWEEN_RECORDS = 5
EPOCH = re.compile(r"stage (\d+)/")
PICTURE, TEXT, TRUTH = ".jpg", ".txt", ".gt.txt"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "PYTHONUTF8": "1", "COLUMNS": "160"}


def be_nice() -> None:
    """Let other programs on this machine go first; what this process starts inherits it."""
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(max(10, process.nice()))


def clean(output: str) -> str:
    """What a program wrote, without the form feeds and line ends around the text."""
    return output.replace("\f", "").strip()


def tesseract_version(languages: str) -> str:
    """The version of Tesseract on this machine.

    `languages` as Tesseract takes them, such as "rus" or "rus+eng". Raises Refusal when the program or one of them is
    not there.
    """
    install = "on Debian: apt install tesseract-ocr tesseract-ocr-rus; or leave it out: --readers kraken"
    if not shutil.which("tesseract"):
        raise Refusal(f"Tesseract is not on this machine ({install})")
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, encoding="utf-8").stdout
    has = listed.split("\n")[1:]
    missing = [language for language in languages.split("+") if language not in has]
    if missing:
        raise Refusal(f"Tesseract has no model for {', '.join(missing)}, only for {' '.join(has).strip()} ({install})")
    told = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, encoding="utf-8")
    return (told.stdout or told.stderr).split("\n")[0].removeprefix("tesseract ").strip()


def read_with_tesseract(root: Path, lines: Sequence[Sample], folder: Path, languages: str, psm: int) -> None:
    """Write what Tesseract reads on each line to `folder`; lines that were read before are left alone.

    psm: its page segmentation mode; 7 takes a picture for one line. Raises Refusal when it cannot read a picture.
    """
    for line in tqdm(lines, "tesseract", unit="line", disable=None):
        if (folder / f"{line.image_id}{TEXT}").exists():
            continue
        command = ["tesseract", str(root / line.image_path), "stdout", "-l", languages, "--psm", str(psm)]
        ended = subprocess.run(command, capture_output=True, env=os.environ | ONE_THREAD)
        if ended.returncode:
            said = ended.stderr.decode("utf-8", "replace").strip()
            raise Refusal(f"{line.image_path}: Tesseract ended with {ended.returncode}: {said}")
        write_text(folder / f"{line.image_id}{TEXT}", clean(ended.stdout.decode("utf-8")))


@dataclass(frozen=True)
class Training:
    """What training kraken took: epochs run, processor time of its one thread, and the lines it learned from."""

    epochs: int
    cpu_seconds: float
    lines: int
    stopping_lines: int


class Kraken:
    """kraken in its own environment, `environment`, and in `folder` its lines, model and readings of one data set.

    options: further options of `ketos train`, such as ["--augment"].
    """

    def __init__(self, environment: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self.environment, self.folder, self.options = environment, folder, list(options)
        self.readings = folder / "val"
        self._log = folder / "kraken.log"

    @property
    def version(self) -> str:
        """The version that `install` installs."""
        return KRAKEN

    def install(self) -> None:
        """Make the environment unless it stands: kraken with the torch of ours, so that no second torch is fetched.

        Raises Refusal when pip cannot.
        """
        wanted = [f"torch=={version('torch').partition('+')[0]}", f"kraken=={KRAKEN}"]
        installed = self.environment / "installed.json"
        if installed.exists() and json.loads(installed.read_text(encoding="utf-8")) == wanted:
            return
        print(f"kraken: installing {' '.join(wanted)} into {self.environment.as_posix()}, 1.6 GB", flush=True)
        venv.create(self.environment, with_pip=True, clear=True)
        pip = [str(self._python()), "-m", "pip", "install", "--quiet", *wanted]
        ended = subprocess.run(pip, capture_output=True, text=True, encoding="utf-8", errors="replace")
        if ended.returncode:
            raise Refusal(
                f"pip could not install {' '.join(wanted)}: {_last_line(ended.stderr)} "
                "(look at that, or leave kraken out: --readers tesseract)"
            )
        write_json(installed, wanted)

    def train(self, root: Path, lines: Sequence[Sample]) -> Training:
        """Train a model from nothing on `lines`, or go on; every tenth of them decides when to stop.

        Raises Refusal for fewer than two lines, for pictures with more than one line of text, and when kraken fails.
        """
        if self._model() is None:
            learned, stopping = divide(lines)
            self._lay_out(root, "learned", learned)
            self._lay_out(root, "stopping", stopping)
            self._run_training(len(learned), len(stopping))
        return Training(**json.loads((self.folder / "training.json").read_text(encoding="utf-8")))

    def read(self, root: Path, lines: Sequence[Sample]) -> None:
        """Write what the trained model reads on each line to `readings`, unless all of them are there."""
        if all((self.readings / f"{line.image_id}{TEXT}").exists() for line in lines):
            return
        for line in lines:
            _copy(root / line.image_path, self.readings / f"{line.image_id}{PICTURE}")
        model = self._model()
        if model is None:
            raise Refusal(f"{self.folder.as_posix()} has no trained model; run the same command again")
        device = ["-d", "cpu", "--threads", "1", "-I", f"*{PICTURE}", "-o", TEXT]
        ocr = ["ocr", "-m", str(model.resolve()), "--no-segmentation", "--num-line-workers", "0"]
        with self._log.open("ab") as log:
            command = self._command("kraken", *device, *ocr)
            ended = subprocess.run(
                command, cwd=self.readings, env=os.environ | ONE_THREAD, stdout=log, stderr=subprocess.STDOUT
            )
        missing = [line.image_id for line in lines if not (self.readings / f"{line.image_id}{TEXT}").exists()]
        if ended.returncode or missing:
            raise Refusal(
                f"kraken ended with {ended.returncode} and read nothing for {len(missing)} of {len(lines)} line(s)"
                f"{', the first ' + missing[0] if missing else ''}; see {self._log.as_posix()}"
            )

    def _run_training(self, learned: int, stopping: int) -> None:
        self._refuse_two_at_once()
        checkpoints = sorted((self.folder / "model").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
        start = ["--resume", str(checkpoints[-1].resolve())] if checkpoints else []
        general = ["-d", "cpu", "--threads", "1", "--workers", "0", "-s", str(SEED)]
        data = ["-f", "path", "-t", "learned.lst", "-e", "stopping.lst"]
        command = self._command("ketos", *general, "train", *data, "-o", "model", "--lag", str(LAG), *self.options)
        record = self.folder / "training.json"
        before = json.loads(record.read_text(encoding="utf-8"))["cpu_seconds"] if record.exists() and start else 0.0
        print(f"kraken: {'going on' if start else 'training'}; its log is {self._log.as_posix()}", flush=True)
        with (
            self._log.open("ab" if start else "wb") as log,
            subprocess.Popen(
                [*command, *start],
                cwd=self.folder,
                env=os.environ | ONE_THREAD,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            write_json(self.folder / "running.json", process.pid)
            watched, spent = psutil.Process(process.pid), 0.0
            while process.poll() is None:
                times = watched.cpu_times()
                spent = times.user + times.system or spent  # 0 of one that has just ended
                epochs = count_epochs(self._log.read_text(encoding="utf-8", errors="replace"))
                write_json(record, vars(Training(epochs, round(before + spent, 1), learned, stopping)))
                try:
                    process.wait(SECONDS_BETWEEN_RECORDS)
                except subprocess.TimeoutExpired:
                    continue
        if not process.returncode and self._model() is None:  # kraken says so of a run that was ended from outside
            raise Refusal("kraken was ended before it was trained; run the same command again to go on")
        if process.returncode:
            raise Refusal(
                f"kraken ended with {process.returncode}: {_last_line(self._log.read_text('utf-8', 'replace'))} "
                f"(all of it in {self._log.as_posix()}; to begin anew, remove {self.folder.as_posix()})"
            )
        for checkpoint in (self.folder / "model").glob("*.ckpt"):
            checkpoint.unlink()

    def _refuse_two_at_once(self) -> None:
        """A kill of the benchmark leaves kraken running, and two of them would write the same checkpoints."""
        running = self.folder / "running.json"
        pid = json.loads(running.read_text(encoding="utf-8")) if running.exists() else None
        try:
            command = psutil.Process(pid).cmdline() if pid else []
        except psutil.Error:  # it has ended
            command = []
        if any(word.endswith("start_kraken.py") for word in command):
            raise Refusal(f"kraken still trains here as process {pid}; wait until it has ended, or end it")

    def _lay_out(self, root: Path, name: str, lines: Sequence[Sample]) -> None:
        folder = self.folder / "lines"
        for line in lines:
            _copy(root / line.image_path, folder / f"{line.image_id}{PICTURE}")
            write_text(folder / f"{line.image_id}{TRUTH}", line.text)
        paths = "".join(f"{(folder / line.image_id).resolve()}{PICTURE}\n" for line in lines)
        write_text(self.folder / f"{name}.lst", paths)

    def _model(self) -> Path | None:
        return next(iter(sorted((self.folder / "model").glob("best_*.safetensors"))), None)

    def _python(self) -> Path:
        folder, name = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
        return (self.environment / folder).resolve() / name

    def _command(self, *words: str) -> list[str]:
        return [str(self._python()), str(Path(__file__).resolve().with_name("start_kraken.py")), *words]


def divide(lines: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The lines that kraken learns from and those that tell it when to stop: every tenth, or the last of fewer.

    Raises Refusal for fewer than two lines, and for pictures with more than one line of text.
    """
    pages = [line.image_id for line in lines if "\n" in line.text]
    if pages:
        raise Refusal(
            f"kraken learns from lines, but {len(pages)} of {len(lines)} training pictures show more than one, "
            f"the first {pages[0]}; leave it out: --readers tesseract --psm 3"
        )
    stopping = list(lines[STOP_EVERY - 1 :: STOP_EVERY] or lines[-1:])
    learned = [line for line in lines if line not in stopping]
    if not learned:
        raise Refusal(f"kraken needs at least 2 training lines; there is {len(lines)}")
    return learned, stopping


def count_epochs(log: str) -> int:
    """The epochs that a log of `ketos train` shows, the one under way included; a continued log is counted once."""
    return max((int(number) + 1 for number in EPOCH.findall(log)), default=0)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().split("\n") if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
