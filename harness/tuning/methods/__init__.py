"""Methods: what is trained, and how the zeros stay. One file a method, four small functions on one layer's tensors.

prepare(weight [out, in], keep [out, in], *, <options>) -> dict[str, Tensor]
    The tensors that are trained, by name. The name "weight" stands for the layer's own weight; any other becomes a new
    parameter of the layer, and a weight that is not among them is frozen.
project(tensors, keep) -> None
    Puts tensors that are named as above back where the method allows them, in place. The loop calls it on the gradients
    before they are clipped and on the trained tensors after every update.
adapt(x, weight, keep, trained) -> y
    The layer's forward without its bias, which is added afterwards. A method that trains nothing but the layer's own
    weight has none.
merge(weight, keep, trained) -> Tensor [out, in]
    The final weight, with zeros wherever keep is False; it is written into the layer, and what was added is
    taken off.
"""
