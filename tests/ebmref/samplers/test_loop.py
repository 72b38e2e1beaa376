"""How many parts a compiled loop cuts its chains into."""

import torch

from ebmref.samplers import isir, loop, ula


def wide(n_units):
    def energy(x):
        return torch.relu(x @ torch.ones(x.shape[1], n_units)).sum(1)

    return energy


def test_tiles_are_cut_by_the_widest_layer():
    x = torch.zeros(4096, 2)
    tiles = [loop._n_tiles(ula(wide(n), 0.1), x, 2) for n in (2, 128, 512)]
    assert tiles == [2, 2, 8]
    assert loop._n_tiles(ula(wide(10**5), 0.1), x, 2) == len(x) // 32  # no fewer chains than that


def test_points_that_a_chain_asks_for_at_once_count():
    class Law:
        sample = log_prob = None

    x = torch.zeros(4096, 2)
    assert loop._n_tiles(isir(wide(128), Law(), 8), x, 2) == 16
