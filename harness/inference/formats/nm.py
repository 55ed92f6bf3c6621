"""N:M: of every M consecutive columns of a row at most N weights with their numbers; tiles of `slot`, no tail.

N counts the weights that are stored. The tiles of format `slot` that it takes have 2, 3, 4, 5, 6 or 8 places in 16
columns, so M divides 16 and N is at most M/2: 1:8, 1:4, 2:8, 3:8, 2:4, 4:8 and more. What fills none of these (1:16,
7:16) leaves places empty.

Bytes per weight: places/16 x (1/2 + bytes of a value).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from harness.inference.formats import slot
from harness.problems import Problem
from harness.ranges import Count

TENSORS, INTEGER, RUN = slot.TENSORS, slot.INTEGER, slot.RUN


def pack(codes: Tensor, groups: int, *, n: Count = 2, m: Count = 4) -> dict[str, Tensor]:
    """N:M: at most n of every m consecutive columns, with their numbers.

    Args:
        codes: [out, in].
        groups: 1; there is one scale a row.
        n: How many are stored.
        m: Size of a group.

    Raises:
        Problem: A pattern that tiles of 16 columns cannot hold, or weights that do not keep it.
    """
    places = slots(n, m)
    keep = nn.functional.pad(codes != 0, (0, -codes.shape[1] % m))
    held = keep.view(len(codes), -1, m).sum(2)
    if bool((held > n).any()):
        row, group = (int(each[0]) for each in (held > n).nonzero(as_tuple=True))
        what = f"row {row} has {int(held[row, group])} weights in columns {group * m} to {group * m + m - 1}"
        raise Problem(f"{what}, not at most {n}", hint="prune with the same pattern, or pack as bitmask")
    return slot.pack(codes, groups, slots=places)


def unpack(tensors: Mapping[str, Tensor], shape: tuple[int, int], *, n: Count = 2, m: Count = 4) -> Tensor:
    """Returns the codes [out, in]."""
    return slot.unpack(tensors, shape, slots=slots(n, m))


def sizes(shape: tuple[int, int], size: int, stored: int, *, n: Count = 2, m: Count = 4) -> dict[str, tuple[int, ...]]:
    """Returns how large what it stores is, but for `rows` and `sums`; see `formats`."""
    return slot.sizes(shape, size, stored, slots=slots(n, m))


def slots(n: int, m: int) -> int:
    """Returns the places of a row in a tile that hold N:M.

    Raises:
        Problem: No tile does.
    """
    if 16 % m or n > m or n * 16 // m > 8:
        raise Problem(
            f"{n}:{m} does not fit tiles of 16 columns", hint="m divides 16 and n is at most m/2; or use bitmask"
        )
    return next(places for places in slot.SLOTS if places >= n * 16 // m)
