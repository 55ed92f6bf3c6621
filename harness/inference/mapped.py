"""The tensors of a safetensors file where the system maps it: nothing is copied, and nothing read before it is used.

A packed model has a thousand small tensors, and for each the format's own library takes several times as long.
"""

from __future__ import annotations

import json
import math
import mmap

import torch
from torch import Tensor

TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool},
}
"""By their names in a file."""


def read(content: mmap.mmap | bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Returns a file's metadata and tensors; these are where it is mapped, and keep it so.

    As long as one of them lives, nothing may be written into the file: they would change with it, and where it was cut,
    or cannot be read, their use ends the process.

    Args:
        content: What the file holds, `exported.content`.

    Raises:
        ValueError: It is no such file, or not whole.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:begin])
        metadata = dict(header.pop("__metadata__", {}))
        whole = torch.frombuffer(content, dtype=torch.uint8).untyped_storage()
        return metadata, {name: _tensor(whole, begin, **about) for name, about in header.items()}
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error


def _tensor(whole: torch.UntypedStorage, begin: int, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    kind, count, (first, end) = TYPES[dtype], math.prod(shape), data_offsets
    if end - first != count * kind.itemsize or not 0 <= first <= end <= len(whole) - begin:
        raise ValueError("it is cut, or its header is of another file")
    if not count:
        return torch.empty(shape, dtype=kind)
    if (begin + first) % kind.itemsize:
        raise ValueError("a tensor begins at no multiple of its type's size")
    return torch.empty(0, dtype=kind).set_(whole, (begin + first) // kind.itemsize, shape)
