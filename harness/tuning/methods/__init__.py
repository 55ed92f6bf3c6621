"""Methods: what is trained, and how the zeros stay. One file a method, four small functions on one layer's tensors.

prepare(weight [out, in], keep [out, in], *, <options>) -> dict[str, Tensor]
    The tensors that are trained, by name. The name "weight" stands for the layer's own weight; other names would stand
    beside it, with the weight frozen.
project(tensors, keep) -> None
    Puts tensors that are named as above back where the method allows them, in place. The loop calls it on the gradients
    before they are clipped and on the trained tensors after every update.
adapt(x, weight, keep, trained) -> y
    The layer's forward. A method that trains the layer's own weight has none.
merge(weight, keep, trained) -> Tensor [out, in]
    The final weight, with zeros wherever keep is False.
"""
