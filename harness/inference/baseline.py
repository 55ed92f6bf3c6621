"""What speed-ups are over: the dense model as it is usually run on the same hardware, and our own dense engine.

    CPU   torch_dense in float32, which no engine rounds
    GPU   torch_dense in bfloat16: a GPU multiplies 16-bit values by its tensor cores, float32 several times slower,
          so a sparse engine in 16 bits over float32 would be credited with the rounding
    own   the same engine, its precision and all other options, with format=dense: what is left is what sparsity gives

An engine's file says where it runs. Imports nothing heavy, so that a section's default can be had from here too.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness import rooms

DENSE = "torch_dense:dtype=float32"
DENSE_GPU = "torch_dense:dtype=bfloat16"


def baseline(engines: Iterable[str]) -> str:
    """Returns the engine that these choices of the room `engine` are compared with by default.

    Raises:
        Problem: An engine is unknown.
    """
    room = rooms.ROOMS["engine"]
    places = {room.method(rooms.resolve("engine", text).name).constants["DEVICE"] for text in engines}
    return DENSE_GPU if "cuda" in places else DENSE


def torch_dense(against: str, engines: Iterable[str]) -> str:
    """Returns PyTorch's dense engine: `against` where it is one, else the `baseline` of these engines."""
    return against if rooms.parse(against).name == rooms.parse(DENSE).name else baseline([against, *engines])


def own_dense(engine: str) -> str | None:
    """Returns an engine with dense weights in the place of packed ones; None for one that has no formats.

    Raises:
        Problem: The engine is unknown.
    """
    choice = rooms.resolve("engine", engine)
    if "format" not in choice.options:
        return None
    return str(rooms.Choice(choice.name, choice.options | {"format": "dense"}))
