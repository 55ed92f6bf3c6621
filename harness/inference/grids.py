"""The grids that weights lie on where a model was quantised: packing to int8 takes them as they are.

A layer that was quantised carries its grid as `grid`, wherever its weights came from: the codes of `harness quantize`,
or a packed int8 folder. A weight that is zeroed stays on it; any other change leaves it, and packing says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from harness.quantization.grid import Grid


def attach(model: nn.Module, grids: Mapping[str, Grid]) -> None:
    """Gives layers their grids by name, and those whose weights are tied to them the same."""
    by_weight = {id(model.get_submodule(name).weight): grid for name, grid in grids.items()}
    for module in model.modules():
        if grid := by_weight.get(id(getattr(module, "weight", None))):
            module.grid = grid


def joined(linears: Sequence[nn.Module]) -> Grid | None:
    """Returns the grid of the weights of some linears one below the other; None where they were not quantised."""
    grids = [grid for linear in linears if (grid := getattr(linear, "grid", None))]
    if not grids:
        return None
    scale, zero = (torch.cat([getattr(grid, part) for grid in grids]) for part in ("scale", "zero"))
    return Grid(scale, zero, max(grid.bits for grid in grids), grids[0].group)


def alike(model: nn.Module, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns linears of a model by what their grids can be joined with: groups of so many columns, or no grid."""
    kinds: dict[int | None, list[str]] = {}
    for name in names:
        grid = getattr(model.get_submodule(name), "grid", None)
        kinds.setdefault(grid and grid.group, []).append(name)
    return [tuple(each) for each in kinds.values()]
