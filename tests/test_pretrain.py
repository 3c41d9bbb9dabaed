"""What trains the demo base model, apart from the hours it takes."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from demo import lines, real_lines
from demo.drawing import Hand, draw_line
from demo.pretrain import Muon, make_optimizers, orthogonalise
from demo.shape import MAX_LENGTH, TRAINED, VIEW_SIZES

FONTS = Path(__file__).parent.parent / "demo/fonts"
PROSE = {"ru": "На вокзале было холодно, и поезд опаздывал.", "fr": "Le train arriva enfin, couvert de neige."}
SCRIPTS = {"Cyrillic": set("бгджзийлфцчшщъыьэюя"), "Latin": set("abcdefghijklmnopqrstuvwxyz")}


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(1)
    for shape in ((24, 24), (3, 40, 16), (16, 40)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5 and values.max() < 1.3, shape


def test_a_step_of_a_stack_is_the_steps_of_its_matrices() -> None:
    torch.manual_seed(2)
    stack = torch.nn.Parameter(torch.randn(2, 8, 6))
    single = [torch.nn.Parameter(matrix.detach().clone()) for matrix in stack]
    for optimizer in (Muon([stack], lr=0.1), Muon(list(single), lr=0.1)):
        optimizer.zero_grad()
    stack.grad = torch.randn(2, 8, 6)
    for matrix, gradient in zip(single, stack.grad, strict=True):
        matrix.grad = gradient.clone()
    before = stack.detach().clone()
    Muon([stack], lr=0.1).step()
    Muon(list(single), lr=0.1).step()
    assert not torch.allclose(stack, before)
    assert torch.allclose(stack, torch.stack(list(single)), atol=1e-6)


def test_each_parameter_has_one_optimizer() -> None:
    model = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(5, 4), "proj": torch.nn.Linear(4, 4), "conv": torch.nn.Conv1d(4, 4, 3)}
    )
    held = [id(p) for optimizer in make_optimizers(model) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    muon = {id(p) for group in make_optimizers(model)[0].param_groups for p in group["params"]}
    assert muon == {id(model["proj"].weight)}


def test_the_record_of_trained_lines_is_true_of_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wordfreq")
    drawn = []
    monkeypatch.setattr(lines, "make_batch", lambda samples, *_: drawn.extend(samples) or {})
    fonts = [sorted((FONTS / kind).glob("*.woff2")) for kind in ("printed", "handwritten")]
    source = lines.TextSource(["кот пошёл в лес за грибами", "мама мыла раму и окно"], PROSE)
    batches = iter(lines.DrawnLines(source, *fonts, [], 16, seed=3, longest=torch.tensor([lines.USUAL_LENGTH])))
    for _ in range(4):
        next(batches)
    assert max(len(text) for text, _ in drawn) <= MAX_LENGTH
    shown = [(views.grid[0] * VIEW_SIZES["tile"] / len(text), views.tokens / len(text)) for text, views in drawn]
    assert sum(px < TRAINED.pixels or tokens < TRAINED.vision for px, tokens in shown) <= 4
    assert sum(px < 2 * TRAINED.pixels for px, _ in shown) > 10, "the record is not far below"


def test_a_line_of_prose_is_a_piece_of_it_that_may_end_within_a_word() -> None:
    rng, source, ends = random.Random(1), lines.TextSource(["кот"], PROSE), set()
    for _ in range(400):
        length = rng.randint(12, 40)
        text = source._prose(rng, length)
        assert 0 < len(text) <= length
        ends.add(text[-1])
        assert any(f" {text.removesuffix('-')}" in f" {prose} {prose}" for prose in PROSE.values()), text
    assert {"-", "."} < ends


def test_words_of_two_scripts_stand_in_one_line_and_can_be_told_apart() -> None:
    pytest.importorskip("wordfreq")
    rng, source = random.Random(1), lines.TextSource(["кот"], PROSE)
    texts = [source.draw(rng, 60) for _ in range(700)]
    scripts = [{name for name, letters in SCRIPTS.items() if letters & set(text.lower())} for text in texts]
    mixed = [text for text, found in zip(texts, scripts, strict=True) if len(found) == 2]
    assert 20 < len(mixed) < 200
    # "CAB" among Russian words is a picture of two texts, of which one would be an error.
    latin = [word for text in mixed for word in re.findall("[A-Z]{2,}", text)]
    assert latin and not [word for word in latin if lines.LOOK_ALIKE.issuperset(word)]


@pytest.mark.parametrize(
    "font", ["handwritten/amatic-sc-regular", "printed/poiret-one-regular", "printed/prata-regular"]
)
def test_no_pen_is_too_light_to_be_read(font: str) -> None:
    """Half of a thin stroke used to go, and with it a line that nobody could read was trained on."""
    plain, rng = Hand(grain=0, shade=0, blur_px=0), np.random.default_rng(2)
    path = FONTS / f"{font}.woff2"
    for stroke in (-1.0, 0.0):
        pressed = replace(plain, stroke=stroke, pressure=0.5)
        ink = [
            (np.asarray(draw_line("Формат пера", path, hand, rng, 96).convert("L")) < 160).mean()
            for hand in (plain, pressed)
        ]
        assert ink[1] > 0.5 * ink[0], (font, stroke)


def test_a_line_cut_along_its_letters_keeps_them() -> None:
    path = FONTS / "printed/roboto-regular.woff2"
    plain = Hand(grain=0, shade=0, blur_px=0, paper=(200, 200, 200))
    whole, cut = (
        np.asarray(draw_line("Щука у реки", path, replace(plain, outline=outline), np.random.default_rng(1), 96))
        for outline in (False, True)
    )
    outside = (cut == 255).all(-1)
    assert 0.03 < outside.mean() < 0.7
    assert (whole[outside].min(-1) > 120).mean() > 0.99, "no letter was cut off"
    assert (cut[~outside].min(-1) < 100).sum() > 0.98 * (whole.min(-1) < 100).sum()


def write_page(folder: Path, *texts: str) -> None:
    """A page of 1000 by 500 px with one line of 300 by 40 px for each text, and its PAGE XML."""
    folder.mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (500, 1000, 3), dtype=np.uint8)).save(folder / "p.jpg")
    rows = "".join(
        f'<TextLine id="l{n}"><Coords points="0,{50 * n} 300,{50 * n} 300,{50 * n + 40} 0,{50 * n + 40}"/>'
        f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine>"
        for n, text in enumerate(texts)
    )
    xml = f'<PcGts xmlns="x"><Page imageFilename="p.jpg" imageWidth="1000" imageHeight="500">{rows}</Page></PcGts>'
    (folder / "p.xml").write_text(xml, encoding="utf-8")


def test_real_lines_are_cut_and_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has marks of an edition, is short, or is too narrow for its text does not train."""
    kept = ["Ceci est mon testament", "légué à ma sœur Émilie"]
    write_page(tmp_path / "pages", *kept, "lu &gt;et biffé&lt; approuvé", "no 12", "12 4 1908 17", kept[0] * 4)
    monkeypatch.setattr(real_lines, "FOLDER", tmp_path)
    monkeypatch.setattr(real_lines, "SOURCES", {"some": real_lines.Source("someone/pages", "0" * 40)})
    real_lines.cut_sources({"pages": tmp_path / "pages"})
    real_lines.cut_sources({})  # clones nothing that was cut already
    pairs = real_lines.read_real_lines("some")
    assert [text for _, text in pairs] == kept
    assert [Image.open(path).size for path, _ in pairs] == [(300, 40)] * 2
    assert len(list((tmp_path / "some/images").iterdir())) == 2, "what does not train is not left behind"
    assert [text for text, _ in lines.real_samples(pairs)] == kept

    drawn: list[tuple[str, Any]] = []
    monkeypatch.setattr(lines, "make_batch", lambda samples, *_: drawn.extend(samples) or {})
    monkeypatch.setattr(lines, "REAL_SHARE", 1.0)
    batches = iter(lines.DrawnLines(lines.TextSource(["кот"], PROSE), [], [], pairs, 32, 3, torch.tensor([12])))
    next(batches)
    assert {text for text, _ in drawn} == set(kept)
    views = [view.global_view for text, view in drawn if text == kept[0]]
    assert not torch.equal(views[0], views[1]), "each time another copy"


def test_training_without_the_real_lines_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_lines, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="python -m demo.real_lines"):
        real_lines.read_real_lines("copiste")
