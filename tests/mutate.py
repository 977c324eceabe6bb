"""Break the code on purpose, one line at a time, and list the breaks that no test notices.

python tests/mutate.py [--only triton] [--native] [--jobs 2] [--table docs/mutations.csv]

With a table, what has a row there is not run again unless --all asks for it, so that a run that was stopped goes on; a
page of the same name (docs/mutations.md) sums it up. Trees are kept in build/mutants: the first native build of one
takes minutes, a later one only what depends on the line.
"""

import argparse
import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import ROOT, Mutation, load
from mutations._table import Table
from mutations._tree import Tree
from rich.console import Console

CONSOLE = Console()


class Trees:
    """Some trees, and a thread for each."""

    def __init__(self, jobs: int, native: bool):
        self._free: queue.Queue[Tree] = queue.Queue()
        self._pool = ThreadPoolExecutor(jobs)
        for tree in self._pool.map(lambda i: Tree(ROOT / f"build/mutants/{i}", native, max(1, 2 // jobs)), range(jobs)):
            self._free.put(tree)

    def map(self, work: Callable[[Tree, ...], str], items: Iterable) -> Iterator[str]:
        """work(tree, item) of each, in order."""

        def borrow(item) -> str:
            tree = self._free.get()
            try:
                return work(tree, item)
            finally:
                self._free.put(tree)

        return self._pool.map(borrow, items)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run the mutations whose place, tests or lines contain this")
    parser.add_argument("--native", action="store_true", help="those of csrc too")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (default: %(default)s)")
    parser.add_argument("--table", type=Path, help="a CSV of outcomes: write them there, and run what has none")
    parser.add_argument("--all", action="store_true", help="run what has an outcome in the table too")
    args = parser.parse_args()
    mutations = load()
    table = Table(args.table, mutations)
    chosen = [m for m in mutations if any(args.only in part for part in m) and (args.native or not m.native)]
    chosen = [m for m in chosen if args.all or not table.has(m)]
    if chosen and not run(chosen, Trees(args.jobs, any(m.native for m in chosen)), table):
        return 1
    table.write_page()
    bad = sum(map(table.bad, chosen))
    CONSOLE.print(f"{len(chosen)} mutations, {bad} that no test noticed, without a reason, or that no longer apply")
    return int(bad > 0)


def run(chosen: list[Mutation], trees: Trees, table: Table) -> bool:
    """Whether the tests pass before anything is broken; then the outcome of each mutation goes into the table."""
    selections = sorted({m.tests for m in chosen})
    outcomes = zip(selections, trees.map(Tree.run, selections), strict=True)
    failing = [tests for tests, outcome in outcomes if outcome != "survived"]
    for tests in failing:
        CONSOLE.print(f"these must pass before anything is broken: pytest {tests}", style="red", markup=False)
    if failing:
        return False
    for mutation, outcome in zip(chosen, trees.map(Tree.outcome, chosen), strict=True):
        table.add(mutation, outcome)
        CONSOLE.print(f"[{'red' if table.bad(mutation) else 'green'}]{outcome:9}[/] {mutation.place}", end=": ")
        CONSOLE.print(f"{mutation.old}  ->  {mutation.new}", markup=False, highlight=False)
    return True


if __name__ == "__main__":
    sys.exit(main())
