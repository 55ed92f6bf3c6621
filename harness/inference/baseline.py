"""What speed-ups are over where nobody says: the dense model as it is usually run on the same hardware.

    CPU   torch_dense in float32, which no engine rounds
    GPU   torch_dense in bfloat16: a GPU multiplies 16-bit values by its tensor cores, float32 several times slower,
          so a sparse engine in 16 bits over float32 would be credited with the rounding

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
