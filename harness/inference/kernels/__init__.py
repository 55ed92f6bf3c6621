"""Products with packed weights on a CPU: C++ kernels, compiled at first use, and the layer that calls them.

What others call:

    from harness.inference.kernels.linear import PackedLinear, matmul
    matmul(packed, x, bias=None) -> y                     x [..., in] fp32 or bf16, y [..., out] in x's type
    PackedLinear.from_linear(linear, format, precision)   a module in the place of an nn.Linear; buffers are the tensors
    PackedLinear(packed, bias)
    ... (activations=8)                                   with int8 weights: activations of 8 bits, not 14

    from harness.inference.kernels import build, isa
    build.reason() -> str | None                          why there are no compiled kernels; None if there are
    isa.best() -> "avx512" | "avx2" | "portable"          what this processor runs; `isa.limit("avx2")` holds it back

`linear.py` says how many rows of activations are multiplied how, and how exactly. The number of threads is torch's at
the call. Without a compiler the weights are expanded with torch and multiplied dense, and a warning says so once.
`source/step.cpp` is no product but a whole decode step (`harness.inference.native`).
"""
