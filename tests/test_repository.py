"""The repository tells the truth about itself: pipeline, presets, and what the documents say one can run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from ownhand.cli import app
from ownhand.params import Params, flatten, read_params
from ownhand.presets import read_presets, render

ROOT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
DOCUMENTS = [
    *(path for path in ROOT.glob("*.md") if path.stem != "CHANGELOG"),
    *ROOT.glob("docs/*.md"),
    ROOT / "data/others/README.md",
    ROOT / "benchmarks/README.md",
]
LATER = {"lines", "correct", "curve"}  # commands that the documents name already


def outputs(stage: dict[str, list[object]]) -> set[str]:
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return {next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries}


def test_params_yaml_holds_the_defaults_with_their_meaning() -> None:
    """After a change of the schema: remove params.yaml and run `ownhand preset cpu-demo`."""
    assert read_params(ROOT / "params.yaml") == Params()
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == render(Params())
    assert max(map(len, render(Params()).splitlines())) <= 120


def test_presets_hold_only_what_differs_each_with_its_reason() -> None:
    presets = read_presets(ROOT / "presets")
    assert presets[0].name == "cpu-demo" and presets[0].values == {}
    defaults = flatten(Params())
    for preset in presets[1:]:
        assert {name for name, value in preset.values.items() if defaults[name] == value} == set(), preset.name
        assert all(preset.reasons[name] for name in preset.values), preset.name
        assert preset.summary and len(preset.values) <= 20


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_says_to_run_exists(document: Path) -> None:
    """Commands, stages and presets that stand in code; a word behind `ownhand` in a sentence is no command."""
    text = document.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    commands = set(re.findall(r"(?:^|`|\s)ownhand ([a-z][\w-]*)", code, re.MULTILINE))
    assert commands <= get_command(app).commands.keys() | LATER  # type: ignore[attr-defined]
    assert set(re.findall(r"python -m stages\.(\w+)", code)) <= set(PIPELINE["stages"])
    presets = {preset.name for preset in read_presets(ROOT / "presets")}
    assert set(re.findall(r"ownhand preset ([a-z0-9-]+)", code)) <= presets
    modules = re.findall(r"python -m ((?:ownhand|benchmarks|demo)[\w.]*)", code)
    missing = [name for name in modules if not list(ROOT.glob(f"{name.replace('.', '/')}*"))]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_lint_format_and_types_are_clean(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
