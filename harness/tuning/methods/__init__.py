"""Methods: what is trained, and how the zeros stay. One file a method, small functions on one layer's tensors.

A mask `keep` is a BoolTensor; to `adapt`, `project` and `evolve`, which training calls, it comes in a bit a weight
(`tuning/bits.py`): keep[rows] are the bools of these rows, keep[:] those of all, and `evolve` writes keep[:] = changed.

prepare(weight [out, in], keep [out, in], [gradient,] *, <options>) -> dict[str, Tensor]
    The tensors that are trained, by name. The name "weight" stands for the layer's own weight; any other becomes a new
    parameter of the layer, and a weight that is not among them is frozen. A method that asks for `gradient` [out, in]
    is given the mean gradient of the loss, of the pruned model, over its option `samples` of training examples.
adapt(x, weight, keep, trained) -> y
    The layer's forward without its bias, which is added afterwards. Whoever trains the layer's own weight masks its
    gradient in the backward: an update then leaves pruned weights, and their moments, at 0.
merge(weight, keep, trained) -> Tensor [out, in]
    The final weight, with zeros wherever keep is False; it is written into the layer, and what was added is
    taken off.

More, for methods whose mask, or what they train, moves:

project(tensors, keep) -> None
    Puts tensors that are named as those of `prepare`, what is trained or the optimiser's moments of it, back where the
    method allows them, in place. Called where the mask was changed from outside: after a ramp's pruning.
state(weight, keep, *, <options>) -> dict[str, Tensor]
    Tensors that the method keeps besides, as buffers of the layer, found in `trained` by `adapt`, `evolve`, `merge`.
evolve(weight, keep, trained, moments, step, steps, *, <options>) -> None
    Called after every update: may change the weight, the mask, what is trained and kept, and the optimiser's moments of
    it (by name, then by the optimiser's own names), in place.
allot(errors, turn, *, <options>) -> list[dict[str, Tensor]]
    Called after every pruning of a ramp (`tune.ramp`): new values of what `state` keeps, for the layers of each block,
    from each block's reconstruction error and the number of prunings done.

budget(keep, *, <options>) -> int
    The most weights that a layer's mask may have in the end, of a method whose mask may grow (`KEEPS`).

Constants of a file, all optional:

FREEZES = True     everything of the model that the method does not train is frozen
MERGES = False     the result is the sparse model with an adapter beside it, because merged it would not be sparse
KEEPS = False      the mask moves and may grow up to `budget`, which no N:M pattern allows
PRUNES = True      merged it is dense, and the tune stage prunes it again as the cell's prune section says
GRADIENT = {...}   values of options with which `prepare` looks at its gradient; with others it is given None instead
RANK = "rank"      the option that is the rank of a product: at most a layer's smaller side
REVIVES = "..."    the option with which pruned weights come back, which no N:M pattern allows
ONLY_WITH = {...}  options that are looked at only while others have these values, {"option": {"other": value}}: a
                   section refuses them elsewhere, unless they have their defaults
RAMPS = ("...",)   options that only a ramp (`tune.ramp`) looks at, refused likewise
AGED = True        the optimiser counts the updates of every single number (`tuning/optimizer.py`)
"""
