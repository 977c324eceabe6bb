"""Running statistics of each step of a recurrent batch norm."""

import copy

import pytest
import torch
from recurrent_layers import close

import normkernels as nk

pytestmark = pytest.mark.usefixtures("seeded")


class TestStatistics:
    """Running statistics of each step."""

    def test_of_each_step(self):
        """Those of W_ih x_t are the batch's at step t, the variance unbiased."""
        ours = nk.BatchNormRNN(3, 4, momentum=1.0, max_steps=3, dtype=torch.float64)
        x = torch.randn(5, 6, 3, dtype=torch.float64)
        ours(x)
        terms = x @ ours.weight_ih_l0.T
        for got, want in (("mean", terms.mean(1)), ("var", terms.var(1))):
            close(getattr(ours, f"running_{got}_ih_l0"), torch.stack([want[0], want[1], want[4]]))
        assert ours.num_batches_tracked_l0.tolist() == [1, 1, 1]

    def test_last_one_is_reused(self):
        """Steps past those seen in training take the last of these."""
        ours = nk.BatchNormLSTM(3, 4, max_steps=10, dtype=torch.float64)
        for _ in range(3):
            ours(torch.randn(4, 6, 3, dtype=torch.float64))
        for name, buffer in ours.named_buffers():
            if name.startswith("running"):
                assert torch.equal(buffer[4:], buffer[3:4].expand(6, -1)), name
        assert ours.num_batches_tracked_l0.tolist() == [3] * 4 + [0] * 6
        cut = copy.deepcopy(ours).eval()
        for name, buffer in list(cut.named_buffers()):
            setattr(cut, name, buffer[:4])
        x = torch.randn(12, 2, 3, dtype=torch.float64)
        assert torch.equal(ours.eval()(x)[0], cut(x)[0])

    def test_longer_sequences_come_later(self):
        """A step that is reached for the first time goes on from the statistics that stood in for its own."""
        ours = nk.BatchNormRNN(3, 4, max_steps=4, momentum=0.5, dtype=torch.float64)
        ours(torch.randn(2, 6, 3, dtype=torch.float64))
        stood_in = ours.running_mean_ih_l0[1].clone()
        x = torch.randn(3, 6, 3, dtype=torch.float64)
        ours(x)
        own = (x[2] @ ours.weight_ih_l0.T).mean(0)
        close(ours.running_mean_ih_l0[2], (stood_in + own) / 2)

    def test_one_set_of_statistics(self):
        """What was tried first: each step moves the same statistics on, one after the other."""
        ours = nk.BatchNormRNN(3, 4, norm_terms="sum", max_steps=1, momentum=0.5, dtype=torch.float64)
        x, mean = torch.randn(3, 6, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        y = ours(x)[0]
        for t in range(3):
            a = x[t] @ ours.weight_ih_l0.T + (y[t - 1] @ ours.weight_hh_l0.T if t else 0)
            mean = (mean + a.mean(0)) / 2
        close(ours.running_mean_l0[0], mean)

    def test_reverse_counts_from_the_last_step(self):
        ours = nk.BatchNormRNN(3, 4, bidirectional=True, momentum=1.0, max_steps=2, dtype=torch.float64)
        x = torch.randn(5, 6, 3, dtype=torch.float64)
        ours(x)
        terms = x @ ours.weight_ih_l0_reverse.T
        close(ours.running_mean_ih_l0_reverse, terms.mean(1)[[4, 0]])

    def test_without_running_statistics(self):
        ours = nk.BatchNormLSTM(3, 4, track_running_stats=False, dtype=torch.float64)
        x = torch.randn(5, 6, 3, dtype=torch.float64)
        assert not list(ours.buffers())
        assert torch.equal(ours(x)[0], ours.eval()(x)[0])

    def test_reset(self):
        ours = nk.BatchNormRNN(3, 4)
        first = {k: b.clone() for k, b in ours.named_buffers()}
        ours(torch.randn(5, 6, 3))
        assert not torch.equal(first["running_mean_hh_l0"], ours.running_mean_hh_l0)
        ours.reset_running_stats()
        assert all(map(torch.equal, first.values(), ours.buffers()))
