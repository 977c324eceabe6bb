#!/bin/sh
# Builds, tests, checks and benchmarks on an NVIDIA GPU, unattended, in under ten minutes (see bench/README.md).
# Results: the folder $OUT, else bench/results/<gpu>. Needs python3 with torch and triton, nvcc, and no network.
cd "$(dirname "$0")/.." || exit 1
PYTHONPATH="$PWD" exec "${PYTHON:-python3}" -m bench.gpu "$@"
