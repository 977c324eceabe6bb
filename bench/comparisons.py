"""What the comparisons of one kind of layer (bench.stream, bench.recurrent, bench.normprop) have in common."""

import argparse

import torch


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """Of ``python -m bench.name``; about: the docstring of that module."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    return made
