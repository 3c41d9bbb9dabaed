"""The models of DeepSeek-OCR's family: everything in which they differ for us, in one table.

Loading, caching and training are the same for all. Sources: the code and processors published with each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.files import read_json

OFFICIAL_MODEL_TYPE = "deepseek_vl_v2"
AGAIN = "download the checkpoint again"  # what helps a damaged file
MODES = ("tiny", "small", "base", "large", "gundam")


@dataclass(frozen=True)
class Family:
    """What sets a model apart.

    hub_id: where its checkpoint is; prompt: what stands between picture and transcription; modes: of `encode.mode`;
    base_px, tile_px: sides of the global view and of a tile; row_newlines: whether each row of vision tokens ends with
    a newline token; max_tiles: of its own processor's grid.
    """

    hub_id: str
    prompt: str
    modes: tuple[str, ...]
    base_px: int
    tile_px: int
    row_newlines: bool
    max_tiles: int


# by the `model_type` of config.json
FAMILIES = {
    OFFICIAL_MODEL_TYPE: Family("deepseek-ai/DeepSeek-OCR", "\nFree OCR.", MODES, 1024, 640, True, 9),
    # Its generated text sees a window of 128 tokens of itself; training shows it the whole text.
    "unlimited_ocr": Family("baidu/Unlimited-OCR", "document parsing.", MODES, 1024, 640, True, 32),
    # Its 144 and 256 learned queries belong to views of 768 and 1024 px: no other size has a meaning.
    "deepseek_ocr2": Family(
        "deepseek-community/DeepSeek-OCR-2", "\nFree OCR.", ("base", "gundam"), 1024, 768, False, 6
    ),
}


def read_family(folder: Path) -> Family:
    """The family of a checkpoint folder, from its config.json. Refusal for a folder without one or another model."""
    path = folder / "config.json"
    if not path.exists():
        raise Refusal(f"{folder} holds no config.json; is it the folder of a checkpoint?")
    config = read_json(path, AGAIN)
    model_type = config.get("model_type") if isinstance(config, dict) else config
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise Refusal(f"{path}: model_type {model_type!r} is not one that ownhand knows ({', '.join(FAMILIES)})")
    return FAMILIES[model_type]
