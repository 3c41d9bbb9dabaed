"""Transcribe: which picture is shown with which transcription, and to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch

from ownhand.params import TranscribeParams
from ownhand.samples import Reading, Sample
from ownhand.vision.probes import printed_lines
from stages import transcribe


class Model:
    """Knows whether its adapter is switched on."""

    adapter = True

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self.adapter = False
        yield
        self.adapter = True


class Cache:
    """Gives every key a number of its own as its tokens."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def tokens(self, key: str) -> torch.Tensor:
        self.keys.append(key)
        return torch.tensor([[len(self.keys) - 1.0]])


@pytest.fixture
def cache() -> Cache:
    return Cache()


def transcribe_probes(samples: list[Sample], cache: Cache, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows; a "reading" is the key of the picture that was shown and whether the adapter was on."""

    def show(model: Model, tokens: Sequence[torch.Tensor], *_: object) -> list[Reading]:
        return [Reading(f"{cache.keys[int(t)]} {model.adapter}", 1, False, 1.0) for t in tokens]

    monkeypatch.setattr(transcribe, "transcribe_tokens", show)
    params = TranscribeParams(max_new_tokens=1, no_repeat_ngram_size=0, batch_size=1)
    unused, tokens_of = cast(Any, None), {"base": cache.tokens, "adapter": cache.tokens}
    text = transcribe.transcribe_probes(cast(Any, Model()), samples, tokens_of, unused, params)
    return [json.loads(row) for row in text.splitlines()]


def validation(texts: Sequence[str]) -> list[Sample]:
    return [
        Sample(f"{n:05d}", f"{n}.jpg", text, f"{n}.jpg", "p", "", 300, 64, "val", str(n))
        for n, text in enumerate(texts)
    ]


def test_the_picture_named_is_the_picture_shown_and_the_truth_stays_with_its_line(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = transcribe_probes(validation(["раз", "два", "раз"]), cache, monkeypatch)
    assert all(row["prediction"].split()[0] == row["picture"] for row in rows)
    swapped = [(row["image_id"], row["picture"], row["truth"]) for row in rows if row["probe"] == "swapped"]
    assert swapped == [("00000", "00001", "раз"), ("00001", "00002", "два"), ("00002", "00001", "раз")]
    blank = [(row["image_id"], row["picture"], row["truth"]) for row in rows if row["probe"] == "blank"]
    assert blank == [(f"{n:05d}", f"blank/{n:05d}", text) for n, text in enumerate(["раз", "два", "раз"])]


def test_printed_lines_are_read_with_and_without_the_adapter_and_the_others_with_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = transcribe_probes(validation(["раз", "два"]), cache, monkeypatch)
    for row in rows:
        assert row["prediction"].endswith(str(row["reader"] == "adapter"))
    for reader in ("base", "adapter"):
        own = [row["truth"] for row in rows if (row["probe"], row["reader"]) == ("printed", reader)]
        assert own == [line.text for line in printed_lines()]
    assert {row["probe"] for row in rows if row["reader"] == "base"} == {"printed"}


def test_a_single_line_has_no_other_picture(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = transcribe_probes(validation(["раз"]), cache, monkeypatch)
    assert {row["probe"] for row in rows} == {"blank", "printed"}
