"""What the examples read image data sets with, on tiny folders in each published form."""

import gzip
import hashlib
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import _data
from scipy.io import savemat

GENERATOR = np.random.default_rng(0)


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


def fashion() -> tuple[dict[str, bytes], list]:
    files, parts = {}, []
    for name, count in (("train", 3), ("t10k", 2)):
        images, labels = GENERATOR.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8)
        files[f"{name}-images-idx3-ubyte"], files[f"{name}-labels-idx1-ubyte"] = idx(images), idx(labels)
        parts += [images[:, None], labels]
    return files, parts


def cifar(form: _data.Form, labels_in: str) -> tuple[dict[str, bytes], list]:
    """Two images for each file: red, green and blue plane after plane."""
    files, parts = {}, []
    for name in (*form.training, *form.test):
        images, labels = GENERATOR.integers(0, 256, (2, 3072), np.uint8), GENERATOR.integers(0, 10, 2)
        if name.endswith(".bin"):
            coarse = [labels[:, None] * 0 + 7] * (labels_in == "fine_labels")
            files[name] = np.concatenate([*coarse, labels[:, None], images], 1).astype(np.uint8).tobytes()
        else:
            batch = {b"data": images, labels_in.encode(): labels.tolist(), b"batch_label": b"fake"}
            files[name] = pickle.dumps(batch, protocol=2)
        parts.append((images.reshape(2, 3, 32, 32), labels))
    train = [np.concatenate(each) for each in zip(*parts[: len(form.training)], strict=True)]
    return files, [*train, *parts[-1]]


def svhn(folder: Path) -> list:
    parts = []
    for name, count in (("train", 3), ("test", 2)):
        images, labels = GENERATOR.integers(0, 256, (32, 32, 3, count), np.uint8), np.array([1, 10, 3])[:count]
        savemat(folder / f"{name}_32x32.mat", {"X": images, "y": labels[:, None]})
        parts += [images.transpose(3, 2, 0, 1), labels % 10]
    return parts


def publish(monkeypatch, name: str, number: int, files: dict[str, bytes]) -> None:
    """Let the sums of these files be the published ones."""
    sums = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    forms = list(_data.FORMS[name])
    parts = {part: {f: sums[f] for f in getattr(forms[number], part)} for part in ("training", "test", "beside")}
    forms[number] = replace(forms[number], **parts)
    monkeypatch.setitem(_data.FORMS, name, forms)


def make(monkeypatch, folder: Path, name: str, number: int, packed: bool) -> list:
    folder.mkdir(parents=True)
    form = _data.FORMS[name][number]
    if name == _data.SVHN:
        parts = svhn(folder)
        files = {f.name: f.read_bytes() for f in folder.iterdir()}
    else:
        labels = "fine_labels" if name == _data.CIFAR100 else "labels"
        files, parts = fashion() if name == _data.FASHION else cifar(form, labels)
        for file, content in files.items():
            path = folder / (f"{file}.gz" if packed else file)
            path.write_bytes(gzip.compress(content) if packed else content)
    publish(monkeypatch, name, number, files)
    return parts


FORMS = [(name, number) for name, forms in _data.FORMS.items() for number in range(len(forms))]


@pytest.mark.parametrize(("name", "number"), FORMS)
@pytest.mark.parametrize("inside", [True, False])
def test_every_form(monkeypatch, tmp_path, name, number, inside):
    """From the folder itself, and from the one that the archive or torchvision puts it in."""
    folder = tmp_path / (_data.FORMS[name][number].folders[-1] if inside else "here")
    wanted = make(monkeypatch, folder, name, number, packed=name == _data.FASHION and inside)
    found = _data.load(name, tmp_path if inside else folder)
    assert found.images.dtype == torch.uint8
    assert found.labels.dtype == torch.int64
    for mine, theirs in zip(
        (found.images, found.labels, found.test_images, found.test_labels), wanted, strict=True
    ):  # in the order of the files
        assert np.array_equal(mine.numpy(), theirs)


@pytest.mark.parametrize("name", _data.FORMS)
def test_a_missing_set_says_how_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"{_data.TITLES[name]}(.|\n)*(apt-get|Unpack|Get).*"):
        _data.load(name, tmp_path)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"load: name must be one of digits, .*'mnist'"):
        _data.load("mnist")


@pytest.mark.parametrize(("name", "number"), [(n, i) for n, i in FORMS if "bin" not in str(_data.FORMS[n][i].folders)])
def test_another_content_is_refused(monkeypatch, tmp_path, name, number):
    make(monkeypatch, tmp_path / "cut", name, number, packed=False)
    file = sorted((tmp_path / "cut").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ValueError, match=rf"{file.name}: the md5 must be"):
        _data.load(name, tmp_path / "cut")


def test_a_cut_file_of_records_is_refused(monkeypatch, tmp_path):
    make(monkeypatch, tmp_path / "cut", _data.CIFAR10, 1, packed=False)
    monkeypatch.undo()  # no sums are published of these
    file = tmp_path / "cut" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="whole number of images"):
        _data.load(_data.CIFAR10, tmp_path / "cut")


def test_a_pickle_that_runs_code_is_refused(monkeypatch, tmp_path):
    make(monkeypatch, tmp_path / "bad", _data.CIFAR10, 0, packed=False)
    (tmp_path / "bad" / "test_batch").write_bytes(pickle.dumps({b"data": Path}, protocol=2))
    forms = _data.FORMS[_data.CIFAR10]
    monkeypatch.setitem(_data.FORMS, _data.CIFAR10, [replace(forms[0], test={"test_batch": ""})])
    with pytest.raises(pickle.UnpicklingError, match="arrays only"):
        _data.load(_data.CIFAR10, tmp_path / "bad")


def test_digits_and_the_first_ones():
    found = _data.load("digits").first(100, 10)
    assert found.name == "digits, 100 images, 10 to test"
    assert found.images.shape == (100, 1, 8, 8)
    assert (len(found.labels), len(found.test_images), len(found.test_labels)) == (100, 10, 10)
    assert found.images.max() == 240


def test_what_is_held_out_was_to_train_with():
    data = _data.load("digits").first(100, 10)
    held = data.held_out()
    assert held.name == "digits, 100 images, 10 to test, 20 of the training images to validate"
    assert torch.equal(torch.cat([held.images, held.test_images]), data.images)
    assert torch.equal(torch.cat([held.labels, held.test_labels]), data.labels)
    assert len(held.test_images) == 20
