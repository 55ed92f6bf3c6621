"""Quantisation after sparsity: weights on a grid of a few bits, zeros still zero, activations in 8 bits while it runs.

grid          the values that a row's weights may take; its codes are whole numbers, and one of them is exactly 0
rounding      (room) which value each kept weight takes
inputs        what the linears' inputs look like on calibration data, and which norm they come from
smoothquant   moves the difficulty of the inputs into the weights, the function staying as it is
activations   rounds the inputs of a loaded model's linears
codes         the file: whole numbers and scales that give back the weights bit by bit
whole         a whole model
"""
