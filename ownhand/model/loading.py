"""The base model: one loader for every checkpoint.

The official checkpoint declares `model_type: deepseek_vl_v2` and brings Python code of its own, which is never run:
its architecture is built from transformers' native `UnlimitedOcrForConditionalGeneration`, whose reference sliding
window is set as wide as the position limit, so that it never cuts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from pydantic import ValidationError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    UnlimitedOcrConfig,
    UnlimitedOcrForConditionalGeneration,
)
from transformers.utils.logging import disable_progress_bar

from ownhand.errors import Refusal, is_out_of_memory
from ownhand.files import read_json
from ownhand.model.families import AGAIN, FAMILIES, OFFICIAL_MODEL_TYPE, read_family
from ownhand.model.four_bit import ExpertWeights, quantise_experts
from ownhand.model.official import OFFICIAL_ARCHITECTURE, build_config
from ownhand.model.sequence import SpecialTokens
from ownhand.model.weights import open_weights, refuse_not_finite
from ownhand.progress import is_watched

VISION_MODULES = ("model.vision_tower", "model.multi_modal_projector")
DECODER_MODULES = ("model.language_model", "lm_head")
WEIGHT_INDEX = "model.safetensors.index.json"
WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]
SMALL_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"]
BOS, EOS, PAD, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"
PROBE_SECONDS = 5.0
SILENCED_LOGGERS = ("transformers.modeling_utils", "transformers.distributed.tensor_parallel")
KEYS_SHOWN = 5  # of each kind of misfit
SEEN_SHOWN = 300  # characters of what a library says

if not is_watched():  # bars of transformers and the hub, of loading, saving and fetching
    disable_progress_bar()  # type: ignore[no-untyped-call]


class ModelError(Refusal):
    """The base model cannot be had or does not fit; the message says what to do."""


def find_model(name_or_path: str, revision: str | None, *, weights: bool = True) -> Path:
    """The folder that holds the checkpoint: a local folder as it is, else the hub's cache, else a download.

    With `weights=False` only the small files (configuration, tokenizer) are fetched. Raises ModelError with the remedy
    when a hub id has no revision, or is neither cached nor reachable; without a network that takes seconds.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if not is_hub_id(name_or_path):
        raise ModelError(
            f"model.name_or_path: there is no folder {name_or_path!r}, and it is not a hub id (owner/name)"
        )
    if revision is None:
        raise ModelError(
            f"model.revision: the hub id {name_or_path} needs its 40-digit commit, so that a run can be repeated"
        )
    patterns = SMALL_FILES + (WEIGHT_FILES if weights else [])
    try:
        cached = snapshot_download(name_or_path, revision=revision, allow_patterns=patterns, local_files_only=True)
    except (OSError, ValueError):
        pass  # not in the cache
    else:
        if not weights or holds_all_weights(Path(cached)):
            return Path(cached)
    try:
        # One request without retries: snapshot_download alone keeps trying for half a minute without a network.
        get_hf_file_metadata(hf_hub_url(name_or_path, "config.json", revision=revision), timeout=PROBE_SECONDS)
        print(f"model: fetching {name_or_path} into the hub's cache (DeepSeek-OCR is 6.7 GB, once)", flush=True)
        return Path(snapshot_download(name_or_path, revision=revision, allow_patterns=patterns))
    except HfHubHTTPError as error:
        raise ModelError(
            f"the hub refuses {name_or_path} at revision {revision}: {str(error).splitlines()[0]}. Check "
            "model.name_or_path and model.revision; a gated model needs `hf auth login`"
        ) from error
    except Exception as error:
        raise ModelError(
            f"{name_or_path} at revision {revision} is not in the local cache and cannot be downloaded "
            f"({type(error).__name__}: {error}). The checkpoint of DeepSeek-OCR is 6.7 GB. Connect to the network, or "
            "download the repository's *.json and *.safetensors files elsewhere and set model.name_or_path to their "
            "folder."
        ) from error


def is_hub_id(name_or_path: str) -> bool:
    """Whether the name has the form owner/name; a folder below models/ that is not there has it too, and is none."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name_or_path) is not None and not name_or_path.startswith("models/")


def holds_all_weights(folder: Path) -> bool:
    """Whether a folder of the cache has every weight file that it should: an earlier download can have been cut."""
    index = folder / WEIGHT_INDEX
    if not index.exists():
        return any(folder.glob("*.safetensors"))
    return all((folder / name).exists() for name in weight_files(index))


def weight_files(index: Path) -> set[str]:
    """The names of the files that hold the weights, from the index of a checkpoint in several files."""
    content = read_json(index, AGAIN)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index.as_posix()} has no weight_map that says which file holds a weight; {AGAIN}")
    return set(places.values())


def check_weight_files(folder: Path) -> None:
    """Look at the headers of all weight files. Refusal that names one that is missing, cut or damaged."""
    index = folder / WEIGHT_INDEX
    missing = sorted(name for name in weight_files(index) if not (folder / name).exists()) if index.exists() else []
    if missing:
        raise ModelError(f"{folder.as_posix()} lacks {', '.join(missing)}, which {WEIGHT_INDEX} names; {AGAIN}")
    for path in sorted(folder.glob("*.safetensors")):
        with open_weights(path, AGAIN):
            pass


def load_base_model(
    name_or_path: str,
    revision: str | None = None,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    attn_implementation: str = "sdpa",
    vision: bool = True,
    decoder: bool = True,
    expert_weights: ExpertWeights = "as_is",
) -> PreTrainedModel:
    """The base model in evaluation mode, from a hub id or a folder in the official or a native layout.

    With `vision=False` the model has no vision tower and takes vision tokens only; with `decoder=False` it only turns
    pictures into vision tokens. What is left out is never read from the disk. Raises ModelError for an unknown
    architecture and for missing, unexpected or misshapen weights, which it lists, and Refusal for damaged files and
    for weights that are no numbers.
    """
    folder = find_model(name_or_path, revision)
    config = read_config(folder)
    check_weight_files(folder)
    left_out = (() if vision else VISION_MODULES) + (() if decoder else DECODER_MODULES)
    with _without_report(), naming(folder, "the model cannot be loaded"):
        model, report = _without(model_class(config), left_out).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with everything else that does not fit
            local_files_only=True,
        )
    problems = _misfits(report, left_out)
    if problems:
        raise ModelError(f"the weights in {folder} do not fit its config.json: " + "; ".join(problems))
    remedy = "use bfloat16 or float32 as model.dtype" if dtype == torch.float16 else AGAIN
    if expert_weights == "nf4":
        refuse_not_finite(folder, model.named_parameters(), remedy)  # in four bits it would not be seen
        quantise_experts(model, device)
    loaded: PreTrainedModel = model.to(device).eval()
    refuse_not_finite(folder, loaded.named_parameters(), remedy)
    return loaded


@contextmanager
def naming(folder: Path, what: str) -> Iterator[None]:
    """Turn what libraries say of a damaged checkpoint, in many kinds of errors, into a ModelError that names it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (Refusal, ValidationError)) or is_out_of_memory(error):
            raise
        seen = " ".join(str(error).split())[:SEEN_SHOWN]
        raise ModelError(f"{folder.as_posix()}: {what} ({type(error).__name__}: {seen}); {AGAIN}") from error


def model_class(config: PreTrainedConfig) -> Any:
    """The native class of a configuration."""
    if isinstance(config, UnlimitedOcrConfig):
        return UnlimitedOcrForConditionalGeneration
    return AutoModelForImageTextToText._model_mapping[type(config)]


def _without(kind: Any, modules: tuple[str, ...]) -> Any:
    """`kind` without some of its modules: from_pretrained then never materialises their weights."""
    if not modules:
        return kind

    class Part(kind):  # type: ignore[misc]
        def __init__(self, config: PreTrainedConfig) -> None:
            super().__init__(config)
            remove_modules(self, modules)

    Part.__name__ = Part.__qualname__ = kind.__name__
    return Part


def remove_modules(model: torch.nn.Module, modules: tuple[str, ...]) -> None:
    """Take modules, named from the top of `model`, out of it."""
    for module in modules:
        parent, _, child = module.rpartition(".")
        delattr(model.get_submodule(parent), child)


@contextmanager
def _without_report() -> Iterator[None]:
    """Silence what transformers logs while it loads.

    Its table of keys that do not fit: ours is an error, and weights left out are no surprise. And its remark that rules
    for several devices were not applied: one device is all we use.
    """
    loggers = [logging.getLogger(name) for name in SILENCED_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _misfits(report: dict[str, Any], left_out: tuple[str, ...]) -> list[str]:
    """One line per kind of key that does not fit."""
    problems = []
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(key if isinstance(key, str) else key[0] for key in report[name])
        keys = [key for key in keys if not key.startswith(left_out)] if left_out else keys
        if keys:
            more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
            problems.append(f"{len(keys)} {name.replace('_', ' ')}: {', '.join(keys[:KEYS_SHOWN])}{more}")
    return problems


def read_config(folder: Path) -> PreTrainedConfig:
    """The native configuration of a checkpoint folder. Refusal when it is not of a known architecture."""
    family, path = read_family(folder), folder / "config.json"
    image = special_tokens(read_tokenizer(folder), family.prompt).image
    if family is FAMILIES[OFFICIAL_MODEL_TYPE]:
        official = read_json(path, AGAIN)
        if official.get("architectures") != [OFFICIAL_ARCHITECTURE]:
            relatives = ", ".join(relative.hub_id for relative in FAMILIES.values() if relative is not family)
            raise ModelError(
                f"{path}: architectures is {official.get('architectures')}, not [{OFFICIAL_ARCHITECTURE!r}]. Relatives "
                f"of DeepSeek-OCR load from checkpoints in the native layout: {relatives}"
            )
        try:
            with naming(path, "it describes no model"):
                return build_config(official, image)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise ModelError(
                f"{path} is not DeepSeek-OCR's ({'; '.join(problems)}): damaged, or another DeepSeek-VL2 model's"
            ) from None
    with naming(path, "it describes no model"):
        native: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    if native.image_token_id != image:
        raise ModelError(
            f"{path}: image_token_id is {native.image_token_id}, but {IMAGE} is {image} in tokenizer.json; "
            "the two files belong to different models"
        )
    return native


def read_tokenizer(folder: Path) -> Tokenizer:
    """`tokenizer.json` exactly as it stands, whatever class `tokenizer_config.json` names. ModelError without one.

    It takes the names of special tokens in a text for text, so that encoding can never give an image or an end.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ModelError(f"{folder} holds no tokenizer.json; copy the one that belongs to the checkpoint there")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # a plain one, for whatever is wrong with the file
        raise ModelError(f"{path.as_posix()} is damaged or no tokenizer ({error}); {AGAIN}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # what a person wrote is text: "<image>" in it is seven characters
    return tokenizer


def special_tokens(tokenizer: Tokenizer, prompt: str) -> SpecialTokens:
    """The ids of the four special tokens and of the model's prompt; ModelError names the tokens that are not there."""
    ids = {name: tokenizer.token_to_id(name) for name in (BOS, EOS, PAD, IMAGE)}
    found = {name: token_id for name, token_id in ids.items() if token_id is not None}
    missing = sorted(ids.keys() - found.keys())
    if missing:
        raise ModelError(f"tokenizer.json lacks the special tokens {missing}; is this a DeepSeek-OCR tokenizer?")
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    return SpecialTokens(found[BOS], found[EOS], found[PAD], found[IMAGE], tuple(prompt_ids))
