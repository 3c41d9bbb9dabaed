"""Subsets of the training pages: nested, of whole groups, and the same again when asked for the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import written

from ownhand.errors import Refusal
from ownhand.samples import Sample
from ownhand.training.subsets import Subset, choose_subsets


def samples(pages: int, lines: int = 4) -> list[Sample]:
    """Pages of so many lines, two of each three in training; every sixth page belongs together with the one before."""
    found = []
    for page in range(pages):
        group = f"g{page - 1 if page % 6 == 1 else page}"
        for line in range(lines):
            sample = written("", f"p{page}", f"{page} {line}", "val" if page % 3 == 2 else "train")
            name = f"{page:03d}{line}"
            found.append(replace(sample, image_id=name, sha256=f"sha {name}", group=group))
    return found


def ids(subset: Subset) -> set[str]:
    return {sample.image_id for sample in subset.samples}


def test_subsets_of_one_end_hold_each_other_and_no_group_is_torn() -> None:
    every = samples(60)
    groups = {one.image_id: one.group for one in every}
    subsets = choose_subsets(every, 4)
    assert [len(subset.samples) for subset in subsets][-1] == 160 and subsets[-1].name == "all 160 lines"
    for end in ("first", "last"):
        row = [subset for subset in subsets if subset.name.startswith(end)]
        assert len(row) == 3
        for small, large in zip(row, [*row[1:], subsets[-1]], strict=True):
            assert ids(small) < ids(large)
    for subset in subsets:
        own = {groups[name] for name in ids(subset)}
        assert all(one.split == "train" for one in subset.samples)
        assert ids(subset) == {one.image_id for one in every if one.split == "train" and one.group in own}
        assert len(subset.samples) == int(subset.name.split()[1])
    for share, pair in zip((1 / 8, 1 / 4, 1 / 2), zip(subsets[::2], subsets[1::2], strict=False), strict=True):
        assert all(len(one.samples) == pytest.approx(160 * share, abs=8) for one in pair)
    halves = [ids(subset) for subset in subsets[4:6]]
    assert len(halves[0] & halves[1]) <= 8


def test_the_order_follows_the_pictures_and_not_their_names() -> None:
    every = samples(30)
    again = [replace(one, image_id=f"{10_000 - int(one.image_id)}", page=f"x{one.page}") for one in every]
    texts = [{one.text for one in subset.samples} for subset in choose_subsets(every, 3)]
    assert [{one.text for one in subset.samples} for subset in choose_subsets(again[::-1], 3)] == texts
    other = [replace(one, sha256=f"other {one.sha256}") for one in every]
    assert [{one.text for one in subset.samples} for subset in choose_subsets(other, 3)] != texts


def test_more_points_keep_the_subsets_of_fewer() -> None:
    few, many = (choose_subsets(samples(60), points) for points in (3, 5))
    assert {one.name for one in few} < {one.name for one in many}


def test_two_pages_give_each_and_both_and_one_group_is_refused() -> None:
    two = [one for one in samples(5) if one.page in ("p3", "p4")]
    assert [subset.name for subset in choose_subsets(two, 4)] == ["first 4 lines", "last 4 lines", "all 8 lines"]
    with pytest.raises(Refusal, match=r"8 training line\(s\) make 1 group\(s\) of pages, too few for a curve"):
        choose_subsets(samples(2), 4)
