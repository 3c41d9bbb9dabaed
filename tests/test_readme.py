"""The two READMEs: the same commands in both languages, and a first page that stays one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGLISH, RUSSIAN = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ru.md"))


def commands(readme: str) -> list[str]:
    """The lines of all code blocks that are commands."""
    blocks = re.findall(r"^ *```\n(.*?)^ *```", readme, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("pip ", "dvc ", "ownhand "))]


def test_both_languages_have_the_same_commands() -> None:
    assert commands(ENGLISH) == commands(RUSSIAN)
    assert "pip install -e . && dvc repro" in commands(ENGLISH)


def test_the_test_command_is_that_of_ci() -> None:
    assert commands(ENGLISH)[-1] in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_first_page_is_short_and_every_link_leads_somewhere() -> None:
    assert len(ENGLISH.split()) <= 900
    for readme in (ENGLISH, RUSSIAN):
        links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if not link.startswith("http")]
        assert [link for link in links if not (ROOT / link).exists()] == []
