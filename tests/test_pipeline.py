"""The whole road: `dvc repro` in a copy of the repository, on the demo and on real photographs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES, LINES = 16, 64  # of the demo that are left
REAL = ROOT.parent / "shared" / "real-handwriting"
STAGES = ("prepare", "check", "encode", "train", "transcribe", "cross_validate", "evaluate")


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command with this environment's python and dvc; its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == code, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def copy_of_the_repository(folder: Path) -> Path:
    """A clone with what is in the working tree, committed or not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().splitlines():
        source = ROOT / name.strip('"')
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "copy")
    return folder


def edit_params(folder: Path, **groups: dict[str, Any]) -> None:
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group, values in groups.items():
        content[group].update(values)
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")


def ran(output: str) -> list[str]:
    return [stage for stage in (*STAGES, "pretrain") if f"Running stage '{stage}'" in output]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which some of the demo's pages have run with a short training."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("demo"))
    table = folder / "data/raw/annotations.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    pages = sorted(path.name for path in (folder / "data/raw").iterdir() if path.is_dir())
    for page in pages[PAGES:]:
        shutil.rmtree(folder / "data/raw" / page)
        rows = [row for row in rows if not row.startswith(f"{page}/")]
    table.write_text("".join([header, *rows]), encoding="utf-8")
    edit_params(
        folder,
        prepare={"val_share": 0.4},
        encode={"copies": 0},
        train={"epochs": 1.0, "evaluations": 2, "cer_lines": 8},
        transcribe={"max_new_tokens": 64},
    )
    output = run(folder, "dvc", "repro")
    assert ran(output) == list(STAGES)
    return folder


def test_a_second_repro_does_nothing(demo: Path) -> None:
    assert ran(run(demo, "dvc", "repro")) == []


def test_metrics_show_base_and_adapter(demo: Path) -> None:
    shown = json.loads(run(demo, "dvc", "metrics", "show", "--json").splitlines()[-1])
    evaluation = shown[""]["data"][str(Path("metrics/evaluation.json"))]["data"]
    assert list(shown[""]["data"]) == [str(Path("metrics/evaluation.json"))]
    assert {"cer", "cer_low", "cer_high", "wer", "exact_match"} <= evaluation["adapter"].keys()
    assert evaluation["base"]["cer"] > 0 and evaluation["n_lines"] >= 20 and evaluation["n_pages"] >= 5
    assert sum(len(part) if isinstance(part, dict) else 1 for part in evaluation.values()) <= 14
    summary = json.loads((demo / "metrics/tables/summary.json").read_text(encoding="utf-8"))
    assert (summary["reads"]["n_lines"], summary["retention"]["n_lines"]) == (24, 48)
    assert summary["reads"]["cer_blank_pictures"] > 0.5 and summary["retention"]["base_cer"] < 0.5


def test_plots_show_curves_confusions_and_a_gallery(demo: Path) -> None:
    assert "index.html" in run(demo, "dvc", "plots", "show")
    html = (demo / "dvc_plots/index.html").read_text(encoding="utf-8")
    for title in ("Loss per token", "CER by length", "Errors of the adapter"):
        assert title in html
    assert html.count("metrics_gallery_") >= 24


def read_samples(folder: Path) -> list[dict[str, Any]]:
    files = [folder / f"data/processed/{side}/metadata.json" for side in ("train", "val")]
    return [sample for path in files for sample in json.loads(path.read_text(encoding="utf-8"))]


def test_no_page_text_or_picture_stands_on_both_sides(demo: Path) -> None:
    samples = read_samples(demo)
    with (demo / "data/raw/annotations.csv").open(encoding="utf-8", newline="") as file:
        assert len(samples) == len(list(csv.DictReader(file)))
    for key in ("page", "text", "sha256"):
        sides = [{sample[key] for sample in samples if sample["split"] == split} for split in ("train", "val")]
        assert sides[0] and sides[1]
        assert not sides[0] & sides[1], key


def test_the_report_stands_alone_and_shows_every_validation_line(demo: Path) -> None:
    html = (demo / "metrics/report/index.html").read_text(encoding="utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "") and "https://" not in html
    samples = read_samples(demo)
    assert all(sample["image_id"] in html for sample in samples if sample["split"] == "val")


@pytest.mark.slow
def test_a_lora_parameter_re_runs_check_and_training_and_what_follows_but_not_encode(demo: Path) -> None:
    before = (demo / "metrics/evaluation.json").read_bytes()
    original = (demo / "params.yaml").read_text(encoding="utf-8")
    edit_params(demo, train={"lora_alpha": 1})
    assert "train.lora_alpha" in run(demo, "dvc", "params", "diff")
    assert ran(run(demo, "dvc", "repro")) == [*("check", "train", "transcribe", "cross_validate", "evaluate")]
    assert (demo / "metrics/evaluation.json").read_bytes() != before
    (demo / "params.yaml").write_text(original, encoding="utf-8")
    run(demo, "dvc", "repro")
    assert (demo / "metrics/evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_folds_re_run_neither_encode_nor_train_and_bring_a_rate_over_all_pages(demo: Path) -> None:
    path, original = demo / "metrics/evaluation.json", (demo / "params.yaml").read_text(encoding="utf-8")
    before = path.read_bytes()
    edit_params(demo, evaluate={"folds": 2})
    assert ran(run(demo, "dvc", "repro")) == ["check", "cross_validate", "evaluate"]
    evaluation = json.loads(path.read_bytes())
    headline = evaluation.pop("cross_validation")
    assert evaluation == json.loads(before)
    summary = json.loads((demo / "metrics/tables/summary.json").read_text(encoding="utf-8"))
    crossed = summary["cross_validation"]
    assert headline == {"cer": crossed["adapter"]["cer"]}
    assert (crossed["n_lines"], crossed["n_pages"]) == (LINES, PAGES)
    assert crossed["adapter"]["cer_low"] < crossed["adapter"]["cer"] < crossed["adapter"]["cer_high"]
    assert 'id="folds"' in (demo / "metrics/report/index.html").read_text(encoding="utf-8")
    (demo / "params.yaml").write_text(original, encoding="utf-8")
    run(demo, "dvc", "repro")
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_same_inputs_give_the_same_evaluation(demo: Path) -> None:
    before = (demo / "metrics/evaluation.json").read_bytes()
    output = run(demo, "dvc", "repro", "--force", "--no-run-cache", "train", "transcribe", "evaluate")
    assert set(ran(output)) >= {"train", "transcribe", "evaluate"}
    assert (demo / "metrics/evaluation.json").read_bytes() == before


def test_runtime_settings_re_run_nothing(demo: Path) -> None:
    edit_params(demo, runtime={"checkpoint_steps": 7})
    assert ran(run(demo, "dvc", "repro")) == []


@pytest.mark.slow
def test_a_validation_picture_reads_exactly_as_in_the_prediction_file(demo: Path) -> None:
    for name, flags in (("adapter", []), ("base", ["--base"])):
        lines = (demo / f"data/predictions/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        predictions = {record["image_id"]: record for record in map(json.loads, lines)}
        output = run(
            demo, sys.executable, "-m", "ownhand", "read", "data/processed/val/images", "--format", "jsonl", *flags
        )
        records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        assert len(records) == len(predictions)
        for record in records:
            expected = predictions[Path(record["path"]).stem]
            assert record["text"] == expected["prediction"]
            assert record["confidence"] == pytest.approx(expected["confidence"], abs=1e-4)


@pytest.mark.slow
def test_a_bad_file_is_named_the_rest_is_read_and_the_exit_code_says_so(demo: Path, tmp_path: Path) -> None:
    good = next((demo / "data/processed/val/images").glob("*.jpg"))
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:300])
    output = run(demo, sys.executable, "-m", "ownhand", "read", str(good), str(tmp_path / "broken.jpg"), code=1)
    assert "broken.jpg" in output
    assert "1 pictures read, 1 refused" in output
    output = run(demo, sys.executable, "-m", "ownhand", "read", "nosuch.jpg", code=1)
    assert "there is no such file: nosuch.jpg" in output


def test_a_broken_parameter_stops_before_anything_runs(demo: Path) -> None:
    original = (demo / "params.yaml").read_text(encoding="utf-8")
    edit_params(demo, train={"learning_rate": "0.5", "lora_rank": 4})
    output = " ".join(run(demo, "dvc", "repro", code=255).split())
    assert "train.lora_rank: unknown key" in output and "write the number without quotes" in output
    (demo / "params.yaml").write_text(original, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real photographs (../shared/real-handwriting) are not here")
def test_four_real_photographs_run_to_the_end_and_none_is_lost(tmp_path: Path) -> None:
    folder = copy_of_the_repository(tmp_path)
    shutil.rmtree(folder / "data/raw")
    shutil.copytree(REAL, folder / "data/raw", ignore=shutil.ignore_patterns("README.md"))
    edit_params(folder, encode={"copies": 1}, train={"epochs": 1.0, "batch_size": 2})
    run(folder, "git", "add", "-A")
    assert ran(run(folder, "dvc", "repro")) == list(STAGES)
    samples = read_samples(folder)
    assert sorted(sample["split"] for sample in samples) == ["train", "train", "train", "val"]
    evaluation = json.loads((folder / "metrics/evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["n_lines"] == evaluation["n_pages"] == 1
    assert evaluation["adapter"]["cer_low"] is None
