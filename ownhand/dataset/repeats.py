"""Repeated texts: what of one text could be recited, because another sample holds it, too.

A long text that stands on few pages, and a passage of several lines, are somebody's copy: a page that trained on it
gives it away. A phrase that recurs (a greeting, a date, a page number, a signature) is a writer's habit, which will
stand on the next page, too: it ties no pages together, and what is read of it is counted apart.

Texts are compared by their words alone: case, punctuation and line breaks do not count.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from ownhand.text import comparable, grapheme_clusters, words

FEW_PAGES = 3  # a fair copy and its drafts; what stands on more pages recurs
PASSAGE_CHARACTERS = 200  # of words in a row: eight lines of verse; letterheads, dates and greetings stay below it

# From here on a text that stands inside another one tells more than a common phrase would.
CONTAINED_WORDS, CONTAINED_CHARACTERS = 3, 15

Words = tuple[str, ...]


def text_key(text: str) -> str:
    """What two texts are the same by: their words; the text itself where it has none, such as "—"."""
    return " ".join(words(text)) or comparable(text)


def count_pages(texts: Sequence[str], pages: Sequence[Hashable]) -> list[int]:
    """On how many pages each text stands. texts, pages: one entry per sample."""
    keys = [text_key(text) for text in texts]
    found: dict[str, set[Hashable]] = {}
    for key, page in zip(keys, pages, strict=True):
        found.setdefault(key, set()).add(page)
    return [len(found[key]) for key in keys]


def find_recurring(texts: Sequence[str], pages: Sequence[Hashable]) -> list[bool]:
    """Whether each text recurs: stands on more than FEW_PAGES pages."""
    return [count > FEW_PAGES for count in count_pages(texts, pages)]


def find_passages(
    texts: Sequence[str], pages: Sequence[Hashable], least_characters: int = 0
) -> Iterator[tuple[int, int]]:
    """(index of a sample, hash) of every passage that begins in it: equal hashes are equal words in a row.

    A passage begins at any word of a page and goes on, over the ends of lines, until it has PASSAGE_CHARACTERS (or
    `least_characters`, where these are more) and its word ends.
    """
    characters = max(PASSAGE_CHARACTERS, least_characters)
    of_page: dict[Hashable, list[int]] = {}
    for i, page in enumerate(pages):
        of_page.setdefault(page, []).append(i)
    for own in of_page.values():
        starts: list[tuple[int, int]] = []  # (sample, place of a word in `joined`)
        at = 0
        parts = []
        for i in own:
            for word in words(texts[i]):
                starts.append((i, at))
                parts.append(word)
                at += len(word) + 1
        joined = " ".join(parts) + " "
        for i, start in starts:
            end = joined.find(" ", start + characters)
            if end < 0:
                break
            yield i, hash(joined[start:end])


def find_contained(texts: Sequence[str], pages: Sequence[Hashable]) -> list[tuple[int, int]]:
    """(inner, outer) for texts whose words stand, in a row, in another's; one pair for each text and two pages.

    Only inner texts of at least 3 words and 15 characters are looked for, no text is inside an identical one, and one
    that stands on more than FEW_PAGES pages, alone or inside others, recurs and is left out.
    """
    worded = [tuple(words(text)) for text in texts]
    inner = _InnerTexts(texts)
    alone: dict[Words, dict[Hashable, int]] = {}  # the first sample on each page
    inside: dict[Words, dict[Hashable, int]] = {}
    for i, (own, page) in enumerate(zip(worded, pages, strict=True)):
        if own in inner.texts:
            alone.setdefault(own, {}).setdefault(page, i)
        for found in inner.of(own):
            places = inside.setdefault(found, {})
            if len(places) <= FEW_PAGES:
                places.setdefault(page, i)
    return sorted(
        (i, j)
        for found, outer in inside.items()
        if len(alone[found].keys() | outer.keys()) <= FEW_PAGES
        for i in alone[found].values()
        for j in outer.values()
    )


def find_trained(held_out: Sequence[str], trained: Sequence[str]) -> list[bool]:
    """Whether each held-out text was trained on: as the text of a sample, or inside one (as in `find_contained`)."""
    keys = {text_key(text) for text in trained}
    inner = _InnerTexts(held_out)
    inside = {found for text in trained for found in inner.of(tuple(words(text)))} if inner.texts else set()
    return [text_key(text) in keys or tuple(words(text)) in inside for text in held_out]


class _InnerTexts:
    """Texts long enough to be looked for inside others."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts: set[Words] = set()
        self.lengths: dict[Words, set[int]] = {}  # of those that begin with these words
        for text in texts:
            own = tuple(words(text))
            if len(own) >= CONTAINED_WORDS and len(grapheme_clusters(comparable(text))) >= CONTAINED_CHARACTERS:
                self.texts.add(own)
                self.lengths.setdefault(own[:CONTAINED_WORDS], set()).add(len(own))

    def of(self, outer: Words) -> set[Words]:
        """Those that stand in these words, but are not all of them."""
        return {
            outer[at : at + length]
            for at in range(len(outer) - CONTAINED_WORDS + 1)
            for length in self.lengths.get(outer[at : at + CONTAINED_WORDS], ())
            if length < len(outer) and outer[at : at + length] in self.texts
        }
