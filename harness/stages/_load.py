"""A model as a stage reads it: masks and codes beside the weights are verified, and inputs rounded as they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from harness import models
from harness.problems import Problem
from harness.pruning import keep
from harness.quantization import activations, codes
from harness.sources import Source

ADAPTER = "adapter"
"""The folder beside a sparse model's weights that holds what cannot be merged into them, as peft reads it."""


def verified(source: Path | Source, dtype: str = "float32") -> Any:
    """Loads a model in `dtype`, in eval mode on the CPU; a quantised one rounds the inputs of its layers too.

    Raises:
        Problem: Its folder holds a mask, and pruned weights are not zero; or codes, and they are not the weights; or an
            adapter, without which it is another model.
    """
    folder = _folder(source)
    if _adapted(folder):
        hint = "it can be evaluated; train with a method whose result merges, such as lors, to go on with it"
        raise Problem("this model has an adapter beside it, which does not merge", where=str(folder), hint=hint)
    return _plain(source, folder, dtype)


def changeable(source: Path | Source, dtype: str = "float32") -> Any:
    """Loads a model as `verified` does whose weights are about to change.

    Raises:
        Problem: As `verified`; or it is quantised, and the codes would be those of other weights.
    """
    folder = _folder(source)
    if folder is not None and (folder / codes.FILE).is_file():
        hint = "take the model it was made from, and quantise what comes of it"
        raise Problem("this model is quantised: changed weights would leave its grid", where=str(folder), hint=hint)
    return verified(source, dtype)


def dense(source: Path | Source) -> Any:
    """Loads a model as `changeable` does, all of whose weights are about to be trained.

    Raises:
        Problem: As `changeable`; or layers of it are pruned, and their zeros would be filled.
    """
    model = changeable(source)
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    if keeps := keep.from_zeros({linear.name: linear.module.weight for linear in linears}):
        zeros = f"{keep.sparsity(keeps):.0%} zeros in {len(keeps)} layers"
        what = f"this model is sparse: prepare would fill {zeros}"
        hint = "tune it with a method that keeps them (masked); or take the dense model that it was made from"
        raise Problem(what, where=str(_folder(source) or source.name), hint=hint)
    return model


def verify_written(folder: Path, keeps: Mapping[str, Tensor]) -> None:
    """Verifies a written model's zeros: in its files, or loaded from them where they name layers otherwise (ViT).

    Raises:
        Problem: A pruned weight is not zero, or a layer is missing; it is named.
    """
    if keep.named_as(folder, keeps):
        keep.verify_written(folder, keeps)
    else:
        keep.verify(models.load(folder), keeps)


def complete(source: Path | Source) -> Any:
    """Loads a model as `verified` does, with the adapter that lies beside it, if one does, put on by peft."""
    folder = _folder(source)
    model = _plain(source, folder, "float32")
    if not _adapted(folder):
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder / ADAPTER).get_base_model().eval()


def _folder(source: Path | Source) -> Path | None:
    return source.path if isinstance(source, Source) else source


def _adapted(folder: Path | None) -> bool:
    return folder is not None and (folder / ADAPTER / "adapter_config.json").is_file()


def _plain(source: Path | Source, folder: Path | None, dtype: str) -> Any:
    model = models.load(source, dtype)
    if folder is not None and (folder / keep.FILE).is_file():
        keep.verify(model, keep.load(folder))
    if folder is not None and (folder / codes.FILE).is_file():
        layers = codes.load(folder)
        codes.verify(model, layers)
        activations.attach(model, {name: layer.input for name, layer in layers.items() if layer.input})
    return model
