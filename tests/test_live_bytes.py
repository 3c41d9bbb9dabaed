"""The counter of living tensors, against sums that anyone can redo."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ownhand.model.live_bytes import LiveBytes


def test_the_peak_is_what_lived_at_the_same_time() -> None:
    model = torch.nn.Linear(10, 10, bias=False)
    with LiveBytes(model) as counter:
        first = torch.ones(1000)
        del first
        second = torch.ones(500)
        third = second.view(50, 10)  # the same bytes, seen otherwise
        assert counter.live == 400 + 2000
        del second, third
    assert counter.live == 400
    assert counter.peak == 400 + 4000


def test_tensors_without_content_count_as_those_with() -> None:
    def step() -> int:
        model = torch.nn.Linear(64, 32)
        with LiveBytes(model) as counter:
            model(torch.ones(8, 64)).sum().backward()  # type: ignore[no-untyped-call]
        return counter.peak

    with FakeTensorMode():
        without = step()
    assert without == step() > 4 * (64 * 32 + 32 + 8 * 64 + 8 * 32)
