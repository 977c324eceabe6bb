"""``python -m normkernels info``, ``validate`` and ``bench``; ``--help`` after one lists its options."""

import argparse
import importlib
import sys

from normkernels._place import source_tree

COMMANDS = {
    "info": "what runs here, on which backend, and why not",
    "validate": "every op, backend and dtype against float64",
    "bench": "speed, beside a copy, torch eager and torch.compile",
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m normkernels", description="Fused normalisation kernels for PyTorch.")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    args, rest = parser.parse_known_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    if args.command == "bench":
        return bench(rest)
    return importlib.import_module(f"normkernels.{args.command}").main(rest)


def bench(argv: list[str]) -> int:
    """The folder bench of the source tree that this package is imported from; a wheel has it in the package."""
    tree = source_tree()
    if tree is not None:
        sys.path.insert(0, str(tree))
    main = importlib.import_module(f"{'normkernels._bench' if tree is None else 'bench'}.__main__").main
    return main(argv, "python -m normkernels bench")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
