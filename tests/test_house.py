"""The house: what imports what, and that DVC watches all of it. Computed from the code, nothing is run.

The layers and exceptions below are the plan; when a test here fails, the code has left the plan, or dvc.yaml lags
behind the code (the message then has the lines that belong there).
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ownhand.params import groups

ROOT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What a layer imports lies in a lower one; files of one layer may import each other, folders stand alone.
LAYERS = (
    {
        "errors.py",
        "files.py",
        "folders.py",
        "text.py",
        "params.py",
        "presets.py",
        "runtime.py",
        "processes.py",
        "progress.py",
        "images.py",
        "inputs.py",
        "samples.py",
    },
    {"ground_truth"},
    {"model"},
    {"vision"},
    {"dataset"},
    {"pages"},
    {"evaluation"},
    {"training"},
    {"checks"},
    {"report"},
    {"export_card.py"},
    {"read.py", "export.py", "serving_client.py", "clean.py", "curve.py"},
    {"correction"},
    {"correct.py"},
    {"cli.py"},
    {"__main__.py"},
)
# Modules that decide no result: an edit of a message or of a range must not train anything anew. The values of the
# parameters are watched by DVC themselves.
DECIDES_NOTHING = {
    "ownhand/__init__.py",
    "ownhand/errors.py",
    "ownhand/inputs.py",
    "ownhand/params.py",
    "stages/__init__.py",
}
# Parameters that a module in the closure reads on behalf of other stages.
NOT_READ_BY = {"prepare": {"model.dtype", "model.attn_implementation"}}  # it needs the small files of the base model
SMALL_FILES = {"models/base/config.json", "models/base/processor_config.json", "models/base/tokenizer.json"}
# Listed without an import of ours.
INDIRECT = {
    "dvc": "it runs the stages",
    "pillow-heif": "images.py imports it by its name, where it is installed",
    "rapidocr": "pages/detector.py imports it by its name, where it is installed",
    "onnxruntime": "the same",
    "openpyxl": "pandas reads .xlsx with it",
}
# Imported, but not listed.
UNLISTED = {
    "wordfreq": "for demo/pretrain.py alone, which says so",
    "markupsafe": "a part of jinja2",
    "gguf": "of llama.cpp, where the engine is installed",
    "conversion": "of llama.cpp, where the engine is installed",
    "xllamacpp": "where the engine is installed",
    "fonttools": "for demo/fonts/make_fonts.py alone, which says so",
}


@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@cache
def file_of(module: str) -> str | None:
    """The path of a project module, None for what is no module of this project."""
    base = module.replace(".", "/")
    return next((path for path in (f"{base}.py", f"{base}/__init__.py") if (ROOT / path).is_file()), None)


@cache
def modules_in(folder: str) -> set[str]:
    """The Python files below a folder that hold code: an `__init__.py` with nothing but its docstring is none."""
    paths = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    return {path for path in paths if [node for node in tree_of(path).body if not is_docstring(node)]}


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@cache
def imported_names(path: str) -> frozenset[str]:
    """Dotted names of all modules that a file imports at any depth, but for those that only type checkers see."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                walk(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            module = str(node.module)
            found.update(name if file_of(name := f"{module}.{alias.name}") else module for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(tree_of(path))
    return frozenset(found)


@cache
def project_imports(path: str) -> set[str]:
    """The project files that a file imports, the packages that they are in included."""
    found = set()
    for name in imported_names(path):
        parts = name.split(".")
        parents = (file_of(".".join(parts[: i + 1])) for i in range(len(parts)))
        found |= {parent for parent in parents if parent}
    return found


@cache
def closure(stage: str) -> frozenset[str]:
    """Every project file that a stage imports, directly or not, itself included."""
    seen: set[str] = set()
    todo = {f"stages/{stage}.py", "stages/__init__.py"}
    while todo:
        path = todo.pop()
        seen.add(path)
        todo |= project_imports(path) - seen
    return frozenset(seen)


def data_beside(path: str) -> set[str]:
    """Files and folders that a module finds from its own place: `Path(__file__).parent / "name"`."""
    found = set()
    for node in ast.walk(tree_of(path)):
        match = isinstance(node, ast.BinOp) and re.fullmatch(
            r"Path\(__file__\)\.parent(s\[(\d)\])? / '([^']+)'", ast.unparse(node)
        )
        if match:
            found.add((Path(path).parents[int(match[2] or 0)] / match[3]).as_posix())
    return found


@cache
def parameters_read(path: str) -> frozenset[str]:
    """Names such as train.lora_r, or train where a group is handed on, that stand behind `params.` in a file."""
    chains = {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    inner = {chain.rpartition(".")[0] for chain in chains}  # a.b of a.b.c
    names = {
        chain.partition("params.")[2] for chain in chains - inner if re.fullmatch(r"(\w+\.)*params\.[\w.]+", chain)
    }
    return frozenset(".".join(name.split(".")[:2]) for name in names)


def code_to_watch(stage: str) -> set[str]:
    """What of the repository's code a stage depends on: folders that it uses whole, else their files."""
    deciding = {path for path in closure(stage) if path in modules_in(path.split("/")[0])} - DECIDES_NOTHING
    whole = {
        folder
        for folder in {"/".join(path.split("/")[:2]) for path in deciding if path.count("/") > 1}
        if modules_in(folder) <= deciding
    }
    beside = {data for path in deciding for data in data_beside(path)}
    return whole | {path for path in deciding | beside if not any(path.startswith(f"{folder}/") for folder in whole)}


def is_code(dep: str) -> bool:
    return not dep.startswith(("data/", "metrics/", "models/"))


def covered(path: str, listed: set[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in listed)


def outputs(stage: dict[str, Any]) -> set[str]:
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return {next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_exactly_the_code_that_a_stage_uses(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if is_code(dep)}
    expected = code_to_watch(stage)
    lines = "\n".join(f"      - {path}" for path in sorted(expected))
    assert listed == expected, f"dvc.yaml, {stage}: missing {expected - listed}, too much {listed - expected}\n{lines}"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_the_data_that_the_code_names(stage: str) -> None:
    """Paths that stand in the code; an output counts only for what reads it later."""
    known = set(STAGES[stage]["deps"]) | outputs(STAGES[stage])
    constants = {
        node.value
        for path in closure(stage) - DECIDES_NOTHING
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    named = {text for text in constants if re.fullmatch(r"(data|metrics|models|demo)(/[\w.-]+)+", text)}
    unknown = {path for path in named if not covered(path, known)}
    assert {path for path in unknown if not any(one.startswith(f"{path}/") for one in known)} == set()
    if "ownhand/model/loading.py" in closure(stage):
        assert all(covered(file, known) for file in SMALL_FILES)
        assert stage == "prepare" or "models/base" in known


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_watches_the_parameters_that_a_stage_reads(stage: str) -> None:
    known = {group: model for group, model in groups() if "." not in group and group != "runtime"}
    listed = set(STAGES[stage]["params"])
    assert {name.partition(".")[0] for name in listed} <= known.keys()
    missing = set()
    for name in {name for path in closure(stage) for name in parameters_read(path)} - NOT_READ_BY.get(stage, set()):
        group, _, field = name.partition(".")
        if group not in known or group in listed or name in listed:
            continue
        some = any(one.startswith(f"{group}.") for one in listed)  # enough where the group is handed on as a whole
        if field in known[group].model_fields or not some:
            missing.add(name)
    assert missing == set()


def test_a_change_of_what_only_reports_trains_nothing() -> None:
    for stage in ("encode", "train", "transcribe", "cross_validate"):
        folders = {path.split("/")[1] for path in closure(stage)}
        assert not folders & {"checks", "report", "read.py", "export.py", "cli.py"}, stage


def test_every_stage_is_described_and_the_adapter_is_an_artifact_of_one() -> None:
    assert all(len(stage["desc"]) > 20 for stage in STAGES.values())
    (artifact,) = PIPELINE["artifacts"].values()
    assert artifact["type"] == "model" and artifact["desc"] and artifact["labels"]
    assert artifact["path"] in outputs(STAGES["train"])


def part_of(path: str) -> str:
    """The file or folder directly in ownhand/ that a module belongs to."""
    return path.split("/")[1]


def test_no_import_runs_upward_and_no_two_folders_import_each_other() -> None:
    level = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    assert all(len(layer) == 1 or all(part.endswith(".py") for part in layer) for layer in LAYERS)
    upward = []
    for path in sorted(modules_in("ownhand") - {"ownhand/__init__.py"}):
        assert part_of(path) in level, f"give {part_of(path)} its place in LAYERS"
        for other in project_imports(path) - {"ownhand/__init__.py"}:
            if not other.startswith("ownhand/") or level[part_of(other)] > level[part_of(path)]:
                upward.append(f"{path} imports {other}")
    assert sorted(upward) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    done: set[str] = set()

    def visit(path: str, way: tuple[str, ...]) -> None:
        assert path not in way, " -> ".join([*way[way.index(path) :], path])
        if path in done:
            return
        for other in sorted(project_imports(path)):
            if not other.endswith("__init__.py"):
                visit(other, (*way, path))
        done.add(path)

    for path in sorted(modules_in("ownhand") | modules_in("stages")):
        visit(path, ())


def test_stages_hold_stages_only_and_import_no_other() -> None:
    assert {Path(path).stem for path in modules_in("stages")} - {"__init__"} == set(STAGES)
    for stage in STAGES:
        others = {path for path in closure(stage) if path.startswith("stages/")}
        assert others == {f"stages/{stage}.py", "stages/__init__.py"}


DISTRIBUTIONS = cache(importlib.metadata.packages_distributions)  # by the name that is imported


def third_party(*folders: str) -> dict[str, set[str]]:
    """Distributions that the files of some folders import, by their names on PyPI, each with the files."""
    ours = {"ownhand", "stages", "demo", "benchmarks", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in modules_in(folder):
            for name in {name.partition(".")[0] for name in imported_names(path)} - set(sys.stdlib_module_names) - ours:
                for distribution in DISTRIBUTIONS().get(name, [name])[:1]:
                    found.setdefault(canonicalize_name(distribution), set()).add(path)
    return found


def listed_packages(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def test_every_package_that_is_listed_is_imported_and_every_import_is_listed() -> None:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    offered = [one for extra, packages in extras.items() if extra != "test" for one in packages]
    listed = listed_packages(PROJECT["dependencies"] + offered)
    imported = third_party("ownhand", "stages").keys()
    assert listed - imported - INDIRECT.keys() == set(), "listed, but nothing imports it"
    assert imported & INDIRECT.keys() == set(), "imported: take it out of INDIRECT"
    anywhere = third_party("ownhand", "stages", "demo", "benchmarks", "tests")
    known = listed | listed_packages(extras["test"]) | UNLISTED.keys()
    assert {name: files for name, files in anywhere.items() if name not in known} == {}, "imported, but not listed"


def test_every_parameter_is_read_somewhere() -> None:
    nodes = [node for path in modules_in("ownhand") | modules_in("stages") for node in ast.walk(tree_of(path))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    unread = [f"{name}.{field}" for name, model in groups() for field in model.model_fields if field not in read]
    assert unread == []
