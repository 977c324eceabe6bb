"""Where this package lies: in an install, or in a source tree that stands in front of one."""

from pathlib import Path

FOLDER = Path(__file__).parent


def source_tree() -> Path | None:
    """The clone that Python imports from, if it does: one that was started there sees it before any install."""
    return FOLDER.parent if (FOLDER.parent / "setup.py").is_file() and (FOLDER.parent / "csrc").is_dir() else None


def to_build() -> str:
    """What to do about an extension that is not there."""
    tree = source_tree()
    if tree is None:
        return "reinstall with a C++ compiler at hand: pip install --no-build-isolation ."
    return (
        f"Python imports the source tree {tree}, and no install: start it in another folder, or build here with "
        "python setup.py build_ext --inplace"
    )
