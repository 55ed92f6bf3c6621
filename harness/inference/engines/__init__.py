"""Engines, one a file: ways to run a model whose weights are sparse, so that their speed can be compared.

A file defines

- `prepare(model, *, options)`: changes the linears of a model of transformers in place and returns it. Whatever could
  be done with the model, generation with a key-value cache first of all, can be done with the result;
- `available(*, options)`: why this machine cannot run the engine so, or None;
- `exact(*, options)`: whether it computes what dense float32 weights do, up to the order of the sums. The others round
  weights or activations; how far their logits move, and which tokens change, is measured in every run.

`DEVICE` is where it runs: "cpu", "cuda", or "any", wherever the others do. An engine with `PEER = True` is another
program's runtime, with threads of its own that spin for work: it is measured in a process of its own.
"""
