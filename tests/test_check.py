"""The readiness report as a whole: on a sound set, on a broken one, on the first user's run, and in DVC."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ownhand.checks import readiness
from ownhand.checks.findings import Finding
from ownhand.checks.readiness import inspect, report_readiness
from ownhand.checks.run import inspect_run
from ownhand.errors import Refusal, run_stage
from ownhand.params import read_params
from ownhand.samples import Sample, write_metadata
from stages import prepare, train

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "real-handwriting"
BEGINNING = "Миновало почти десятилетие"
LINES = [
    ("test_000.jpg", f"{BEGINNING} с тех пор, как произошел прорыв в разработке и применении глубоких сетей", "train"),
    ("test_001.jpg", "Отличная работа!", "train"),
    ("test_002.jpg", "Это лучшая команда, что я встречал.", "train"),
    ("test_003.jpg", BEGINNING, "val"),
]
# r 8, alpha 16, 50 epochs, batch 4, accumulation 4, warm-up 100, saved and evaluated every 500 steps, float16
FIRST_USER: dict[str, dict[str, Any]] = {
    "model": {"dtype": "float16"},
    "encode": {"copies": 0},
    "train": {
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_targets": ["attention", "mlp"],
        "epochs": 50.0,
        "learning_rate": 0.002,
        "batch_size": 4,
        "accumulation": 4,
        "warmup_steps": 100,
        "evaluations": 1,
    },
    "transcribe": {"max_new_tokens": 1024},
    "runtime": {"checkpoint_steps": 500, "device": "cpu"},
}
EXPERT = {
    "CONF-002": "blocker",  # a batch larger than the set
    "CONF-003": "warning",  # an effective batch of 16 against 3
    "CONF-004": "blocker",  # a warm-up longer than the run
    "CONF-005": "warning",  # no save before the end
    "CONF-006": "warning",  # no evaluation before the end
    "CONF-007": "blocker",  # fp16 without scaling
    "DATA-002": "warning",  # one validation sample
    "DATA-004": "warning",  # the text of test_003 inside that of test_000
}
DEMO_ONLY = "CONF-018"  # letters smaller than the demo's base model was trained on: he had another one


def write_params(folder: Path, **groups: dict[str, Any]) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["train"]["lora_targets"] = ["attention", "mlp", "experts"]  # rehearsing a step of the vision tower is slow
    for group, values in groups.items():
        content[group] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


def write_samples(folder: Path, lines: Sequence[tuple[str, str, str]], pictures: Sequence[Image.Image]) -> None:
    """data/processed and metrics/rejected.csv of samples (name, text, side), each on a page of its own."""
    samples = []
    for number, ((name, text, side), picture) in enumerate(zip(lines, pictures, strict=True), 1):
        path = Path(f"data/processed/{side}/images/{number:05d}.jpg")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture.convert("RGB").save(folder / path)
        image_id, page = f"{number:05d}", Path(name).stem
        size = (picture.width, picture.height)
        samples.append(Sample(image_id, path.as_posix(), text, name, page, "", *size, side, str(number)))
    write_metadata(samples, folder / "data/processed")
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics/rejected.csv").write_text("file,row,reason\n", encoding="utf-8")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, pictures: list[Image.Image]) -> Path:
    """A folder like the repository's: four samples, a small model, parameters that suit them."""
    shutil.copytree(model_folder, tmp_path / "models/base")
    write_samples(tmp_path, LINES, pictures)
    write_params(tmp_path, train={"batch_size": 3}, runtime={"device": "cpu", "checkpoint_steps": 2})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(findings: Sequence[Finding]) -> dict[str, str]:
    """Level by code; what is wrong with this machine is left out."""
    return {one.code: one.level for one in findings if one.level != "ready" and not one.code.startswith("ENV")}


def seen(findings: Sequence[Finding], code: str) -> str:
    return next(one.seen for one in findings if one.code == code)


def test_the_first_users_configuration_gives_the_experts_findings(workspace: Path) -> None:
    write_params(workspace, **FIRST_USER)
    findings = inspect_run(read_params())
    assert {code: level for code, level in problems(findings).items() if code != DEMO_ONLY} == EXPERT
    assert "train.batch_size is 4, the training set has 3 examples" in seen(findings, "CONF-002")
    assert "4 x 4 = 16 sequences a step, but there are only 3" in seen(findings, "CONF-003")
    assert "100 warm-up steps in a run of 50 optimizer steps" in seen(findings, "CONF-004")
    assert "49% of 0.002 at most" in seen(findings, "CONF-004")
    assert "every 500 of 50 optimizer steps: none before the end" in seen(findings, "CONF-005")
    assert "the text of test_003.jpg (val) stands inside that of test_000.jpg" in seen(findings, "DATA-004")
    assert "1 validation line beside 3 training lines" in seen(findings, "DATA-002")


@pytest.mark.skipif(not REAL.exists(), reason="the real photographs (../shared/real-handwriting) are not here")
def test_the_first_users_own_photographs_give_the_same_findings(workspace: Path) -> None:
    shutil.rmtree(workspace / "data/processed")
    with (REAL / "annotations.csv").open(encoding="utf-8", newline="") as file:
        texts = {row["filename"]: row["text"] for row in csv.DictReader(file)}
    lines = [(name, texts[name], side) for name, _, side in LINES]
    write_samples(workspace, lines, [Image.open(REAL / name) for name, *_ in lines])
    write_params(workspace, **FIRST_USER)
    found = problems(inspect_run(read_params()))
    assert {code: level for code, level in found.items() if code != DEMO_ONLY} == EXPERT


def test_a_sound_set_is_ready_and_the_second_report_is_the_same_to_the_last_byte(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_readiness()
    assert capsys.readouterr().out.splitlines()[-1].startswith("READY: ")
    paths = [workspace / path for path in (readiness.READINESS_JSON, readiness.READINESS_MD, readiness.READY)]
    before = [path.read_bytes() for path in paths]
    report_readiness()
    assert [path.read_bytes() for path in paths] == before
    assert json.loads(before[0])["ready"] is True


def test_everything_wrong_is_listed_at_once_and_the_reports_are_written(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_readiness()
    write_params(workspace, **FIRST_USER)
    (workspace / "data/processed/train/images/00002.jpg").unlink()
    (workspace / "metrics/rejected.csv").write_text("file,row,reason\nb.jpg,3,not an image\n", encoding="utf-8")
    weights = workspace / "models/base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SystemExit) as end:
        report_readiness()
    assert end.value.code == 1
    content = json.loads((workspace / readiness.READINESS_JSON).read_text(encoding="utf-8"))
    codes = {one["code"] for one in content["findings"] if one["level"] != "ready"}
    assert EXPERT.keys() | {"DATA-010", "DATA-012", "MODEL-004"} <= codes
    assert content["ready"] is False
    assert not (workspace / readiness.READY).exists()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("NOT READY: 5 blockers (CONF-002, CONF-004, CONF-007, DATA-012, MODEL-004)")
    assert "**NOT READY" in (workspace / readiness.READINESS_MD).read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("FIFO", "odd.jpg is a FIFO"),
        ("/dev/zero", "odd.jpg is a link to a device (/dev/zero)"),
        ("gone.jpg", "odd.jpg is a link to nothing (it leads to gone.jpg)"),
    ],
)
def test_what_is_no_file_in_data_raw_is_a_blocker_and_prepare_alone_says_so(
    workspace: Path, capsys: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    (workspace / "data/raw").mkdir(parents=True)
    odd = workspace / "data/raw/odd.jpg"
    os.mkfifo(odd) if kind == "FIFO" else odd.symlink_to(kind)
    findings = inspect_run(read_params())
    assert problems(findings)["DATA-014"] == "blocker"
    assert seen(findings, "DATA-014") == said
    with pytest.raises(SystemExit) as ended:
        run_stage(prepare.main)
    assert ended.value.code == 1
    assert f"odd.jpg: {said.removeprefix('odd.jpg is ')}" in capsys.readouterr().err


def test_broken_parameters_and_a_missing_model_are_findings_too(workspace: Path) -> None:
    write_params(workspace, model={"name_or_path": "models/elsewhere"})
    assert problems(inspect())["MODEL-001"] == "blocker"
    write_params(workspace, train={"learning_rate": "1e-4", "lora_rank": 4})
    findings = inspect()
    assert problems(findings) == {"CONF-001": "blocker"}
    assert "train.lora_rank: unknown key" in seen(findings, "CONF-001")
    assert any(one.code == "ENV-001" for one in findings)


def test_without_samples_the_rest_is_still_looked_at(workspace: Path) -> None:
    shutil.rmtree(workspace / "data")
    findings = inspect_run(read_params())
    assert problems(findings) == {"DATA-001": "blocker"}
    assert {"MODEL-004", "CONF-012", "ENV-001"} <= {one.code for one in findings}


@pytest.mark.parametrize(("flag", "parameter", "runs"), [(False, False, 0), (True, False, 1), (False, True, 1)])
def test_the_gate_runs_when_asked_for_and_only_without_another_blocker(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, flag: bool, parameter: bool, runs: int
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ownhand.checks.run.prove_learning", lambda params: asked.append(params) or [])
    monkeypatch.setattr("ownhand.checks.run.inspect_memory", lambda *_: [])  # takes seconds, and nothing here is short
    write_params(workspace, check={"overfit": parameter}, train={"batch_size": 3}, runtime={"device": "cpu"})
    inspect(overfit=flag)
    assert len(asked) == runs
    write_params(workspace, check={"overfit": parameter}, encode={"copies": 0}, train={"batch_size": 4})
    inspect(overfit=flag)
    assert len(asked) == runs


def test_foreign_packages_end_the_report_before_they_are_imported(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownhand.checks.machine._installed", lambda package: "0.0.1")
    monkeypatch.setitem(sys.modules, "ownhand.checks.run", None)  # importing it would now fail
    findings = inspect()
    assert {one.code for one in findings if one.level == "blocker"} == {"ENV-002"}


def test_train_itself_refuses_a_machine_that_cannot_do_it(workspace: Path) -> None:
    write_params(workspace, runtime={"device": "cuda:7"})
    with pytest.raises(Refusal, match="runtime.device means cuda:7, but torch"):
        train.main()


def run(folder: Path, *command: str, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) is (code == 0), f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


@pytest.mark.slow
def test_in_dvc_a_blocker_stops_what_follows_and_a_new_warning_re_runs_nothing(workspace: Path) -> None:
    """The real entry of `check`; in place of `encode` a stage that needs what `encode` needs of it."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    needed = [path for path in stages["encode"]["deps"] if path.startswith("metrics/")]
    assert needed == [readiness.READY.as_posix()]
    after = {"cmd": "python -m stages.after", "deps": needed, "outs": ["after.txt"]}
    pipeline = {"stages": {"check": stages["check"], "after": after}}
    (workspace / "dvc.yaml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    for package in ("ownhand", "stages"):
        shutil.copytree(ROOT / package, workspace / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", workspace)
    shutil.copy(ROOT / ".dvcignore", workspace)
    (workspace / "data/raw").mkdir(parents=True, exist_ok=True)  # check looks there for what is no file
    (workspace / "stages/after.py").write_text("open('after.txt', 'w').write('done')\n", encoding="utf-8")
    run(workspace, "git", "init", "-q")
    run(workspace, "dvc", "init", "-q")

    def stages_run(output: str) -> list[str]:
        return [name for name in ("check", "after") if f"Running stage '{name}'" in output]

    assert stages_run(run(workspace, "dvc", "repro")) == ["check", "after"]
    report = (workspace / readiness.READINESS_JSON).read_bytes()
    assert stages_run(run(workspace, "dvc", "repro")) == []

    write_params(workspace, train={"batch_size": 3, "evaluations": 1}, runtime={"device": "cpu", "checkpoint_steps": 2})
    assert stages_run(run(workspace, "dvc", "repro")) == ["check"]
    assert (workspace / readiness.READINESS_JSON).read_bytes() != report

    write_params(workspace, train={"batch_size": 300}, runtime={"device": "cpu"})
    output = run(workspace, "dvc", "repro", code=1)
    assert stages_run(output) == ["check"]
    assert "NOT READY: 1 blocker (CONF-002)" in output
    assert "CONF-002" in (workspace / readiness.READINESS_MD).read_text(encoding="utf-8")
