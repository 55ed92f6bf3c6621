"""Writes a LoRA beside its sparse model in peft's files, `adapter_config.json` and `adapter_model.safetensors`.

`peft.PeftModel.from_pretrained(base, folder)` then computes what the harness computed. The adapter has a folder of its
own: where transformers finds an adapter's config among a model's files, it loads the base that the config names.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from harness import models, rooms
from harness.tuning.attach import Attached

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def save(model: nn.Module, attached: Attached, method: rooms.Choice | str, folder: Path) -> None:
    """Writes what a `lora` trained as a peft adapter, which names no base; the model itself is not written.

    Args:
        model: The model that the layers are of.
        attached: The trained layers.
        method: The choice that they were attached with.
        folder: The adapter's own folder; it is made.
    """
    options = rooms.resolve("method", method).options
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if models.causal(model) else None,
        "base_model_name_or_path": None,
        "r": options["rank"],
        "lora_alpha": options["alpha"],
        "lora_dropout": options["dropout"],
        "use_rslora": options["rslora"],
        "target_modules": sorted(attached.layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"base_model.model.{name}.{part}.weight": tensor.detach().cpu().contiguous()
        for name, layer in attached.layers.items()
        for part, tensor in layer.trained.items()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf8")
