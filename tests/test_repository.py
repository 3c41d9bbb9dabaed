"""The repository tells the truth about itself: parameters, pipeline, README, and its own rules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ownhand.params import AugmentParams, Params, read_params

ROOT = Path(__file__).parent.parent
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("stages/**/*.py"))}
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def outputs(stage: dict[str, list[object]]) -> set[str]:
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return {next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries}


def test_every_parameter_is_read_by_the_code() -> None:
    code = "\n".join(text for path, text in SOURCES.items() if path.name != "params.py")
    groups = {name: field.annotation for name, field in Params.model_fields.items()}
    groups["encode.augment"] = AugmentParams
    unread = [
        f"{group}.{name}"
        for group, model in groups.items()
        for name in model.model_fields  # type: ignore[union-attr]
        if not re.search(rf"(\.|\[\"|\"){name}\b", code)
    ]
    assert unread == []


def test_every_preset_is_valid_and_the_demo_preset_is_what_is_set() -> None:
    presets = sorted((ROOT / "presets").glob("*.yaml"))
    assert len(presets) >= 2
    read = {path.stem: read_params(path) for path in presets}
    assert read["cpu-demo"] == read_params(ROOT / "params.yaml")


def test_every_stage_is_a_file_and_lists_its_own_parameters() -> None:
    for name, stage in PIPELINE["stages"].items():
        assert stage["cmd"] == f"python -m stages.{name}"
        assert (ROOT / f"stages/{name}.py").exists()
        if name in Params.model_fields:
            assert name in stage["params"], f"{name} does not list its own group"


def test_every_dependency_is_in_the_repository_or_made_by_an_earlier_stage() -> None:
    made: set[str] = set()
    for name, stage in PIPELINE["stages"].items():
        for path in stage["deps"]:
            is_made = any(path == out or path.startswith(out + "/") for out in made)
            assert is_made or (ROOT / path).exists(), f"{name}: {path}"
        made |= outputs(stage)


def test_runtime_settings_re_run_nothing() -> None:
    assert all("runtime" not in stage.get("params", []) for stage in PIPELINE["stages"].values())


def test_every_output_is_ignored_by_git_or_small_and_tracked() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for stage in PIPELINE["stages"].values():
        uncached = {
            next(iter(entry))
            for kind in ("outs", "metrics", "plots")
            for entry in stage.get(kind, [])
            if isinstance(entry, dict) and next(iter(entry.values())).get("cache") is False
        }
        for path in outputs(stage) - uncached:
            assert f"/{path}" in ignored, path


def test_the_readme_names_every_command_and_the_ci_runs_its_test_line() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in ROOT.glob("stages/*.py"):
        if path.name != "__init__.py":
            assert path.name in readme, f"{path.name} is not in the README's tree"
    assert "pip install -e . && dvc repro" in readme
    line = 'pip install -e ".[test]" && pytest'
    assert line in readme
    assert line in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_no_code_of_a_model_is_ever_run_and_nothing_is_unpickled() -> None:
    for path, text in SOURCES.items():
        assert "trust_remote_code=True" not in text, path
        assert "import pickle" not in text, path
        assert not re.search(r"weights_only\s*=\s*False", text), path


def test_files_are_written_in_one_place_and_pictures_opened_in_one_place() -> None:
    for path, text in SOURCES.items():
        if path.name != "files.py":
            assert ".write_text(" not in text.replace("temporary.write_text(", ""), path
        if path.name not in ("images.py", "drawing.py", "augment.py"):
            assert "Image.open(" not in text, path


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_lint_format_and_types_are_clean(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
