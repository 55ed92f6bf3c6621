"""Products with packed weights on a CPU: C++ kernels, compiled at first use, and the layer that calls them.

What others call:

    from harness.inference.kernels.linear import PackedLinear, matmul
    matmul(packed, x, bias=None) -> y                     x [..., in] fp32 or bf16, y [..., out] in x's type
    PackedLinear.from_linear(linear, format, precision)   a module in the place of an nn.Linear; buffers are the tensors
    PackedLinear(packed, bias)

    from harness.inference.kernels import build, isa
    build.reason() -> str | None                          why there are no compiled kernels; None if there are
    isa.best() -> "avx512" | "avx2" | "portable"          what this processor runs; `isa.limit("avx2")` holds it back

Up to 32 rows of activations (96 with int8 weights) are multiplied by a decode kernel, which reads the packed weights
once for every 16; more are multiplied by the dense library, a block of weights at a time that is expanded into a
buffer of the cache's size. The number of threads is torch's at the call. Without a compiler the weights are expanded
with torch and multiplied dense, and a warning says so once. `source/step.cpp` is no product but a whole decode step
(`harness.inference.native`).
"""
