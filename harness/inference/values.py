"""Precisions: weights as codes of 1, 2 or 4 bytes, and back.

fp32 keeps the weights, bf16 and fp16 round them to nearest even, int8 maps them to integers on a symmetric grid:

    code = round(weight / scale), scale = max|weight| / 127        for each row, or each group of columns of a row

A group without weights has scale 1. Decoding multiplies in fp32, as the kernels do. Weights that were quantised already
keep their grid and change by nothing, where a signed byte holds their codes, counted from zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.problems import Problem, unknown
from harness.quantization.grid import Grid

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
"""The type of the codes of each precision."""
WORD = 64
"""Columns that kernels read together; a group of columns with one scale is made of whole words."""
LARGEST = 127
_KEPT = "fp32 keeps these weights as they are; or quantise the model anew, on "


def encode(weight: Tensor, precision: str, *, group: int = 0, grid: Grid | None = None) -> tuple[Tensor, Tensor | None]:
    """Turns weights into codes.

    Args:
        weight: [out, in], floating point, on the CPU.
        precision: One of `PRECISIONS`.
        group: With int8, how many columns share a scale; 0 is the whole row.
        grid: With int8, the grid that the weights already lie on, if they do; `group` is left out then, or the same.

    Returns:
        The codes [out, in], and with int8 the scales, fp32 [out, groups], else None.

    Raises:
        Problem: Not a finite floating-point matrix on the CPU; not finite any more in fp16; an unknown precision; a
            group that is no multiple of 64; a grid whose codes or groups int8 has not, or not that of these weights.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if weight.ndim != 2 or not weight.numel() or not weight.is_floating_point() or weight.device.type != "cpu":
        found = f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)} on {weight.device.type}"
        raise Problem(f"only a floating-point matrix on the CPU can be packed, not {found}")
    weight = weight.detach().float()
    if precision != "int8":
        if group or grid is not None:
            raise Problem(f"{precision} weights have no scales", hint="only int8 takes a group or a grid")
        return _finite(weight.to(PRECISIONS[precision]), precision).contiguous(), None
    _finite(weight, precision)
    if grid is not None:
        return _on(grid, weight, group)
    size = _group(weight, group)
    scales = _scales(weight, size, -(-weight.shape[1] // size)).contiguous()
    steps = weight / _by_column(scales, weight.shape[1], size)
    return steps.round().clamp_(-LARGEST, LARGEST).to(torch.int8), scales


def decode(codes: Tensor, scales: Tensor | None) -> Tensor:
    """Returns the weights that codes stand for, fp32 [out, in]; scales [out, groups] with int8."""
    if scales is None:
        return codes.float()
    return codes.float() * _by_column(scales, codes.shape[1], group_size(codes.shape[1], scales.shape[1]))


def group_size(columns: int, groups: int) -> int:
    """Returns how many columns share a scale, given how many groups a row has; every group but the last is full."""
    if groups <= 1:
        return max(columns, 1)
    each = (columns + groups - 1) // groups
    return (each + WORD - 1) // WORD * WORD


def sums(codes: Tensor, groups: int) -> Tensor:
    """Returns the sum of the codes of each group, int32 [out, groups]; kernels need it for int8."""
    size = group_size(codes.shape[1], groups)
    padded = nn.functional.pad(codes, (0, groups * size - codes.shape[1]))
    return padded.view(len(codes), groups, size).sum(2, dtype=torch.int32)


def _group(weight: Tensor, group: int) -> int:
    columns = weight.shape[1]
    if group < 0 or group % WORD:
        raise Problem(f"a group of {group} columns", hint=f"it is a multiple of {WORD}, or 0 for the whole row")
    if not group or group >= columns:
        return max(columns, 1)
    if group_size(columns, -(-columns // group)) != group:
        hint = "the groups of a row are full but for the last one"
        raise Problem(f"{columns} columns in groups of {group} leave groups of unlike sizes", hint=hint)
    return group


def _on(grid: Grid, weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Returns codes, counted from zero, and scales of weights that lie on a grid."""
    rows, columns = weight.shape
    groups = -(-columns // grid.group)
    if grid.scale.shape != (rows, groups):
        raise Problem(f"a grid of {list(grid.scale.shape)} for {rows} rows with groups of {grid.group} columns")
    if group and min(group, columns) != grid.group:
        what = f"these weights were quantised with a scale for {grid.group} columns, not {group}"
        raise Problem(what, hint="leave the group out: int8 takes the scales as they are")
    if group_size(columns, groups) != grid.group:
        what = f"these weights were quantised with a scale for {grid.group} columns, and int8 has one for multiples of"
        raise Problem(f"{what} {WORD}, or a row", hint=f"{_KEPT}such groups")
    scales = grid.scale.float().contiguous()
    steps = (weight / _by_column(scales, columns, grid.group)).round_()
    low, high = int(steps.min()), int(steps.max())
    if low < -LARGEST - 1 or high > LARGEST:
        what = f"these weights were quantised to codes from {low} to {high} about 0, and int8 ends at {LARGEST}"
        raise Problem(what, hint=f"{_KEPT}symmetric grids")
    codes = steps.to(torch.int8)
    if not torch.equal(decode(codes, scales), weight):
        what = "these weights are not those that were quantised: they lie off the grid"
        raise Problem(what, hint="quantise the model anew")
    return codes, scales


def _scales(weight: Tensor, size: int, groups: int) -> Tensor:
    padded = nn.functional.pad(weight.abs(), (0, groups * size - weight.shape[1]))
    largest = padded.view(len(weight), groups, size).amax(2) if padded.numel() else weight.new_zeros(len(weight), 1)
    tiny = torch.finfo(torch.float32).tiny
    return torch.where(largest > 0, (largest / LARGEST).clamp_min(tiny), 1.0)


def _by_column(scales: Tensor, columns: int, size: int) -> Tensor:
    return scales if scales.shape[1] == 1 else scales.repeat_interleave(size, 1)[:, :columns]


def _finite(codes: Tensor, precision: str) -> Tensor:
    bad = codes.numel() - int(torch.isfinite(codes).sum())
    if bad:
        raise Problem(f"{bad} of {codes.numel()} weights are not finite in {precision}")
    return codes
