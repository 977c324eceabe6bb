"""The CIFAR-10 loader of the examples, on tiny folders in both forms."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import _cifar

NAMES = (*_cifar.TRAINING, _cifar.TEST)


def fake() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two images for each file."""
    generator = np.random.default_rng(0)
    return {name: (generator.integers(0, 256, (2, 3072), np.uint8), generator.integers(0, 10, 2)) for name in NAMES}


def write(folder: Path, form: str) -> dict:
    folder.mkdir(parents=True)
    files = fake()
    for name, (images, labels) in files.items():
        if form == "python":
            batch = {b"data": images, b"labels": labels.tolist(), b"batch_label": b"fake"}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        else:
            records = np.concatenate([labels[:, None].astype(np.uint8), images], 1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
    return files


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("form", "name"), [("python", _cifar.FOLDERS[0]), ("binary", _cifar.FOLDERS[1])])
def test_both_forms(tmp_path, form, name, inside):
    files = write(tmp_path / name, form)
    images, labels, test_images, test_labels = _cifar.cifar10(tmp_path if inside else tmp_path / name)
    assert images.shape == (10, 3, 32, 32)
    assert images.dtype == torch.uint8
    for i, key in enumerate(NAMES[:-1]):  # in the order of the files, red, green and blue plane after plane
        assert np.array_equal(images[2 * i : 2 * i + 2].numpy().reshape(2, -1), files[key][0])
        assert labels[2 * i : 2 * i + 2].tolist() == files[key][1].tolist()
    assert np.array_equal(test_images.numpy().reshape(2, -1), files[_cifar.TEST][0])
    assert test_labels.tolist() == files[_cifar.TEST][1].tolist()


def test_a_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-py.*"):
        _cifar.cifar10(tmp_path)


def test_a_cut_file_is_refused(tmp_path):
    write(tmp_path / "cut", "binary")
    file = tmp_path / "cut" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="whole number of images"):
        _cifar.cifar10(tmp_path / "cut")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    write(tmp_path / "bad", "python")
    (tmp_path / "bad" / _cifar.TEST).write_bytes(pickle.dumps({b"data": Path}, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="arrays only"):
        _cifar.cifar10(tmp_path / "bad")
