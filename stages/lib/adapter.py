"""LoRA: which weights of the base model get an adapter, and reading a trained adapter back."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import PreTrainedModel

from stages.lib.failures import Refusal
from stages.lib.params import TrainParams

# The vision tower's attention has the decoder's names: patterns name the decoder's layers in full.
LINEAR_TARGETS = {
    "attention": r"self_attn\.(q|k|v|o)_proj",
    "mlp": r"mlp\.(shared_experts\.)?(gate|up|down)_proj",
}
EXPERT_PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]  # fused 3-D weights, not nn.Linear


def lora_config(params: TrainParams, name_or_path: str, revision: str | None) -> LoraConfig:
    """The PEFT configuration of the `train` parameters."""
    linear = [pattern for target, pattern in LINEAR_TARGETS.items() if target in params.lora_targets]
    return LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules=rf".*language_model\.layers\.\d+\.({'|'.join(linear)})" if linear else [],
        target_parameters=EXPERT_PARAMETERS if "experts" in params.lora_targets else None,
        base_model_name_or_path=name_or_path,
        revision=revision,
        task_type="CAUSAL_LM",
    )


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """The base model, frozen, with a fresh adapter whose weights are float32.

    LoRA's second matrix starts at zero: the untrained adapter changes nothing.
    """
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise Refusal("train.lora_targets match no weight of this model")
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Base model and trained adapter, in evaluation mode. Refusal when the folder holds no adapter that fits."""
    if not (folder / "adapter_config.json").exists():
        raise Refusal(f"{folder} holds no adapter (adapter_config.json); run `dvc repro train`")
    adapted = get_peft_model(model, LoraConfig.from_pretrained(str(folder)))
    assert isinstance(adapted, PeftModel)
    load_adapter_weights(adapted, folder)
    return adapted.eval()


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Copy an adapter's weights, under native or official names, into the adapter that `model` has.

    PEFT's own loader renames native names a second time by transformers' conversion rules for this architecture
    (`language_model.layers` contains `model.layers`), finds none of them, and only warns; the adapter then stays
    untrained. Here every weight must find its place: Refusal lists what is missing or left over.
    """
    stored = {
        name.replace("base_model.model.model.layers.", "base_model.model.model.language_model.layers."): tensor
        for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    own = {name.replace(".default.", "."): weight for name, weight in model.named_parameters() if ".lora_" in name}
    missing, unknown = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or unknown:
        raise Refusal(
            f"the adapter in {folder} does not fit this base model: {len(missing)} weights missing "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
        )
    for name, weight in own.items():
        if weight.shape != stored[name].shape:
            raise Refusal(
                f"the adapter in {folder} does not fit this base model: {name} is {tuple(stored[name].shape)}, "
                f"expected {tuple(weight.shape)}"
            )
        weight.data.copy_(stored[name])
