"""Kills the pipeline, again and again, and compares what comes out in the end with an uninterrupted run, bit for bit.

    python -m benchmarks.kills [--random 100] [--renames 60] [--stages train cross_validate] [--seed 7] [--folder EMPTY]

Works on a copy of this repository with eight lines on four pages and a few optimizer steps, so that a round takes
seconds. Two kinds of kills (SIGKILL):

random    `dvc repro` and all that it started, at a random moment, several times before it may go on to its end;
renames   one stage under `dvc repro`, or the export, exactly before or behind one of its renames: there half-made work
          would show. Every rename of a stage is tried before one is tried twice.

After each kill the same command is given again. A difference in any output, a temporary file or unfinished work that
is left over, or a command that does not come to its end is printed; the exit code is then 1. The seed is printed, too.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ownhand.files import hash_file

ROOT = Path(__file__).parent.parent
PAGES = ("p01", "p02", "p03", "p05")
LINES_PER_PAGE = 2
STAGES = ("prepare", "check", "encode", "train", "transcribe", "cross_validate", "evaluate")
EXPORT = "export"  # no stage, but it writes, too
STORES = ("prepare", "encode")  # what they keep beside the outputs is not unfinished
KILLS_PER_ROUND = 6  # of the random ones
SMALL = {  # params.yaml, so that every stage has something to do and is soon done
    "prepare": {"val_share": 0.5},
    "encode": {"copies": 3},
    "train": {"epochs": 1.5, "batch_size": 2, "lora_r": 2, "lora_targets": ["attention"], "lora_dropout": 0.1},
    "transcribe": {"max_new_tokens": 8, "batch_size": 2},
    "evaluate": {"bootstrap_samples": 100, "min_pages": 2, "folds": 2},
    "runtime": {"device": "cpu", "threads": 1, "shard_mb": 1, "checkpoint_steps": 3},
}
SELECTION = {"evaluations": 3, "cer_lines": 1, "select": "loss"}
OUTPUTS = (
    "data/processed",
    "data/features",
    "data/predictions",
    "data/cross_validation",
    "models",
    "metrics",
    "dvc.lock",
)

# Python imports a module of this name before anything else; it counts the renames of one program, or dies at one.
HOOK = """
import os, signal, sys

wanted, number, when, journal = os.environ["KILL_AT"].split("|")
if wanted in sys.orig_argv:
    done = 0
    rename = {"replace": os.replace, "rename": os.rename}

    def counted(kind):
        def call(source, target, **more):
            global done
            done += 1
            if done == int(number) and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            rename[kind](source, target, **more)
            if done == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            if journal:
                with open(journal, "a") as file:
                    file.write(str(target) + chr(10))
        return call

    os.replace, os.rename = counted("replace"), counted("rename")
"""


@dataclass(frozen=True)
class Place:
    """A program and the number of one of its renames, from 1."""

    stage: str
    number: int
    target: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=100, metavar="N", help="kills at random moments")
    parser.add_argument("--renames", type=int, default=60, metavar="N", help="kills at renames")
    parser.add_argument(
        "--stages", nargs="+", choices=(*STAGES, EXPORT), default=[*STAGES, EXPORT], help="of the latter"
    )
    parser.add_argument("--seed", type=int, default=None, help="drawn and printed by default")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; by default a temporary one")
    options = parser.parse_args(arguments)
    if os.name == "nt":
        parser.error("Windows has no SIGKILL")
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    print(f"kills: seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.folder or Path(temporary))
        seconds, places = bench.run_uninterrupted(options.stages)
        problems = kill_at_renames(bench, places, options.renames, random.Random(seed))
        problems += kill_at_random(bench, options.random, seconds, random.Random(seed))
    print(f"kills: {len(problems)} problem(s)" + "".join(f"\n  {problem}" for problem in problems))
    return 1 if problems else 0


class Bench:
    """A folder with the small copy of the repository, its states before every stage, and the outputs behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.after: dict[str, dict[str, str]] = {}  # stage -> the outputs that there are behind it
        (folder / "hook").mkdir(parents=True)
        (folder / "hook/sitecustomize.py").write_text(HOOK, encoding="utf-8")
        self._copy_repository()

    def _copy_repository(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().split("\0"):
            source = ROOT / name
            if name and source.is_file() and not name.startswith(("data/raw/", "metrics/", "dvc.lock", "tests/")):
                (self.work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, self.work / name)
        with (ROOT / "data/raw/annotations.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        chosen = [row for page in PAGES for row in [row for row in rows if row[0].startswith(page)][:LINES_PER_PAGE]]
        for row in chosen:
            (self.work / "data/raw" / row[0]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / "data/raw" / row[0], self.work / "data/raw" / row[0])
        with (self.work / "data/raw/annotations.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *chosen])
        content = yaml.safe_load((self.work / "params.yaml").read_text(encoding="utf-8"))
        for group, values in SMALL.items():
            content[group].update(values)
        content["train"].update(SELECTION)
        (self.work / "params.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        for command in (["git", "init", "-q"], ["git", "add", "-A"]):
            subprocess.run(command, cwd=self.work, env=environment(), check=True)
        identity = ["-c", "user.name=kills", "-c", "user.email=kills@example.org"]
        subprocess.run(["git", *identity, "commit", "-qm", "copy"], cwd=self.work, env=environment(), check=True)

    def run_uninterrupted(self, stages: Sequence[str]) -> tuple[float, list[Place]]:
        """Run everything once, leaving a state before every program; (seconds, the renames of `stages`)."""
        started, places = time.monotonic(), []
        for stage in (*STAGES, EXPORT):
            shutil.copytree(self.work, self.state(stage), symlinks=True)
            journal = self.folder / f"renames-{stage}"
            self.finish(command(stage), f"{module(stage)}|0||{journal}")
            targets = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
            if stage in stages:
                places += [Place(stage, number, target) for number, target in enumerate(targets, start=1)]
            self.after[stage] = self.outputs()
            print(f"kills: {stage} without a kill, {len(targets)} renames", flush=True)
        return time.monotonic() - started, places

    def state(self, stage: str) -> Path:
        """The folder as it was before `stage`."""
        return self.folder / f"before-{stage}"

    def begin_at(self, stage: str) -> None:
        """Have the state before `stage` again."""
        shutil.rmtree(self.work)
        shutil.copytree(self.state(stage), self.work, symlinks=True)

    def start(self, arguments: Sequence[str], kill_at: str = "|0||") -> subprocess.Popen[bytes]:
        """A command in a process group of its own."""
        paths = os.pathsep.join([str(self.folder / "hook"), str(self.work)])
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                arguments,
                cwd=self.work,
                env={**environment(), "PYTHONPATH": paths, "KILL_AT": kill_at},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, arguments: Sequence[str], kill_at: str = "|0||") -> None:
        """Run a command to its end. RuntimeError with the end of its output when it fails."""
        code = self.start(arguments, kill_at).wait()
        if code:
            said = (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-1500:]
            raise RuntimeError(f"{' '.join(arguments)} ended with code {code}: {said}")

    def outputs(self) -> dict[str, str]:
        """The hash of every output there is."""
        roots = [self.work / name for name in OUTPUTS]
        files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]
        return {path.relative_to(self.work).as_posix(): hash_file(path) for path in files}

    def compare(self, stage: str) -> list[str]:
        """What is not as it should be behind `stage`."""
        seen, expected = self.outputs(), self.after[stage]
        names = sorted(name for name in seen.keys() | expected.keys() if seen.get(name) != expected.get(name))
        litter = [path for path in self.work.rglob("*.tmp") if ".dvc" not in path.parts]
        unfinished = [path for path in self.work.glob(".checkpoints/*/*/*") if path.parts[-3] not in STORES]
        left = [path.relative_to(self.work).as_posix() for path in litter + unfinished]
        return [f"differs: {name}" for name in names] + [f"left over: {name}" for name in left]


def command(stage: str) -> list[str]:
    """How a stage, or the export, is run."""
    return [sys.executable, "-m", "ownhand", EXPORT] if stage == EXPORT else ["dvc", "repro", stage]


def module(stage: str) -> str:
    """What its command line is known by."""
    return EXPORT if stage == EXPORT else f"stages.{stage}"


def environment() -> dict[str, str]:
    """This one's, with its own dvc first and without what would lead dvc and git elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def kill_at_renames(bench: Bench, places: Sequence[Place], kills: int, rng: random.Random) -> list[str]:
    """Kill before or behind `kills` renames, the places in a random order and all before one comes again."""
    problems = []
    order: list[tuple[Place, str]] = []
    while len(order) < kills and places:
        order += [(place, rng.choice(("before", "behind"))) for place in rng.sample(list(places), len(places))]
    for done, (place, when) in enumerate(order[:kills], start=1):
        bench.begin_at(place.stage)
        killed = bench.start(command(place.stage), f"{module(place.stage)}|{place.number}|{when}|")
        what = f"{place.stage}, {when} rename {place.number} ({place.target})"
        found = [] if killed.wait() else ["the kill did not happen"]
        found += end(bench, place.stage)
        print(f"kills: {done} at renames: {what}: {'; '.join(found) or 'the same'}", flush=True)
        problems += [f"{what}: {problem}" for problem in found]
    return problems


def end(bench: Bench, stage: str) -> list[str]:
    """Give the command of `stage` again; what is not as it should be then."""
    try:
        bench.finish(command(stage))
    except RuntimeError as error:
        return [str(error)]
    return bench.compare(stage)


def kill_at_random(bench: Bench, kills: int, seconds: float, rng: random.Random) -> list[str]:
    """Kill `dvc repro` and all its processes `kills` times, some times before each end."""
    problems: list[str] = []
    done = 0
    while done < kills:
        bench.begin_at(STAGES[0])
        moments = []
        for _ in range(min(KILLS_PER_ROUND, kills - done)):
            run = bench.start(["dvc", "repro"])
            moments.append(rng.uniform(0, 0.5 * seconds))
            try:
                run.wait(moments[-1])
                break  # it was done before
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                done += 1
        found = end(bench, STAGES[-1])
        what = "at " + ", ".join(f"{moment:.1f}" for moment in moments) + " s"
        print(f"kills: {done} at random moments: {what}: {'; '.join(found) or 'the same'}", flush=True)
        problems += [f"{what}: {problem}" for problem in found]
    return problems


if __name__ == "__main__":
    raise SystemExit(main())
