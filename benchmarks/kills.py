"""Kills the pipeline, again and again, and compares what comes out in the end with an uninterrupted run, bit for bit.

    python -m benchmarks.kills [--random 100] [--renames 60] [--stages train encode] [--seed 7] [--folder FOLDER]

Works on a copy of this repository with eight lines on four pages and a few optimizer steps, so that a round takes
seconds. Two kinds of kills (SIGKILL):

random    `dvc repro` and all that it started, at a random moment, several times before it may go on to its end;
renames   one stage under `dvc repro`, or the export, exactly before or behind one of its renames: there half-made work
          would show. Every rename of a stage is tried before one is tried twice.

After each kill the same command is given again. A difference in any output, a temporary file or unfinished work that
is left over, or a command that does not come to its end is printed; the exit code is then 1. The seed is printed, too.

With a folder each result is written there at once, and the same command goes on where an earlier one was ended.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ownhand.files import hash_file, write_json

ROOT = Path(__file__).parent.parent
PAGES = ("p01", "p02", "p03", "p05")
LINES_PER_PAGE = 2
STAGES = ("prepare", "check", "encode", "train", "transcribe", "cross_validate", "evaluate")
RENAMES, RANDOM = "at renames", "at random moments"
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
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to work and to go on; by default a temporary one"
    )
    options = parser.parse_args(arguments)
    if os.name == "nt":
        parser.error("Windows has no SIGKILL")
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.folder or Path(temporary))
        seed, seconds, places = bench.run_uninterrupted(seed)
        print(f"kills: seed {seed}, {len(bench.results())} results so far", flush=True)
        kill_at_renames(bench, [place for place in places if place.stage in options.stages], options.renames, seed)
        kill_at_random(bench, options.random, seconds, seed)
        results = bench.results()
    problems = [f"{result['what']}: {problem}" for result in results for problem in result["problems"]]
    counted = " and ".join(f"{count(results, kind)} {kind}" for kind in (RENAMES, RANDOM))
    print(f"kills: {counted}; {len(problems)} problem(s)" + "".join(f"\n  {problem}" for problem in problems))
    return 1 if problems else 0


def count(results: Sequence[dict[str, Any]], kind: str) -> int:
    """Kills of one kind."""
    return sum(result["kills"] for result in results if result["kind"] == kind)


class Bench:
    """A folder with the small copy of the repository, its states before every stage, and the outputs behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.after: dict[str, dict[str, str]] = {}  # stage -> the outputs that there are behind it
        self.whole = folder / "uninterrupted.json"
        if self.whole.exists():
            return
        for left in (self.work, folder / "hook", *map(self.state, (*STAGES, EXPORT))):
            shutil.rmtree(left, ignore_errors=True)
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
            made = name.startswith(("data/raw/", "metrics/", "dvc.lock", "tests/"))
            if source.is_file() and (not made or name.startswith("metrics/learning_curve/")):
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

    def run_uninterrupted(self, seed: int) -> tuple[int, float, list[Place]]:
        """Run everything once, leaving a state before every program, or take what an earlier call has left.

        (seed, seconds, all renames); the seed is that of the earlier call, if there was one.
        """
        if self.whole.exists():
            found = json.loads(self.whole.read_bytes())
            self.after = found["after"]
            return found["seed"], found["seconds"], [Place(**place) for place in found["places"]]
        started, places = time.monotonic(), []
        for stage in (*STAGES, EXPORT):
            shutil.copytree(self.work, self.state(stage), symlinks=True)
            journal = self.folder / f"renames-{stage}"
            journal.unlink(missing_ok=True)
            self.finish(command(stage), f"{module(stage)}|0||{journal}")
            targets = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
            places += [Place(stage, number, target) for number, target in enumerate(targets, start=1)]
            self.after[stage] = self.outputs()
            print(f"kills: {stage} without a kill, {len(targets)} renames", flush=True)
        seconds = time.monotonic() - started
        whole = {"seed": seed, "seconds": seconds, "places": list(map(asdict, places)), "after": self.after}
        write_json(self.whole, whole)
        return seed, seconds, places

    def results(self) -> list[dict[str, Any]]:
        """What came of each kill, or round of kills, so far: kind, kills, what, problems."""
        path = self.folder / "results.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def record(self, kind: str, kills: int, what: str, problems: list[str]) -> None:
        """Say and keep a result."""
        with (self.folder / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "kills": kills, "what": what, "problems": problems}) + "\n")
        done = count(self.results(), kind)
        print(f"kills: {done} {kind}: {what}: {'; '.join(problems) or 'the same'}", flush=True)

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


def kill_at_renames(bench: Bench, places: Sequence[Place], kills: int, seed: int) -> None:
    """Kill before or behind `kills` renames, the places in a random order and all before one comes again."""
    rng = random.Random(seed)
    order: list[tuple[Place, str]] = []
    while len(order) < kills and places:
        order += [(place, rng.choice(("before", "behind"))) for place in rng.sample(list(places), len(places))]
    for place, when in order[count(bench.results(), RENAMES) : kills]:
        bench.begin_at(place.stage)
        killed = bench.start(command(place.stage), f"{module(place.stage)}|{place.number}|{when}|")
        found = [] if killed.wait() else ["the kill did not happen"]
        found += end(bench, place.stage)
        bench.record(RENAMES, 1, f"{place.stage}, {when} rename {place.number} ({place.target})", found)


def end(bench: Bench, stage: str) -> list[str]:
    """Give the command of `stage` again; what is not as it should be then."""
    try:
        bench.finish(command(stage))
    except RuntimeError as error:
        return [str(error)]
    return bench.compare(stage)


def kill_at_random(bench: Bench, kills: int, seconds: float, seed: int) -> None:
    """Kill `dvc repro` and all its processes `kills` times, some times before each end."""
    while (done := count(bench.results(), RANDOM)) < kills:
        rng = random.Random(f"{seed} {len(bench.results())}")
        bench.begin_at(STAGES[0])
        moments = []
        for _ in range(min(KILLS_PER_ROUND, kills - done)):
            run = bench.start(["dvc", "repro"])
            moment = rng.uniform(0, 0.5 * seconds)
            try:
                run.wait(moment)
                break  # it was done before
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                moments.append(moment)
        what = "at " + ", ".join(f"{moment:.1f}" for moment in moments) + " s"
        bench.record(RANDOM, len(moments), what, end(bench, STAGES[-1]))


if __name__ == "__main__":
    raise SystemExit(main())
