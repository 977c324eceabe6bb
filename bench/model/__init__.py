"""What an H100 and an H200 would take, by a static model of the code that Triton compiles: predicted, never measured.

``python -m bench.model`` prints the predicted share of a copy's speed, forward and backward; ``--grid`` names the cases
of ``bench.sweep`` that take over twice a copy and its launches. Known of a launch, from its machine code (``compiled``)
and its arguments (``work``): registers, shared memory, instructions outside and inside its loop, barriers, where the
loop asks for the next tile, programs, and bytes. Assumed, so to be doubted (``times``):

* copies move 3.0 TB/s (H100) and 4.3 TB/s (H200), L2 5.5 TB/s, of which 25 MB stay from one sweep to the next;
* a launch costs 1.5 us, a program 0.4 us to start, memory answers after 1.0 us and L2 after 0.45 us;
* a program takes 110 GB/s of its own tile, a warp alone an instruction in 2.5 cycles, a multiprocessor four a cycle at
  1.7 GHz, a barrier 0.05 us;
* a barrier of a cluster costs 0.25 us, with the answer of another block's shared memory; 128 of 132 multiprocessors
  are in clusters of four or eight;
* of blocks, bandwidth and instructions the slowest sets the time, and near a tie they add up (a norm of power four).

``predicted.csv`` is by the Triton that is pinned; of the calls that a newer one gives clusters, ``clustered.csv`` has
the shares, written and checked by the same command with that Triton first on the path. Of CUDA's kernels ``cuda_rows``
and ``cuda_channels`` have them. ``kept`` says which bars hold, and of each miss (``--bars``, ``cuda_bars``) the share
that no more code than its formula needs (``floor``) and none at all would have.

Calibrated with what is published of kernels alike: RMS norm forward, 2.9 to 3.0 TB/s on an H100 from 4096 columns on
and 4.18 TB/s on an H200 (QuACK, cuDNN); layer norm forward at 32768x32768, 2.99 TB/s on an H100 (QuACK); statistics of
group norm, 4.2 TB/s on an H200 (SGLang). Off by about 0.1 for rows and 0.15 for channels, it orders shapes better than
it dates them.
"""
