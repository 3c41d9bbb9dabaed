"""Presets: what other machines set differently, and how it comes into params.yaml without losing anybody's edits.

A file in presets/ holds only what differs from the defaults of `ownhand.params`, with the reason of each value as its
comment. `apply` writes the whole of params.yaml: values of the preset, else defaults; the comments of the file stay.

What a person has changed is told from what a preset has set by looking for the preset that params.yaml is nearest to:
the values that differ from that one are the person's own.
"""

from __future__ import annotations

import difflib
import io
import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from ownhand.errors import Refusal
from ownhand.files import write_text
from ownhand.params import (
    PARAMS_FILE,
    Group,
    ParameterError,
    Params,
    check_params,
    flatten,
    groups,
    read_yaml,
    read_yaml_text,
)

FOLDER = Path("presets")
DEFAULTS = "cpu-demo"  # the preset that sets nothing
WIDTH = 100  # of a list in the terminal
COLUMN = 30  # where comments begin, when the value leaves room
HEAD = """\
# Every parameter of the pipeline. One group per stage; `dvc repro` re-runs a stage when its group changed.
# `ownhand preset` lists settings for other machines; the defaults, with their ranges, are in ownhand/params.py.

"""
NO_TEXT = ("null", "true", "false", "yes", "no", "on", "off")  # what some readers of YAML take for something else

Values = Mapping[str, Any]  # by name with dots, such as train.lora_r


@dataclass(frozen=True)
class Preset:
    """A preset: what it is for (one sentence or two), the values that it sets, and why, by name with dots."""

    name: str
    summary: str
    values: Values
    reasons: Mapping[str, str]

    @property
    def everything(self) -> dict[str, Any]:
        """The value of every parameter: its own, else the default."""
        return flatten(Params()) | dict(self.values)


@dataclass(frozen=True)
class Edits:
    """What a person has changed in params.yaml: `values` that differ from those of the preset `base`."""

    base: Preset
    values: Values


def read_presets(folder: Path = FOLDER) -> list[Preset]:
    """All presets, the one of the defaults first. Refusal without the folder, and for a value that cannot be."""
    paths = sorted(folder.glob("*.yaml"), key=lambda path: (path.stem != DEFAULTS, path.stem))
    if not paths:
        raise Refusal(f"{folder.as_posix()} holds no preset; run the command in the folder that holds dvc.yaml")
    return [_read_preset(path) for path in paths]


def _read_preset(path: Path) -> Preset:
    text = read_yaml_text(path)
    values = _flat(read_yaml(path) or {})
    reasons, lines = {}, text.splitlines()
    document = YAML().load(text) or CommentedMap()
    for name in values:
        group, _, key = name.rpartition(".")
        line = lines[_at(document, group).lc.key(key)[0]]
        reasons[name] = line.partition(" # ")[2].strip()
    summary = " ".join(line.lstrip("# ") for line in text[: text.find("\n\n")].splitlines() if line.startswith("#"))
    preset = Preset(path.stem, summary, values, reasons)
    check_params(_nested(preset.everything), path)
    return preset


def choose(name: str, presets: Iterable[Preset]) -> Preset:
    """The preset of this name; Refusal names those that there are."""
    known = {preset.name: preset for preset in presets}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise Refusal(f"there is no preset {name!r}; {hint}There are {', '.join(known)}")
    return known[name]


def describe(presets: Iterable[Preset], path: Path = PARAMS_FILE) -> str:
    """The presets with what they are for, and which of them params.yaml is nearest to."""
    listed = list(presets)
    width = max(len(preset.name) for preset in listed)
    rows = [
        textwrap.fill(f"{preset.name:<{width}}  {preset.summary}", WIDTH, subsequent_indent=" " * (width + 2))
        for preset in listed
    ]
    try:
        edits = find_edits(listed, path)
    except ParameterError as error:
        state = str(error)
    else:
        own = "".join(f"\n  {name}: {scalar(value)}" for name, value in edits.values.items())
        state = f"{path} is {edits.base.name}" + (
            f" with {len(edits.values)} value(s) of your own:{own}" if own else ""
        )
    return "\n".join([*rows, "", state])


def find_edits(presets: Iterable[Preset], path: Path = PARAMS_FILE) -> Edits:
    """What differs in params.yaml from the nearest preset; the earlier of two equally near ones."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ParameterError(f"{path} holds no groups such as `train:`")
    found = _flat(content)
    all_edits = [
        Edits(preset, {name: value for name, value in found.items() if not _same(preset.everything, name, value)})
        for preset in presets
    ]
    return min(all_edits, key=lambda edits: len(edits.values))


def apply(preset: Preset, presets: Iterable[Preset], keep: bool, force: bool, path: Path = PARAMS_FILE) -> list[str]:
    """Write the whole of params.yaml as `preset` has it; what changed, a line each.

    Edits of a person that the preset would overwrite are refused by name, unless they are to be kept (`keep`) or given
    up (`force`). So is a file that cannot be read, unless `force` is set. Without a file there is nothing to lose.
    """
    wanted, text, found = preset.everything, "", {}
    if path.exists():
        try:
            edits = find_edits(presets, path)
        except ParameterError as error:
            if not force:
                raise ParameterError(f"{error}\n  mend that, or write the whole file anew with --force") from None
        else:
            found, text = _flat(read_yaml(path)), read_yaml_text(path)
            lost = {name: value for name, value in edits.values.items() if not _same(wanted, name, value)}
            if lost and not keep and not force:
                raise Refusal(_word_edits(lost, edits.base, preset, path))
            if keep:
                wanted |= lost
    params = check_params(_nested(wanted), path)
    written = _edited(text, params) if text else render(params)
    if written != text:
        write_text(path, written)
    return _word_changes(found, wanted, preset)


def _word_edits(lost: Values, base: Preset, preset: Preset, path: Path) -> str:
    rows = "".join(
        f"\n  {name}: {scalar(value)}"
        + (f" ({preset.name} has {scalar(preset.everything[name])})" if name in preset.everything else " (unknown)")
        for name, value in lost.items()
    )
    return (
        f"{path} has {len(lost)} value(s) of your own, besides those of the preset {base.name}:{rows}\n"
        f"--keep takes the rest of {preset.name} and leaves these; --force takes all of {preset.name}"
    )


def _word_changes(found: Values, wanted: Values, preset: Preset) -> list[str]:
    lines = []
    for name, value in wanted.items():
        if name in found and _same(wanted, name, found[name]):
            continue
        before = f"{scalar(found[name])} -> " if name in found else ""
        reason = preset.reasons.get(name, "")
        lines.append(f"{name}: {before}{scalar(value)}" + (f"  # {reason}" if reason else ""))
    return lines + [f"{name}: {scalar(value)} is gone" for name, value in found.items() if name not in wanted]


def render(params: Params) -> str:
    """The whole of params.yaml with the meaning of each value as its comment."""
    lines = [HEAD]
    for name, model in groups():
        depth = name.count(".")
        title = (model.__doc__ or "").strip().rstrip(".")
        gap = "\n" if not depth and len(lines) > 1 else ""
        lines.append(gap + _row(depth, f"{name.rpartition('.')[2]}:", title[0].lower() + title[1:]))
        group = _group_at(params, name)
        for field, info in model.model_fields.items():
            value = getattr(group, field)
            if not isinstance(value, Group):
                lines.append(_row(depth + 1, f"{field}: {scalar(value)}", info.description or ""))
    return "".join(lines)


def _row(depth: int, text: str, comment: str) -> str:
    return f"{'  ' * depth + text:<{COLUMN - 1}} # {comment}\n"


def scalar(value: Any) -> str:
    """A value as it stands in params.yaml: a string that some reader of YAML takes for something else is quoted."""
    if isinstance(value, list):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in NO_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False, default=repr)


def _edited(text: str, params: Params) -> str:
    """The text of a params.yaml with other values; comments, order and what has not changed stay as they are."""
    yaml = YAML()
    yaml.width = 10_000  # no line is folded
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(text)
    schema: list[tuple[str, type[Group]]] = [("", Params), *groups()]
    for name, model in schema:
        node, group = _at(document, name), _group_at(params, name)
        for unknown in [key for key in node if key not in model.model_fields]:
            del node[unknown]
        for position, (field, info) in enumerate(model.model_fields.items()):
            value = getattr(group, field)
            if isinstance(value, Group):
                if not isinstance(node.get(field), CommentedMap):
                    _put(node, position, field, CommentedMap(), "")
            elif field not in node or node[field] != value or isinstance(node[field], bool) != isinstance(value, bool):
                _put(node, position, field, YAML().load(f"value: {scalar(value)}")["value"], info.description or "")
    output = io.StringIO()
    yaml.dump(document, output)
    return output.getvalue()


def _put(node: CommentedMap, position: int, field: str, value: Any, comment: str) -> None:
    if field in node:
        node[field] = value
        return
    node.insert(position, field, value)
    if comment:
        node.yaml_add_eol_comment(comment, field, column=COLUMN)


def _at(document: Any, name: str) -> Any:
    for part in filter(None, name.split(".")):
        document = document[part]
    return document


def _group_at(params: Params, name: str) -> Any:
    group: Any = params
    for part in filter(None, name.split(".")):
        group = getattr(group, part)
    return group


def _same(values: Values, name: str, value: Any) -> bool:
    """Whether `values` has this very value: 6 is 6.0, but 1 is not true."""
    return name in values and values[name] == value and isinstance(values[name], bool) == isinstance(value, bool)


def _flat(content: Any, name: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{name}.{key}" if name else str(key)
        values |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return values


def _nested(values: Values) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in values.items():
        *path, key = name.split(".")
        group = content
        for part in path:
            group = group.setdefault(part, {})
        group[key] = value
    return content
