"""The command `ownhand`: a first page that comes at once, exit codes like a stage's, output that takes any text."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner
from validation_set import ROWS, write_validation_set

from ownhand import presets
from ownhand.cli import app
from ownhand.params import Params, flatten, read_params

ROOT = Path(__file__).parent.parent
WINDOWS_REDIRECTED = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}


def run(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """`python` with some arguments in another folder, the project's modules at hand."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, check=False)


def command(*arguments: str) -> tuple[int, str]:
    """(exit code, everything that was said) of a command in this process."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without data, to stand in."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_page_names_every_command_in_its_group_and_loads_nothing_heavy(tmp_path: Path) -> None:
    ended = run(tmp_path, "-X", "importtime", "-m", "ownhand", "--help", environment=WINDOWS_REDIRECTED)
    assert ended.returncode == 0
    page = ended.stdout.decode("utf-8")
    before, _, after = page.partition("With the trained adapter")
    assert "Before training" in before
    assert all(f" {name} " in before for name in ("preset", "check"))
    assert all(f" {name} " in after for name in ("read", "compare", "clean", "export"))
    imported = set(re.findall(r"\|\s+(\w+)$", ended.stderr.decode(), re.MULTILINE))
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "peft", "numpy", "pydantic", "PIL", "dvc"}


def test_every_command_explains_itself() -> None:
    for name in ("preset", "check", "read", "compare", "export"):
        code, said = command(name, "--help")
        assert code == 0 and "Usage" in said, name


def test_a_preset_is_listed_taken_over_and_refused(folder: Path) -> None:
    code, said = command("preset")
    assert code == 0 and "gpu-24gb" in said and "params.yaml is cpu-demo" in said
    code, said = command("preset", "gpu-24gb")
    assert code == 0 and "model.name_or_path: " in said
    wanted = presets.choose("gpu-24gb", presets.read_presets()).everything
    assert flatten(read_params()) == wanted
    presets.apply(presets.choose("cpu-demo", presets.read_presets()), presets.read_presets(), keep=False, force=False)
    assert read_params() == Params()
    code, said = command("preset", "gpu-24")
    assert code == 1 and "error: there is no preset 'gpu-24'; did you mean gpu-24gb?" in said
    code, said = command("preset", "gpu-24gb", "--keep", "--force")
    assert code == 2 and "exclude each other" in said


def test_another_ocr_is_compared_under_the_name_of_its_file(folder: Path) -> None:
    write_validation_set(folder)
    lines = [f'{{"image_id": "0000{number}", "prediction": ""}}\n' for number in range(2, 2 + len(ROWS))]
    (folder / "kraken.jsonl").write_text("".join(lines), encoding="utf-8")
    code, said = command("compare", "kraken.jsonl")
    assert code == 0 and re.search(r"kraken +100\.0%", said)
    assert (folder / "data/others/kraken.jsonl").exists()
    code, said = command("compare", "kraken.jsonl", "--name", "base")
    assert code == 1 and "'base' cannot be the name of a reader" in said
    code, said = command("compare", "nosuch.jsonl")
    assert code == 1 and "nosuch.jsonl is missing" in said
    code, said = command("compare", "data")
    assert code == 1 and "data is a folder; name the JSONL file" in said


def test_clean_frees_what_can_be_made_again_and_says_how_much(folder: Path) -> None:
    for name in ("encode/ab/tokens.safetensors", "train/cd/checkpoint-5/COMPLETE", "correct/journal.jsonl"):
        (folder / ".checkpoints" / name).parent.mkdir(parents=True)
        (folder / ".checkpoints" / name).write_bytes(bytes(1_000_000))
    (folder / "data").mkdir()
    with FileLock(folder / ".checkpoints/encode.lock"):
        code, said = command("clean")
        assert code == 1 and "a run works in .checkpoints/encode" in said
    code, said = command("clean")
    assert code == 0 and ".checkpoints/encode: 1.0 MB" in said and "2.0 MB freed" in said
    assert [path.name for path in (folder / ".checkpoints").iterdir() if path.is_dir()] == ["correct"]
    assert (folder / ".checkpoints/correct/journal.jsonl").exists() and (folder / "data").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_clean_empties_a_folder_that_is_a_link_to_another_disk(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (disk / "checkpoint-5").mkdir(parents=True)
    (disk / "checkpoint-5/COMPLETE").write_bytes(bytes(1_000_000))
    (folder / ".checkpoints").mkdir(exist_ok=True)
    (folder / ".checkpoints/train").symlink_to(disk)
    code, said = command("clean")
    assert code == 0 and "1.0 MB freed" in said
    assert not list(disk.iterdir()) and (folder / ".checkpoints/train").is_dir()


@pytest.mark.parametrize("target", ["data", ".", ".checkpoints", ".."])
def test_clean_touches_nothing_where_a_link_leads_into_the_project_or_above_it(folder: Path, target: str) -> None:
    (folder / ".checkpoints/train").mkdir(parents=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/page.jpg").write_bytes(b"x")
    (folder / ".checkpoints/other").symlink_to(folder / target)
    code, said = command("clean")
    assert code == 1 and ".checkpoints/other is a link" in said
    assert (folder / "data/page.jpg").exists() and (folder / ".checkpoints/train").exists()


def test_check_writes_its_report_even_where_the_parameters_are_broken(folder: Path) -> None:
    (folder / "params.yaml").write_bytes("# Доля".encode("utf-16"))
    code, said = command("check")
    assert code == 1 and "CONF-001" in said and "UTF-16" in said and "NOT READY" in said
    assert "UTF-16" in (folder / "metrics/readiness.md").read_text(encoding="utf-8")
    assert not (folder / "metrics/ready.txt").exists()


def test_an_interrupted_command_promises_no_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ownhand.presets.read_presets", interrupt)
    assert command("preset") == (130, "interrupted\n")


def test_a_mistake_of_ours_keeps_its_plain_traceback(folder: Path) -> None:
    code = "import ownhand.presets as p, ownhand.cli as c\np.read_presets = lambda: 1 / 0\nc.app(['preset'])"
    ended = run(folder, "-c", code)
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_letters_of_every_script_pass_a_console_that_is_not_utf_8(tmp_path: Path) -> None:
    """As on Windows, where output goes into a file: on both streams."""
    root = write_validation_set(tmp_path)
    shutil.copyfile(root / "data/predictions/base.jsonl", root / "отчёт.jsonl")
    for arguments in (["-m", "ownhand", "compare", "отчёт.jsonl"], ["-m", "ownhand", "compare", "файл.jsonl"]):
        ended = run(root, *arguments, environment=WINDOWS_REDIRECTED)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert ended.stderr.decode("utf-8").startswith(f"error: {arguments[-1]}: ")
    code = "from ownhand.errors import run_stage\nrun_stage(lambda: print('имя', 'bad\\udcff'))"
    ended = run(tmp_path, "-c", code, environment=WINDOWS_REDIRECTED)
    assert (ended.returncode, ended.stdout.decode("utf-8").strip()) == (0, "имя bad\\udcff")


@pytest.mark.slow
def test_prepare_names_pictures_on_a_console_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    shutil.copytree(ROOT / "models/base", tmp_path / "models/base")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    rows = ["filename,text,примечание"]
    for number in range(4):
        Image.new("RGB", (200 + number, 40), (10 * number, 255, 255)).save(tmp_path / f"data/raw/стр {number}.png")
        rows.append(f"стр {number}.png,строка {number},")
    (tmp_path / "data/raw/annotations.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    ended = run(tmp_path, "-m", "stages.prepare", environment=WINDOWS_REDIRECTED)
    assert ended.returncode == 0, ended.stderr.decode("utf-8", "replace")[-2000:]
    assert "columns that are not used: примечание" in ended.stdout.decode("utf-8")


@pytest.mark.skipif(os.name == "nt", reason="Windows shells close no streams")
@pytest.mark.parametrize(("closed", "code_of_exit"), [("2>&-", 0), (">&- 2>&-", 1), ("<&- >&- 2>&-", 1)])
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path, closed: str, code_of_exit: int) -> None:
    code = "from ownhand.errors import run_stage; import os\nrun_stage(lambda: (print('x'), os.write(1, b'y'))[0])"
    ended = run(
        tmp_path,
        "-c",
        "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1], shell=True))",
        f'{sys.executable} -c "{code}" {closed}',
    )
    assert ended.returncode == code_of_exit, ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    code = "from ownhand.errors import run_stage\nrun_stage(lambda: print('x' * 10**6))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(), said) == (1, "")


@pytest.mark.skipif(os.name == "nt", reason="its shell closes no output")
def test_a_closed_standard_output_is_a_sentence_before_anything_is_done(folder: Path) -> None:
    before = (folder / "params.yaml").read_bytes()
    line = f"{shlex.quote(sys.executable)} -m ownhand preset gpu-24gb >&-"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(line, shell=True, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: standard output is closed") and ended.stderr.count("\n") == 1
    assert (folder / "params.yaml").read_bytes() == before
