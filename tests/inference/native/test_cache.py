"""The memory behind a cache: views of what is filled, and a copy of whatever else is put there."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from harness.inference.native.cache import ROOM, Encoded, Room, check
from harness.inference.native.program import Unsupported


@pytest.fixture
def cache():
    made = DynamicCache()
    for layer in range(3):
        made.update(torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), layer)
    return made


def test_layers_get_views_of_one_memory(cache):
    before = [(layer.keys, layer.values) for layer in cache.layers]
    room = Room(cache.layers)
    assert room.length == 5 and room.room == 5 + ROOM and room.holds(cache.layers)
    for index, (layer, tensors) in enumerate(zip(cache.layers, before, strict=True)):
        assert torch.equal(layer.keys, tensors[0]) and torch.equal(layer.values, tensors[1])
        assert layer.keys.data_ptr() == room.layers[index].keys == room.held[index, 0].data_ptr()
        assert layer.values.data_ptr() == room.layers[index].values


def test_a_step_lengthens_the_views(cache):
    room = Room(cache.layers)
    room.held[:, :, :, :, 5] = 7
    room.extend(cache.layers)
    assert cache.get_seq_length() == 6 and room.holds(cache.layers)
    assert all((layer.keys[:, :, 5] == 7).all() and (layer.values[:, :, 5] == 7).all() for layer in cache.layers)
    assert {place.length for place in room.layers} == {6}


def test_what_is_put_there_by_others_is_seen(cache):
    room = Room(cache.layers)
    cache.layers[1].values = cache.layers[1].values.clone()
    assert not room.holds(cache.layers)


def test_full_memory_is_seen(cache):
    room = Room(cache.layers)
    for _ in range(ROOM):
        assert room.holds(cache.layers)
        room.extend(cache.layers)
    assert not room.holds(cache.layers)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda layer: layer.reset(), "empty"),
        (lambda layer: setattr(layer, "keys", layer.keys[:1]), "another shape"),
        (lambda layer: setattr(layer, "keys", layer.keys.double()), "not float32"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(cache, change, said):
    shapes = dict.fromkeys(range(3), (4, 8))
    check(cache.layers, 2, shapes)
    change(cache.layers[1])
    with pytest.raises(Unsupported, match=said):
        check(cache.layers, 2, shapes)


@pytest.mark.parametrize("layers, shape", [(3, (2, 8)), (3, (8, 4)), (3, (4, 16)), (2, (4, 8)), (4, (4, 8))])
def test_a_cache_of_another_model_is_refused(cache, layers, shape):
    with pytest.raises(Unsupported, match="another shape"):
        check(cache.layers, 2, dict.fromkeys(range(layers), shape))


@pytest.mark.parametrize("other", ["dtype", "device"])
def test_memory_is_float32_on_the_cpu_whatever_torch_makes_by_default(cache, other):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16 if other == "dtype" else before)
        with torch.device("meta" if other == "device" else "cpu"):
            held = Room(cache.layers).held
    finally:
        torch.set_default_dtype(before)
    assert held.dtype == torch.float32 and held.is_cpu


def test_what_an_encoder_read_may_lie_anyhow(cache):
    for layer in cache.layers:
        layer.keys = layer.keys.transpose(1, 2).contiguous().transpose(1, 2)
    encoded = Encoded(cache.layers)
    assert encoded.holds(cache.layers) and encoded.length == 5
    place = encoded.layers[0]
    assert place.values == cache.layers[0].values.data_ptr() and place.keys == encoded.held[0].data_ptr()
    assert (place.batch, place.head) == (4 * 5 * 8, 5 * 8)
    cache.reorder_cache(torch.tensor([1, 0]))
    assert not encoded.holds(cache.layers)
