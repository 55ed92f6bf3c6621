from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns import block, unstructured
from harness.pruning.recipe import recipe


def test_by_hand():
    scores = torch.tensor([[9.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 2.0]])
    keep = block.choose(scores, 0.5, rows=2, columns=2)
    assert keep.tolist() == [[True, True, False, False]] * 2
    assert block.choose(scores, 0.5, rows=1, columns=2).tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]


@given(*[st.integers(1, 4)] * 4, st.integers(1, 5), st.integers(0, 2**31), st.floats(0, 0.999))
def test_agrees_with_the_slow_version(plain, down, across, rows, columns, levels, seed, sparsity):
    scores = torch.randint(
        levels, (down * rows, across * columns), generator=torch.Generator().manual_seed(seed)
    ).float()
    keep = block.choose(scores, sparsity, rows=rows, columns=columns)
    number = int(round(down * across * sparsity, 9))
    assert torch.equal(keep, plain.block(scores, number, rows, columns))
    assert int((~keep).sum()) == number * rows * columns
    assert torch.equal(block.choose(keep.float(), sparsity, rows=rows, columns=columns), keep)


def test_tiles_of_one_weight_are_unstructured():
    scores = torch.rand(6, 10, generator=torch.Generator().manual_seed(0))
    expected = unstructured.choose(scores, 0.37, group="matrix")
    assert torch.equal(block.choose(scores, 0.37, rows=1, columns=1), expected)
    assert torch.equal(block.choose(scores.T.contiguous().T, 0.37, rows=1, columns=1), expected)


def test_sums_do_not_depend_on_the_order():
    # in float32 1e8 + 1 is 1e8: added in another order the tiles would tie or change places
    scores = torch.tensor([[1e8, 1.0, 1.0, 1e8], [0.0, 1.0, 0.0, 0.0]])
    assert block.choose(scores, 0.5, rows=2, columns=2).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
def test_a_matrix_that_does_not_divide_is_refused(shape):
    with pytest.raises(Problem, match=f"a matrix of {shape[0]} x {shape[1]} does not divide into tiles of 4 x 4"):
        block.choose(torch.rand(shape), 0.5)
    with pytest.raises(Problem, match=r"b: a matrix of"):
        block.fit({"b": 0.5}, {"b": Layer(shape, 0, "attention")}, 0.5)


def test_fit_rounds_to_tiles_and_keeps_the_overall_sparsity():
    layers = {
        "a": Layer((8, 8), 0, "attention"),
        "b": Layer((8, 16), 0, "attention"),
        "c": Layer((8, 32), 1, "attention"),
    }
    rates = {"a": 0.40, "b": 0.45, "c": 0.55}  # of 4, 8 and 16 tiles: 1.6, 3.6, 8.8; of all 28 half
    fitted = block.fit(rates, layers, 0.5)
    assert fitted == {"a": 0.5, "b": 0.375, "c": 9 / 16}
    zeros = sum(int((~block.choose(torch.rand(layers[n].shape), fitted[n])).sum()) for n in layers)
    assert zeros == 14 * 16
    assert block.fit(dict.fromkeys(layers, 0.45), layers, 0.45) == dict.fromkeys(layers, 0.45)


@pytest.mark.parametrize(("columns", "width"), [(4, 48), (8, 320)])
def test_a_solver_prunes_tiles_slab_by_slab(correlated, columns, width):
    weight, x = correlated(16, width)
    how = recipe("solver", "sparsegpt", f"block:rows=8,columns={columns}")
    solved = how.solve(weight, {"gram": x.T @ x / len(x), "length": len(x)}, 0.5)
    tiles = solved.keep.view(2, 8, width // columns, columns).transpose(1, 2).flatten(2)
    assert (tiles.all(-1) | ~tiles.any(-1)).all()
    for slab in solved.keep.split(solved.slab, dim=1):
        assert int((~slab).sum()) == slab.numel() // 2
