"""What trains the demo base model, apart from the hours it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demo import lines
from demo.pretrain import Muon, make_optimizers, orthogonalise
from demo.shape import MAX_LENGTH, TRAINED, VIEW_SIZES

FONTS = Path(__file__).parent.parent / "demo/fonts"


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
    drawn = []
    monkeypatch.setattr(lines, "make_batch", lambda samples, *_: drawn.extend(samples) or {})
    fonts = [sorted((FONTS / kind).glob("*.woff2")) for kind in ("printed", "handwritten")]
    source = lines.TextSource(["кот пошёл в лес за грибами", "мама мыла раму и окно"])
    next(iter(lines.DrawnLines(source, *fonts, batch_size=40, seed=3, longest=torch.tensor([MAX_LENGTH]))))
    shown = [(views.grid[0] * VIEW_SIZES["tile"] / len(text), views.tokens / len(text)) for text, views in drawn]
    assert sum(px < TRAINED.pixels or tokens < TRAINED.vision for px, tokens in shown) <= 4
    assert sum(px < 2 * TRAINED.pixels for px, _ in shown) > 10, "the record is not far below"
