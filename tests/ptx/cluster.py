"""Blocks that run at once and may use each other's shared memory; a block alone is a cluster of one."""

import random

from .block import MISSED, Block
from .memory import PTXError
from .shared import Window


class Cluster:
    """Its blocks have their places."""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = sorted(blocks, key=lambda block: block.rank)
        if len(blocks) > 1:
            for block in self.blocks:
                block.shared = Window(block, self.blocks)

    def run(self, order: random.Random | None) -> None:
        """To the end of every thread; without an order each block in turn goes on as far as it can."""
        while not all(block.ended.all() for block in self.blocks):
            able = [block for block in self.blocks if block.ready().any()]
            if able:
                (order.choice(able) if order else able[0]).step(order)
            else:
                self._meet()

    def _meet(self) -> None:
        """Whoever waits for a barrier that all threads have arrived at goes on."""
        complete = min(block.arrived.min() for block in self.blocks)
        going = [block.meets & (block.waited < complete) for block in self.blocks]
        if not any(threads.any() for threads in going):
            raise PTXError(MISSED)
        for block, threads in zip(self.blocks, going, strict=True):
            block.meets[threads] = False
            block.waited[threads] += 1
