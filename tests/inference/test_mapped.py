from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from harness import exported
from harness.inference import mapped


@pytest.fixture
def written(tmp_path):
    tensors = {name: torch.arange(6).to(kind).view(2, 3) for name, kind in mapped.TYPES.items()}
    tensors |= {"none": torch.empty(0, 4), "one": torch.tensor(2.5), "far": torch.randn(5000)}
    save_file(tensors, tmp_path / "file", {"what": "all types"})
    return tmp_path / "file", tensors


def test_every_tensor_is_what_the_library_wrote(written):
    path, tensors = written
    metadata, found = mapped.read(exported.content(path))
    assert metadata == {"what": "all types"} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_what_is_written_to_a_tensor_stays_in_the_process(written):
    path, tensors = written
    mapped.read(exported.content(path))[1]["far"].zero_()
    assert torch.equal(mapped.read(exported.content(path))[1]["far"], tensors["far"])


@pytest.mark.parametrize("kept", [0, 4, 8, 90, -1])
def test_a_cut_file_is_no_such_file(written, kept):
    path, _ = written
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError):
        mapped.read(exported.content(path))


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [1]}}',
        b'{"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1, 0], "data_offsets": [0, 0]}}',
        b'{"__metadata__": [1]}',
    ],
)
def test_a_header_that_does_not_fit_is_refused(header, tmp_path):
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(ValueError):
        mapped.read(exported.content(tmp_path / "file"))


def test_a_tensor_that_begins_at_no_multiple_of_its_size_is_refused(tmp_path):
    header = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}}'
    header += b" " * (-len(header) % 8)
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + b"12345")
    with pytest.raises(ValueError, match="no multiple of its type's size"):
        mapped.read(exported.content(tmp_path / "file"))
