"""The images that examples learn from: scikit-learn's digits, or a set in a folder here; nothing is downloaded."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from _files import Part, binary, check, idx, mat, pickled
from torch import Tensor

DIGITS, FASHION, CIFAR10, CIFAR100, SVHN = NAMES = ("digits", "fashion-mnist", "cifar10", "cifar100", "svhn")


@dataclass(frozen=True)
class Images:
    """Bytes (N, C, H, W) and labels, to train with and to test with; ``name`` says which and how many."""

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def first(self, trained: int, tested: int) -> "Images":
        """The first ones of both, or all there are."""
        images, test = self.images[:trained], self.test_images[:tested]
        name = f"{self.name}, {len(images)} images, {len(test)} to test"
        return replace(
            self, name=name, images=images, labels=self.labels[:trained],
            test_images=test, test_labels=self.test_labels[:tested],
        )  # fmt: skip

    def held_out(self) -> "Images":
        """To choose by: the last fifth of the training images is what is tested with, and the test is not looked at."""
        kept = len(self.images) * 4 // 5
        return Images(
            f"{self.name}, {len(self.images) - kept} of the training images to validate",
            self.images[:kept], self.labels[:kept], self.images[kept:], self.labels[kept:],
        )  # fmt: skip

    def to(self, device: str) -> "Images":
        moved = (t.to(device) for t in (self.images, self.labels, self.test_images, self.test_labels))
        return Images(self.name, *moved)


@dataclass(frozen=True)
class Form:
    """One published form of a set: folders it may lie in, and files, each with its md5 where one is published.

    ``read`` makes images and labels of a file to train or to test with; those of ``beside`` it finds itself.
    """

    folders: tuple[str, ...]
    training: dict[str, str]
    test: dict[str, str]
    read: Callable[[Path], Part]
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        return {**self.training, **self.test, **self.beside}

    def place(self, folder: Path) -> Path | None:
        """Where all files are, packed or not."""
        for place in (folder, *(folder / name for name in self.folders)):
            if all((place / f).is_file() or (place / f"{f}.gz").is_file() for f in self.files):
                return place
        return None

    def load(self, place: Path) -> tuple[Part, Part]:
        for name, md5 in self.files.items():
            if md5:
                check(place / name, md5)
        first, second = ([self.read(place / name) for name in names] for names in (self.training, self.test))
        return _joined(first), _joined(second)


def _joined(parts: list[Part]) -> Part:
    images, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return images, labels


def _fashion(labels: Path) -> Part:
    images = idx(labels.with_name(labels.name.replace("labels-idx1", "images-idx3")))
    return images[:, None], idx(labels).long()


def load(name: str, folder: Path | None = None) -> Images:
    """The images of this name; from ``folder``, or from where they usually lie."""
    if name not in NAMES:
        raise ValueError(f"load: name must be one of {', '.join(NAMES)}, got {name!r}")
    if name == DIGITS:
        return _digits()
    places = [folder] if folder else [Path("data"), *([DEBIAN] if name == FASHION else [])]
    for form in FORMS[name]:
        for place in filter(None, map(form.place, places)):
            (images, labels), test = form.load(place)
            return Images(TITLES[name], images, labels, *test)
    raise FileNotFoundError(f"load: no {TITLES[name]} in {' or '.join(map(str, places))}. {HOW[name]}")


def _digits() -> Images:
    """8x8 pixels of 0 to 16, times 15; the last fifth is for testing."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.tensor(15 * pixels, dtype=torch.uint8).view(-1, 1, 8, 8), torch.tensor(classes)
    return Images("digits", images[:1437], labels[:1437], images[1437:], labels[1437:])


DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CIFAR = "https://www.cs.toronto.edu/~kriz/{0}-python.tar.gz (or -binary)"
TITLES = {DIGITS: "digits", FASHION: "Fashion-MNIST", CIFAR10: "CIFAR-10", CIFAR100: "CIFAR-100", SVHN: "SVHN"}
HOW = {
    FASHION: "On Debian: apt-get install dataset-fashion-mnist. Else the four idx files, gz or not, of "
    "https://github.com/zalandoresearch/fashion-mnist, or torchvision's FashionMNIST/raw: --folder says where.",
    CIFAR10: f"Unpack {CIFAR.format('cifar-10')}, and say with --folder where it lies.",
    CIFAR100: f"Unpack {CIFAR.format('cifar-100')}, and say with --folder where it lies.",
    SVHN: "Get train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers, "
    "and say with --folder where they lie.",
}
BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}  # fmt: skip
FORMS = {  # of CIFAR's binary files no sums are published; Fashion-MNIST's are of what is packed
    FASHION: [Form(
        ("fashion-mnist", "FashionMNIST/raw"), {"train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9"},
        {"t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965"}, _fashion,
        {"train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
         "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a"},
    )],
    CIFAR10: [
        Form(("cifar-10-batches-py",), BATCHES, {"test_batch": "40351d587109b95175f43aff81a1287e"}, pickled),
        Form(("cifar-10-batches-bin",), {f"{name}.bin": "" for name in BATCHES}, {"test_batch.bin": ""},
             partial(binary, label_bytes=1)),
    ],
    CIFAR100: [
        Form(("cifar-100-python",), {"train": "16019d7e3df5f24257cddd939b257f8d"},
             {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}, pickled),
        Form(("cifar-100-binary",), {"train.bin": ""}, {"test.bin": ""}, partial(binary, label_bytes=2)),
    ],
    SVHN: [Form(
        ("svhn",), {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373"},
        {"test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"}, mat,
    )],
}  # fmt: skip
