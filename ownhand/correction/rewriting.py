"""Rewriting: one transcription in a file of ground truth is replaced, and everything else in it stays as it is.

Each function takes the bytes of a file and returns the new ones: delimiter, quotes, order, other columns, encoding,
byte order mark and line ends of a table, and all of an XML file but the text of the one line, are those of before.
"""

from __future__ import annotations

import codecs
import io
import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from defusedxml.ElementTree import fromstring

from ownhand.errors import Refusal
from ownhand.ground_truth.alto_xml import read_page as read_alto_page
from ownhand.ground_truth.annotations import read_first_row, read_header
from ownhand.ground_truth.page_files import TranscribedPage, numbers
from ownhand.ground_truth.page_xml import read_page
from ownhand.ground_truth.records import GroundTruthError, decode_text
from ownhand.text import clean_transcription

BOMS = (  # the longer ones first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DECLARED = re.compile(r"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")
LINE_END = re.compile(r"\r\n|\n|\r")
CONFIDENCE = re.compile(r"""\s+conf\s*=\s*("[^"]*"|'[^']*')""")
# The text of a word, what it is part of, and how sure another reader was of it.
WORD_ATTRIBUTES = re.compile(r"""\s+(?:CONTENT|WC|CC|SUBS_TYPE|SUBS_CONTENT)\s*=\s*("[^"]*"|'[^']*')""")
UNLIKE = "the text would be read otherwise than it was written; look for invisible characters at its ends"
TAG = re.compile(rb"""<(?:[^<>"']|"[^"]*"|'[^']*')*>""")


def replace_text_file(content: bytes, encoding: str, text: str) -> bytes:
    """A file that holds one transcription and nothing else; its byte order mark and last line end stay.

    Refusal for a text that would be read otherwise than it is; so it is with tables, too.
    """
    bom, codec, before = _decode(content, encoding)
    ending = before[len(before.rstrip("\r\n")) :] if content else "\n"
    new = _encode(bom, text + ending, codec, encoding)
    if clean_transcription(decode_text(new, "", encoding)) != clean_transcription(text):
        raise Refusal(UNLIKE)
    return new


def replace_cell(content: bytes, encoding: str, row: int, text: str) -> bytes:
    """The text of the row that begins in line `row` (from 1) of a table with a header. Refusal when there is none.

    Without a text, a row that holds nothing but a file name goes as a whole: an empty text would be a mistake.
    """
    bom, codec, table = _decode(content, encoding)
    delimiter, _, columns = read_header(Path("the table"), table)
    start = sum(map(len, itertools.islice(io.StringIO(table, newline=""), row - 1)))
    fields = _field_spans(table, start, delimiter)
    if columns["text"] >= len(fields):
        raise Refusal(f"row {row} has {len(fields)} field(s), its text is expected in field {columns['text'] + 1}")
    others = [span for at, span in enumerate(fields) if at not in (columns["text"], columns["filename"])]
    if not text and not any(table[begin:end].strip('" ') for begin, end in others):
        behind = LINE_END.match(table, fields[-1][1])
        return _encode(bom, table[:start] + table[behind.end() if behind else len(table) :], codec, encoding)
    begin, end = fields[columns["text"]]
    new = _quoted(text, delimiter, always=table[begin:end].startswith('"'))
    table = table[:begin] + new + table[end:]
    _verify_row(table[start:], delimiter, columns["text"], text)
    return _encode(bom, table, codec, encoding)


def append_row(content: bytes, encoding: str, filename: str, text: str) -> tuple[bytes, int]:
    """A row behind the last one, its other columns empty, and the line (from 1) in which it begins.

    It ends as the table's first line does. An empty file becomes a table with the columns filename and text.
    """
    bom, codec, table = _decode(content, encoding)
    table = table or "filename,text\n"
    delimiter, header, columns = read_header(Path("the table"), table)
    line_end = LINE_END.search(table)
    end = line_end[0] if line_end else "\n"
    if not table.endswith(("\n", "\r")):
        table += end
    fields = [""] * len(header)
    fields[columns["filename"]], fields[columns["text"]] = filename, text
    row = delimiter.join(_quoted(value, delimiter) for value in fields) + end
    _verify_row(row, delimiter, columns["text"], text)
    if clean_transcription(read_first_row(row, delimiter)[0][columns["filename"]]) != filename:
        raise Refusal(f"a table cannot name {filename!r}: white space at its ends, or a line break; rename the picture")
    return _encode(bom, table + row, codec, encoding), sum(1 for _ in io.StringIO(table, newline="")) + 1


def replace_page_line(content: bytes, line_id: str, text: str) -> bytes:
    """The Unicode of the TextEquiv that counts in a TextLine of a PAGE file; one is added where there is none.

    A confidence that stood there is taken away: it was that of another reading. Refusal for a line that is not there,
    and for what XML cannot hold.
    """
    return _verified(content, _replace_page_line(content, line_id, text), read_page, line_id, text)


def replace_alto_line(content: bytes, line_id: str, text: str) -> bytes:
    """The words of a TextLine of an ALTO file become one String with the text; a single one keeps its place.

    Raises as above.
    """
    return _verified(content, _replace_alto_line(content, line_id, text), read_alto_page, line_id, text)


def _replace_page_line(content: bytes, line_id: str, text: str) -> bytes:
    source = _Xml(content)
    line = source.line(line_id)
    equivs = sorted(line.all("TextEquiv"), key=lambda one: numbers(one.attributes.get("index", "")) or [0.0])
    chosen = next((one for one in equivs if one.all("Unicode")), None)
    prefix = line.name.removesuffix("TextLine")
    unicode_ = f"<{prefix}Unicode>{escape(_checked(text))}</{prefix}Unicode>"
    if chosen is None and equivs:
        return source.replaced([(equivs[0].start, equivs[0].end, f"<{prefix}TextEquiv>{unicode_}</{prefix}TextEquiv>")])
    if chosen is None:
        behind = ("TextStyle", "UserDefined", "Labels")  # the schema's order
        following = next((child for child in line.children if child.local in behind), None)
        return source.added(line, following, f"<{prefix}TextEquiv>{unicode_}</{prefix}TextEquiv>")
    opening = source.tag(chosen)
    edits = [(chosen.start, chosen.start + len(opening.encode()), CONFIDENCE.sub("", opening))]
    edits += [(plain.start, plain.end, "") for plain in chosen.all("PlainText")]  # the same text, without markup
    edits.append((chosen.all("Unicode")[0].start, chosen.all("Unicode")[0].end, unicode_))
    return source.replaced(edits)


def _replace_alto_line(content: bytes, line_id: str, text: str) -> bytes:
    source = _Xml(content)
    line = source.line(line_id)
    words = [child for child in line.children if child.local in ("String", "SP", "HYP")]
    prefix = line.name.removesuffix("TextLine")
    value = quoteattr(_checked(text))
    string = f"<{prefix}String CONTENT={value}/>"
    if [word.local for word in words] == ["String"]:
        kept = WORD_ATTRIBUTES.sub("", source.tag(words[0])).rstrip("/> \t\r\n")
        return source.replaced([(words[0].start, words[0].end, f"{kept} CONTENT={value}/>")])
    if words:
        edits = [(source.behind_previous(word), word.end, "") for word in words[1:]]
        return source.replaced([(words[0].start, words[0].end, string), *edits])
    opening = source.tag(line)
    if opening.endswith("/>"):
        return source.replaced([(line.start, line.end, f"{opening[:-2].rstrip()}>{string}</{line.name}>")])
    return source.added(line, None, string)


def _verified(
    before: bytes, after: bytes, read: Callable[[Element], TranscribedPage], line_id: str, text: str
) -> bytes:
    """`after`, when the program that reads it later finds what was meant in it; else nothing may be written."""
    expected = [
        (line.line_id, text if (line.line_id or str(number)) == line_id else line.text, line.polygon)
        for number, line in enumerate(read(fromstring(before)).lines, 1)
    ]
    seen = [(line.line_id, line.text, line.polygon) for line in read(fromstring(after)).lines]
    if [(name, clean_transcription(one), polygon) for name, one, polygon in seen] != [
        (name, clean_transcription(one), polygon) for name, one, polygon in expected
    ]:
        raise Refusal(f"line {line_id} cannot be edited without changing more than its text; nothing was written")
    return after


@dataclass
class _Element:
    """An element with its place in the file: from its first character to the one behind its last."""

    name: str
    attributes: dict[str, str]
    start: int
    end: int = 0
    children: list[_Element] = field(default_factory=list)

    @property
    def local(self) -> str:
        """The name without its prefix."""
        return self.name.rpartition(":")[2]

    def all(self, local: str) -> list[_Element]:
        """The direct children of that name."""
        return [child for child in self.children if child.local == local]


class _Xml:
    """An XML file with the places of its text lines. Entities are refused, as by the readers."""

    def __init__(self, content: bytes) -> None:
        declared = DECLARED.search(content[:200].decode("latin-1"))
        self.bom, self.codec, self.text = _decode(content, declared[1] if declared else "utf-8")
        self.bytes = self.text.encode()
        self.lines: list[_Element] = []
        self.open: list[_Element] = []
        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.EntityDeclHandler = self._refuse_entity
        self.parser = parser
        try:
            parser.Parse(self.bytes, True)
        except expat.ExpatError as error:
            raise Refusal(f"broken XML: {error}") from None

    def line(self, line_id: str) -> _Element:
        """The TextLine of that id; one without an id is called by its number, from 1, as the readers do."""
        for number, line in enumerate(self.lines, 1):
            if (line.attributes.get("id") or line.attributes.get("ID") or str(number)) == line_id:
                return line
        raise Refusal(f"the file has no text line {line_id!r} any more")

    def tag(self, element: _Element) -> str:
        """The tag that opens the element, as it is written."""
        found = TAG.match(self.bytes, element.start)
        return found[0].decode() if found else ""

    def behind_previous(self, element: _Element) -> int:
        """Where the white space before the element begins."""
        return len(self.bytes[: element.start].rstrip())

    def added(self, line: _Element, before: _Element | None, new: str) -> bytes:
        """The file with a new child of `line`, indented as its first one: before another child, None for the last."""
        inside = line.start + len(self.tag(line).encode())
        gap = self.bytes[inside : line.children[0].start].decode() if line.children else ""
        ends = [child.end for child in line.children if before is None or child.end <= before.start]
        place = max(ends, default=inside)
        return self.replaced([(place, place, (gap if gap.isspace() else "") + new)])

    def replaced(self, edits: list[tuple[int, int, str]]) -> bytes:
        """The whole file, the parts from start to end (in UTF-8 bytes) replaced."""
        new = self.bytes
        for start, end, text in sorted(edits, reverse=True):
            new = new[:start] + text.encode() + new[end:]
        return self.bom + new.decode().encode(self.codec, "xmlcharrefreplace")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        element = _Element(name, attributes, self.parser.CurrentByteIndex)
        if self.open:
            self.open[-1].children.append(element)
        self.open.append(element)
        if element.local == "TextLine" and any(one.local == "Page" for one in self.open):
            self.lines.append(element)

    def _end(self, name: str) -> None:
        element = self.open.pop()
        tag = TAG.match(self.bytes, element.start)
        if tag and not tag[0].endswith(b"/>"):
            tag = TAG.match(self.bytes, self.parser.CurrentByteIndex)
        element.end = tag.end() if tag else element.start

    def _refuse_entity(self, *declaration: object) -> None:
        raise Refusal("unsafe XML: it defines entities, which are never read")


def _field_spans(table: str, start: int, delimiter: str) -> list[tuple[int, int]]:
    """(start, end) of each field, its quotes included, in the row of a table that begins at `start`."""
    spans = []
    at = start
    while True:
        while table[at : at + 1] == " ":
            at += 1
        begin = at
        if table[at : at + 1] == '"':
            at += 1
            while at < len(table) and (table[at] != '"' or table[at + 1 : at + 2] == '"'):
                at += 2 if table[at] == '"' else 1
            at += 1
        while at < len(table) and table[at] not in (delimiter, "\r", "\n"):
            at += 1
        spans.append((begin, min(at, len(table))))
        if table[at : at + 1] != delimiter:
            return spans
        at += 1


def _quoted(value: str, delimiter: str, *, always: bool = False) -> str:
    if always or any(mark in value for mark in (delimiter, '"', "\n", "\r")):
        return '"' + value.replace('"', '""') + '"'
    return value


def _checked(text: str) -> str:
    """The text; Refusal for what XML cannot hold."""
    for character in text:
        if (
            unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r"
        ) or character in "\ufffe\uffff":
            raise Refusal(f"the text holds U+{ord(character):04X}, which XML cannot hold")
    return text


def _decode(content: bytes, encoding: str) -> tuple[bytes, str, str]:
    """(byte order mark, codec without one, text). Refusal when writing it again would not give the same bytes."""
    bom, codec = next(((bom, codec) for bom, codec in BOMS if content.startswith(bom)), (b"", encoding))
    if not bom and codecs.lookup(codec).name == "utf-8-sig":
        codec = "utf-8"
    try:
        text = content[len(bom) :].decode(codec)
        if text.encode(codec) != content[len(bom) :]:
            raise UnicodeError
    except UnicodeError:
        raise Refusal(f"the file is not valid {codec}; save it as UTF-8") from None
    return bom, codec, text


def _verify_row(table: str, delimiter: str, at: int, text: str) -> None:
    """Refusal when the program that reads the table later would find another text in this field of its first row."""
    fields, problem = read_first_row(table, delimiter)
    if problem:
        raise Refusal(f"a table cannot hold this text ({problem})")
    if at >= len(fields) or clean_transcription(fields[at]) != clean_transcription(text):
        raise Refusal(UNLIKE)


def _encode(bom: bytes, text: str, codec: str, encoding: str) -> bytes:
    """The bytes of a file that the program takes for text in `encoding` when it reads them later."""
    try:
        content = bom + text.encode(codec)
    except UnicodeEncodeError as error:
        seen = text[error.start]
        raise Refusal(
            f"{seen!r} (U+{ord(seen):04X}) cannot be written in {codec}, the encoding of the file; save the file as "
            "UTF-8 and set prepare.encoding: utf-8"
        ) from None
    try:
        decode_text(content, "", encoding)
    except GroundTruthError:
        raise Refusal(
            f"with this text the file would no longer be taken for {encoding}; save the file as UTF-8 and set "
            "prepare.encoding: utf-8"
        ) from None
    return content
