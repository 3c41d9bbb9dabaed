"""Training beside the usual way, on the same weights, pictures and batches.

    python -m benchmarks.training [--model models/base] [--mode gundam] [--batch 8] [--lines 64] [--json FILE]
    python -m benchmarks.training --layers 2 --mode base --batch 1 --lines 4     (official shape, random weights)

The usual way: Hugging Face's Trainer and PEFT, a collator that opens the pictures, the vision tower in every step, the
logits of all positions, random order. Ours: every picture once through the vision tower, then the Trainer of
`stages.train`. Each way runs in a process of its own for two epochs, of which the second is timed. Where a GPU is seen
it is used.

Prints samples and tokens per second, peak memory (of the GPU; without one of the process beyond the imported
libraries), the share of the measured limit of matrix products, the share of the time that is spent waiting for the next
batch, and the ratios; `--json` writes the same. Absolute figures belong to the machine and its load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.random_checkpoint import imitate, official_config
from demo.drawing import draw_line, random_hand
from ownhand.files import hash_file, write_json
from ownhand.model.adapter import add_adapter, lora_config
from ownhand.model.base import BaseModel
from ownhand.model.sequence import build_training_ids
from ownhand.model.views import compute_vision_tokens
from ownhand.params import Params, read_params
from ownhand.runtime import DTYPES, set_up
from ownhand.samples import PROCESSED, Sample, read_metadata, write_metadata
from ownhand.training.batches import VisionCollator
from ownhand.training.run import create_trainer, prepare_datasets, set_up_lora
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures
from ownhand.vision.token_store import content_key, fill_features, open_store
from stages import train

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
TEXTS = ROOT / "demo/texts/hand.tsv"
WAYS = ("usual", "ours")
EPOCHS = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="models/base", help="folder of the base model")
    parser.add_argument("--layers", type=int, help="instead: a random model of the official shape with so many layers")
    parser.add_argument("--mode", default="gundam")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--targets", default="attention,mlp")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--batch-tokens", type=int, help="of ours: train.batch_tokens, --batch being the most sequences"
    )
    parser.add_argument("--lines", type=int, default=64)
    parser.add_argument("--height", type=int, default=64, help="of the drawn lines in px")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # this process is one of the two
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(run_usual(read_params()) if arguments.way == "usual" else run_ours(read_params())))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare_workspace(Path(folder), arguments)
        results = {way: run_way(way, Path(folder)) for way in WAYS}
    report = {"settings": {k: v for k, v in vars(arguments).items() if k not in ("json", "way")}, **results}
    report["ratios"] = {
        "samples_per_second": results["ours"]["samples_per_second"] / results["usual"]["samples_per_second"],
        "peak_memory": results["ours"]["peak_mb"] / results["usual"]["peak_mb"],
        "epochs_until_encoding_has_paid": results["ours"]["encode_seconds"]
        / max(1e-9, results["usual"]["epoch_seconds"] - results["ours"]["epoch_seconds"]),
    }
    if arguments.json:
        write_json(arguments.json, report)
    print(table(report))


def prepare_workspace(folder: Path, arguments: argparse.Namespace) -> None:
    """A folder in which the stages from `encode` on can run: parameters, drawn lines, metadata."""
    model = Path(arguments.model).resolve()
    if arguments.layers:
        model = folder / "model"
        imitate(model, official_config(arguments.layers), DTYPES[arguments.dtype])
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["model"] |= {"name_or_path": model.as_posix(), "revision": None, "dtype": arguments.dtype}
    content["encode"] |= {"mode": arguments.mode, "copies": 0}
    content["train"] |= {"lora_targets": arguments.targets.split(","), "batch_size": arguments.batch, "accumulation": 1}
    content["train"] |= {"batch_tokens": arguments.batch_tokens, "rehearsal_share": 0.0}
    content["train"] |= {"epochs": float(EPOCHS), "evaluations": 1, "cer_lines": 0, "gradient_checkpointing": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    texts = [row.partition("\t")[2].strip() for row in TEXTS.read_text(encoding="utf-8").splitlines()[1:]]
    rng = np.random.default_rng(1)
    (folder / PROCESSED).mkdir(parents=True)
    samples = []
    for i in range(arguments.lines + 1):
        path = PROCESSED / f"{i + 1:05d}.png"
        image = draw_line(texts[i % len(texts)], FONT, random_hand(rng, 0.5), rng, arguments.height)
        image.save(folder / path)
        split = "train" if i < arguments.lines else "val"
        samples.append(
            Sample(f"{i + 1:05d}", path.as_posix(), texts[i % len(texts)], path.name, "p", "", *image.size, split,
                   hash_file(folder / path))
        )  # fmt: skip
    write_metadata(samples, folder / PROCESSED)


def run_way(way: str, folder: Path) -> dict[str, Any]:
    """What a process of its own measures."""
    print(f"{way} ...", file=sys.stderr, flush=True)
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--way", way],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return measured


class SecondEpoch(TrainerCallback):
    """Counts the operations of the first step and times the second epoch, the device waited for at both ends.

    `waited` are the seconds of that epoch in which the Trainer waited for its next batches.
    """

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)
        self.seconds = self.waited = self.first_step_flops = 0.0

    def watch(self, trainer: Trainer) -> None:
        """Time what fetches the batches of a step."""
        fetch = trainer.get_batch_samples

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            batches = fetch(*arguments)
            self.waited += time.perf_counter() - started
            return batches

        trainer.get_batch_samples = timed  # type: ignore[method-assign, assignment]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            self.counter.__enter__()  # type: ignore[no-untyped-call]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self.counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.first_step_flops = float(self.counter.get_total_flops())

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait()
        self.started, self.waited = time.perf_counter(), 0.0

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait()
        self.seconds = time.perf_counter() - self.started


def run_ours(params: Params) -> dict[str, Any]:
    """The pictures through the vision tower once, then the Trainer of `stages.train`."""
    started, before_mb = time.perf_counter(), peak_mb()
    encode(params)
    wait()
    encode_seconds, encode_peak_mb = time.perf_counter() - started, peak_mb() - before_mb
    # A process keeps its peak for ever: training is measured in one that has not encoded.
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from benchmarks import training as t; print(t.json.dumps(t.train_ours(t.read_params())))",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return {**measured, "encode_seconds": encode_seconds, "encode_peak_mb": encode_peak_mb}


def encode(params: Params) -> None:
    """What `stages.encode` does, without its probes and its contact sheet."""
    device, samples, base = set_up(params.runtime), read_metadata(), BaseModel.open(params)
    keys = {sample.image_id: content_key(sample, sample.image_id, params.encode) for sample in samples}
    pictures, tower = Pictures(samples, params.encode), base.load(device, decoder=False)

    def see(key: str) -> torch.Tensor:
        return compute_vision_tokens(tower, base.view_rules.views(pictures.image(key)))

    with open_store(base, params, device) as store:
        fill_features(train.FEATURES, keys, see, store, {}, "encode")


def train_ours(params: Params) -> dict[str, Any]:
    """Training from the cache."""
    before_mb, device = peak_mb(), set_up(params.runtime)
    datasets = prepare_datasets(params, read_metadata(), FeatureCache(train.FEATURES))
    model = set_up_lora(params, device)
    trainer = create_trainer(model, datasets, params, train.unfinished_folder(params))
    tokens = sum(datasets.train.lengths())
    return measure(trainer, len(datasets.train), tokens, params, before_mb)


def run_usual(params: Params) -> dict[str, Any]:
    """Training from pictures, the vision tower in every step."""
    before_mb, device = peak_mb(), set_up(params.runtime)
    base = BaseModel.open(params)
    samples = [sample for sample in read_metadata() if sample.split == "train"]
    pictures = Pictures(samples, params.encode)
    collate = VisionCollator(base.special, base.dtype)

    def collator(rows: list[Sample]) -> dict[str, Any]:
        prepared = []
        for row in rows:
            views = base.view_rules.views(pictures.image(row.image_id))
            ids, labels = build_training_ids(
                base.tokenizer, base.special, views.tokens, row.text, params.train.max_tokens
            )
            prepared.append({"image_id": row.image_id, "input_ids": ids, "labels": labels, "views": views})
        return {name: value for name, value in collate(prepared).items() if name != "image_ids"}

    model = base.load(device)
    arguments = TrainingArguments(
        output_dir="usual",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=params.train.batch_size,
        learning_rate=params.train.learning_rate,
        use_cpu=params.runtime.device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to=[],
    )
    trainer = Trainer(
        model=add_adapter(model, lora_config(params.train, params.model.name_or_path, None)),
        args=arguments,
        train_dataset=samples,
        data_collator=collator,
    )
    counts = [base.view_rules.count_tokens(sample.width, sample.height) for sample in samples]
    lengths = [
        len(build_training_ids(base.tokenizer, base.special, count, sample.text, 10**6)[0])
        for sample, count in zip(samples, counts, strict=True)
    ]
    return measure(trainer, len(samples), sum(lengths), params, before_mb)


def measure(trainer: Trainer, samples: int, tokens: int, params: Params, before_mb: float) -> dict[str, Any]:
    """Figures of the second epoch of a Trainer's run; `before_mb` is the memory that the libraries took."""
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.logging_strategy = "no"
    timer = SecondEpoch()
    timer.watch(trainer)
    trainer.add_callback(timer)
    trainer.train()
    peak = peak_mb() - before_mb
    steps = len(trainer.get_train_dataloader())
    limit = matrix_product_limit(DTYPES[params.model.dtype], trainer.args.device)
    return {
        "samples_per_second": samples / timer.seconds,
        "tokens_per_second": tokens / timer.seconds,
        "epoch_seconds": timer.seconds,
        "share_waited_for_data": timer.waited / timer.seconds,
        "peak_mb": peak,
        # The first step of ours holds the longest sample, so that the share is at most this.
        "share_of_matrix_product_limit": timer.first_step_flops * steps / timer.seconds / limit,
        "device": str(trainer.args.device),
    }


def wait() -> None:
    """Until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mb() -> float:
    """The most memory so far: of the GPU's tensors; without a GPU of this process (on macOS only what it has now)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "linux":  # getrusage would also tell what the process was before it became this program
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / 1e6


def matrix_product_limit(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of one large matrix product, the best of five."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        wait()
        started = time.perf_counter()
        torch.mm(left, right)
        wait()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    names = ["samples_per_second", "tokens_per_second", "peak_mb", "share_of_matrix_product_limit", "epoch_seconds"]
    names.append("share_waited_for_data")
    lines = [f"{'':32}{'usual':>12}{'ours':>12}"]
    lines += [f"{name:32}{report['usual'][name]:12.3f}{report['ours'][name]:12.3f}" for name in names]
    lines += [f"{name:32}{'':12}{report['ours'][name]:12.3f}" for name in ("encode_seconds", "encode_peak_mb")]
    return "\n".join([*lines, *(f"ratio: {name:25}{'':12}{value:12.3f}" for name, value in report["ratios"].items())])


if __name__ == "__main__":
    main()
