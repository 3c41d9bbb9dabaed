"""The command `ownhand`: what a person runs beside `dvc repro`.

Each command imports what it needs when it runs, so that `ownhand --help` does not wait for torch. All of them end as a
stage ends (`ownhand.errors.run_stage`): what a person can mend is a message and exit code 1.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ownhand.errors import run_stage, set_up_output

BEFORE = "Before training"
TRAINED = "With the trained adapter"
ADAPTER = Path("models/adapter")


class Commands(TyperGroup):
    """Runs every command, also one that is added later, as a stage is run."""

    def invoke(self, ctx: Any) -> None:
        run_stage(lambda: super(Commands, self).invoke(ctx), resumes=False)


class Style(StrEnum):
    """How `ownhand read` shows what it has read."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    PAGE = "page"
    ALTO = "alto"


class Order(StrEnum):
    """Which line `ownhand correct` shows first."""

    UNCERTAIN = "uncertain"
    PAGE = "page"


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a fault of ours keeps its plain traceback
    rich_markup_mode="markdown",
)


@app.callback()
def describe() -> None:
    """Teach DeepSeek-OCR to read one person's own handwriting.

    Put photographs and their transcriptions into `data/raw` (DATA.md says how) and run `dvc repro`: it trains an
    adapter and writes metrics/report/index.html, which says how well it reads pages it has never seen. The commands
    below are what there is to do before and after.
    """


@app.command(rich_help_panel=BEFORE)
def preset(
    name: Annotated[str | None, typer.Argument(help="One of those that are listed without a name.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the values that you have set yourself.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the values that you have set yourself.")] = False,
) -> None:
    """Set params.yaml for a machine: list the presets, or take one over."""
    from ownhand import presets

    known = presets.read_presets()
    if name is None:
        print(presets.describe(known))
        return
    if keep and force:
        raise typer.BadParameter("--keep and --force exclude each other")
    for line in presets.apply(presets.choose(name, known), known, keep=keep, force=force):
        print(line)


@app.command(rich_help_panel=BEFORE)
def check(
    overfit: Annotated[bool, typer.Option("--overfit", help="Train four lines by heart first, for proof.")] = False,
) -> None:
    """Say whether training can start, what will happen, and what should be changed first."""
    from ownhand.checks.readiness import report_readiness

    report_readiness(overfit)


@app.command(rich_help_panel=BEFORE)
def lines(
    pictures: Annotated[list[str], typer.Argument(metavar="PHOTO|FOLDER...", help="Photographs of pages.")],
    preview: Annotated[Path | None, typer.Option(help="A folder for pictures with the lines drawn in.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Find them anew where a PAGE or ALTO file stands.")] = False,
) -> None:
    """Find the lines of photographed pages and write a PAGE XML file beside each."""
    from ownhand.images import ImageLimits
    from ownhand.pages.lines import find_lines
    from ownhand.params import read_params

    raise typer.Exit(find_lines(pictures, ImageLimits.of(read_params().prepare), preview, force))


@app.command(rich_help_panel=BEFORE)
def correct(
    review: Annotated[bool, typer.Option("--review", help="Check lines that have a transcription.")] = False,
    order: Annotated[Order, typer.Option(help="Least certain first, or as on the pages.")] = Order.UNCERTAIN,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Transcribe lines, or check them, on a page in the browser; what is accepted is ground truth at once."""
    from ownhand import correct as module
    from ownhand.params import read_params

    module.correct(read_params(), review=review, order=order.value, port=port, browser=browser)


@app.command(rich_help_panel=TRAINED)
def read(
    pictures: Annotated[list[str], typer.Argument(metavar="PHOTO|FOLDER...", help="Photographs, or folders of them.")],
    pages: Annotated[bool, typer.Option("--pages", help="Find the lines of photographs that no file has.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Read every photograph as one, whatever its lines.")] = False,
    base: Annotated[bool, typer.Option("--base", help="Use the base model alone, without the adapter.")] = False,
    adapter: Annotated[Path, typer.Option(help="The adapter to use.")] = ADAPTER,
    style: Annotated[Style, typer.Option("--format", help="Text, JSON with a confidence, or a file a page.")] = (
        Style.TEXT
    ),
    out: Annotated[
        Path | None,
        typer.Option(help="A JSON Lines file that a second run goes on with; for page and alto a folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace PAGE and ALTO files in that folder.")] = False,
) -> None:
    """Read new photographs: lines, or pages through the lines of their PAGE and ALTO files."""
    from ownhand import read as module
    from ownhand.params import read_params

    how = module.How(style.value, out, pages=pages, whole=whole, force=force)
    raise typer.Exit(module.read(pictures, read_params(), None if base else adapter, how))


@app.command(rich_help_panel=TRAINED)
def read_served(
    out: Annotated[Path, typer.Option(help="A JSON Lines file; an interrupted run goes on there.")],
    pictures: Annotated[
        list[str] | None, typer.Argument(metavar="PHOTO|FOLDER...", help="Photographs, folders.")
    ] = None,
    server: Annotated[str, typer.Option(help="The server, up to and with /v1.")] = "http://localhost:8000/v1",
    model: Annotated[str, typer.Option(help="The name under which it serves the model.")] = "hand",
    engine: Annotated[str, typer.Option(help="vllm, sglang, or llama.cpp (for Ollama, too).")] = "vllm",
    concurrency: Annotated[int, typer.Option(min=1, help="How many pictures it reads at a time.")] = 32,
    validation: Annotated[bool, typer.Option("--validation", help="Read the validation pictures.")] = False,
) -> None:
    """Read many photographs through a server, such as vLLM's: docs/serving.md says how to start one."""
    from ownhand import serving_client
    from ownhand.params import read_params

    raise SystemExit(
        serving_client.read_served(
            pictures or [],
            read_params(),
            url=server,
            model=model,
            out=out,
            engine=engine,
            concurrency=concurrency,
            validation=validation,
        )
    )


@app.command(rich_help_panel=TRAINED)
def compare(
    file: Annotated[Path, typer.Argument(help="What it read: a JSONL file as data/others/README.md says.")],
    name: Annotated[str | None, typer.Option(help="What to call it; else the file's name.")] = None,
) -> None:
    """Compare another OCR, such as Tesseract, with base model and adapter on the validation lines."""
    from ownhand.evaluation import others
    from ownhand.params import read_params

    print(others.compare(Path(), file, name or file.stem, read_params().evaluate))


@app.command(rich_help_panel=TRAINED)
def curve(
    target: Annotated[float, typer.Option(min=0.1, max=100, help="CER in per cent to be reached.")] = 10.0,
    points: Annotated[int, typer.Option(min=2, max=8, help="Sizes: all lines, half of them, a quarter ...")] = 4,
) -> None:
    """Say what more lines would bring: train on ever larger parts of the pages and measure each."""
    from ownhand import curve as module
    from ownhand.params import read_params

    module.curve(read_params(), target / 100, points)


@app.command(rich_help_panel=TRAINED)
def clean() -> None:
    """Free the disk of unfinished work and of what is kept to make the next run short."""
    from ownhand import clean as module

    module.clean()


@app.command(rich_help_panel=TRAINED)
def export() -> None:
    """Write the trained model for others: merged into one checkpoint, and as an adapter for serving engines."""
    from ownhand import export as module

    module.main()


def main() -> None:
    """Run the command line."""
    set_up_output()  # for the help, too
    app()
