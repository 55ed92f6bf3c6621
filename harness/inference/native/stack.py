"""A stack's `forward`: natively for a step of one token with a cache, else as transformers has it.

Natively run is a call in eval mode without gradients or autocast, of one token for each of at most 16 rows, with a
`DynamicCache` that holds something already, masks of one number a token, and no wish for attentions or hidden states.
A hook on a module within the stack, or a wish that is not known here, makes the call transformers' own (which leaves
hooks of its own behind where hidden states were asked for once). `counts` says how many there were of either, and why.

Weights may change in place at any time. Packed tensors that are assigned through their module (`layer.values = x`,
`load_state_dict(assign=True)`) are seen at the next step; those that are replaced behind its back (`.data = x`,
`_buffers[name] = x`), once a call was transformers' own, as a prompt's is; modules that are replaced, and weights of
norms, with the next cache.
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import inspect
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from harness.inference.kernels import build
from harness.inference.native.cache import Encoded, Room, check
from harness.inference.native.program import Mask, Program, Step, Tables, Unsupported

NATIVE = "native"
ROWS = 16
"""Most rows that a step is run for."""
READ = {
    *("input_ids", "inputs_embeds", "attention_mask", "position_ids", "past_key_values", "use_cache", "return_dict"),
    *("encoder_hidden_states", "encoder_attention_mask"),
}
"""What a native call reads; anything else that is asked for makes it transformers' own."""


@dataclass
class Held:
    """What belongs to one cache of one program: memory, tables by position, what the encoder read, last positions."""

    program: Program
    room: Room
    tables: Tables
    encoded: Encoded | None
    positions: ctypes.Array | None = None


class Native:
    """The `forward` of a stack.

    Args:
        stack: A decoder with packed linears. It holds its `forward`, so that does not hold it: a model that is let go
            of is freed at once, with what it has mapped.
        family: The module here that knows it.

    Attributes:
        counts: How many calls were native, and how many were not, by the reason.
    """

    def __init__(self, stack: nn.Module, family: ModuleType) -> None:
        self._stack, self.family = weakref.ref(stack), family
        self._forget()

    @property
    def stack(self) -> nn.Module:
        """The stack.

        Raises:
            ReferenceError: It is gone, and only its `forward` was kept.
        """
        stack = self._stack()
        if stack is None:
            raise ReferenceError("the model of this forward is gone")
        return stack

    def __call__(self, *args: Any, **given: Any) -> Any:
        """Returns what the stack's own `forward` would, and extends the cache as that would."""
        if torch.compiler.is_compiling():
            return type(self.stack).forward(self.stack, *args, **given)
        try:
            if len(args) > 1:
                raise Unsupported("positional arguments")
            asked = {"input_ids": args[0], **given} if args else given
            x, held, step = self._prepared(asked)
        except Unsupported as why:
            self.counts[str(why)] += 1
            return type(self.stack).forward(self.stack, *args, **given)
        self.counts[NATIVE] += 1
        y = torch.empty_like(x)
        step.x, step.y = x.data_ptr(), y.data_ptr()
        build.library("step").step(ctypes.addressof(step))
        held.room.extend(_parts(given["past_key_values"])[0].layers)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=y, past_key_values=given["past_key_values"])

    def __getstate__(self) -> dict[str, Any]:
        return {"stack": self.stack, "family": self.family.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._stack, self.family = weakref.ref(state["stack"]), importlib.import_module(state["family"])
        self._forget()

    def _forget(self) -> None:
        self.__signature__ = inspect.signature(type(self.stack).forward.__get__(self.stack))
        self.counts: collections.Counter[str] = collections.Counter()
        self._program: Program | None = None
        self._modules: list[weakref.ref[nn.Module]] = []
        self._unhooked = -1
        self._held: weakref.WeakKeyDictionary[Any, Held] = weakref.WeakKeyDictionary()

    def program(self, *, anew: bool = False) -> Program:
        """Returns the stack's program, written anew where packed weights have moved.

        Args:
            anew: Look for replaced modules and moved weights of norms too.

        Raises:
            Unsupported: The stack holds what no operation computes.
        """
        program = self._program
        if program and program.fresh(norms=anew) and not (anew and self._modules != self._found()):
            return program
        self._program = None
        if reason := build.reason() or self.family.refusal(self.stack):
            raise Unsupported(reason)
        program = Program(self.stack.config.hidden_size)
        self.family.write(self.stack, program)
        self._program, self._modules = program, self._found()
        return program

    def _found(self) -> list[weakref.ref[nn.Module]]:
        """Returns all modules that the stack has now."""
        return [weakref.ref(module) for module in self.stack.modules()]

    def _prepared(self, given: Mapping[str, Any]) -> tuple[Tensor, Held, Step]:
        """Returns the embedded tokens [batch, 1, width], what belongs to the cache, and the step but for x and y.

        Raises:
            Unsupported: The call is not one to be run natively.
        """
        batch = self._asked(given)
        own, crossed = self._caches(given)
        held = self._held.get(own)
        program = self.program(anew=held is None)
        if held and held.program is not program:
            held = None
        mask = _mask(given.get("attention_mask"), batch, own.get_seq_length() + 1)
        if held is None or not held.room.holds(own.layers):
            check(own.layers, batch, program.own)
            room = Room(own.layers)
            fits = held is not None and held.tables.reach >= room.room
            tables = held.tables if fits else self.family.tables(self.stack, room.room)
            program.check(tables)
            held = self._held[own] = Held(program, room, tables, held.encoded if held else None)
        room, tables = held.room, held.tables
        if room.batch != batch:
            raise Unsupported("a cache of another shape")
        step = Step(
            ops=ctypes.addressof(program.array),
            count=len(program.array),
            size=program.most,
            threads=torch.get_num_threads(),
            batch=batch,
            from_=program.input,
            result=program.result,
            own=ctypes.addressof(room.layers),
            mask=mask,
            reach=tables.reach,
            **tables.places,
        )
        if crossed is not None:
            if held.encoded is None or not held.encoded.holds(crossed.layers):
                check(crossed.layers, batch, program.crossed)
                held.encoded = Encoded(crossed.layers)
            step.crossed = ctypes.addressof(held.encoded.layers)
            step.crossed_mask = _mask(given.get("encoder_attention_mask"), batch, held.encoded.length)
        if tables.cosines is not None:
            held.positions = _positions(given.get("position_ids"), batch, room.length, tables.reach)
            step.positions = ctypes.addressof(held.positions)
        x = self.family.embed(self.stack, given, room.length)
        if x.dtype != torch.float32 or x.shape != (batch, 1, program.input.width) or not x.is_cpu:
            raise Unsupported("activations that are not float32 on the CPU")
        return x.contiguous(), held, step

    def _asked(self, given: Mapping[str, Any]) -> int:
        """Returns for how many rows a token is asked for.

        Raises:
            Unsupported: Something else is asked for.
        """
        stack, config = self.stack, self.stack.config
        if torch.is_grad_enabled() or stack.training or torch.is_autocast_enabled("cpu"):
            raise Unsupported("training, gradients or autocast")
        token = given.get("input_ids") if given.get("inputs_embeds") is None else given["inputs_embeds"]
        if token is None or token.ndim < 2 or token.shape[1] != 1:
            raise Unsupported("several tokens")
        if len(token) > ROWS:
            raise Unsupported(f"more than {ROWS} rows")
        if unknown := [name for name in given.keys() - READ if given[name] is not None and given[name] is not False]:
            raise Unsupported(f"the argument {min(unknown)}")
        if config.output_attentions or config.output_hidden_states:
            raise Unsupported("attentions or hidden states")
        if given.get("return_dict", config.return_dict) is False:
            raise Unsupported("a tuple")
        if self._hooked():
            raise Unsupported("hooks")
        return len(token)

    def _caches(self, given: Mapping[str, Any]) -> tuple[DynamicCache, DynamicCache | None]:
        """Returns the cache of a call, and that of what the encoder read.

        Raises:
            Unsupported: There is none, or one of another kind.
        """
        cache = given.get("past_key_values")
        if cache is None or given.get("use_cache") is False:
            raise Unsupported("no cache")
        own, crossed = _parts(cache)
        count = len(getattr(self.stack, self.family.LAYERS))
        for each in (own, crossed):
            if each is not None and (type(each) is not DynamicCache or len(each.layers) != count or each.offloading):
                raise Unsupported("another kind of cache")
        if not all([type(layer) is DynamicLayer for layer in own.layers]) or (crossed is None) == self.family.CROSSED:
            raise Unsupported("another kind of cache")
        if crossed is not None and not all(map(cache.is_updated.get, range(count))):
            raise Unsupported("an encoder that is not in the cache yet")
        return own, crossed

    def _hooked(self) -> bool:
        """Says whether a module within the stack, or every module, has a hook; looked for only after one was made."""
        if modules._global_forward_hooks or modules._global_forward_pre_hooks:
            return True
        made = RemovableHandle.next_id
        if self._unhooked == made:
            return False
        within = [module for module in self.stack.modules() if module is not self.stack]
        if any(module._forward_hooks or module._forward_pre_hooks for module in within):
            return True
        self._unhooked = made
        return False


def _parts(cache: Any) -> tuple[Any, Any]:
    """Returns the cache of the decoder itself, and that of what the encoder read, or None."""
    if isinstance(cache, EncoderDecoderCache):
        return cache.self_attention_cache, cache.cross_attention_cache
    return cache, None


def _mask(mask: Tensor | None, batch: int, length: int) -> Mask:
    if mask is None:
        return Mask()
    whole = mask.shape == (batch, length) and mask.is_contiguous() and mask.is_cpu
    if not whole or mask.dtype not in (torch.bool, torch.int64):
        raise Unsupported("another kind of mask")
    return Mask(mask.data_ptr(), length, mask.element_size())


def _positions(given: Tensor | None, batch: int, length: int, reach: int) -> ctypes.Array:
    """Returns the positions of the new tokens, as an array of C."""
    found = [length] if given is None else given.flatten().tolist()
    if len(found) not in (1, batch) or not all(0 <= each < reach for each in found):
        raise Unsupported("positions beyond the cache")
    return (ctypes.c_int64 * batch)(*(found * batch)[:batch])
