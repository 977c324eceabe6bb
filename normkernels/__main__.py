"""``python -m normkernels info`` and ``python -m normkernels validate``; ``--help`` after either lists its options."""

import argparse
import importlib
import sys

COMMANDS = {
    "info": "what runs here, on which backend, and why not",
    "validate": "every op, backend and dtype against float64",
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
    return importlib.import_module(f"normkernels.{args.command}").main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
