"""Named streams of random numbers: one seed, as many independent generators as one asks for."""

import zlib

import numpy as np


def derive_seed(seed: int, stream: str) -> int:
    """A 63-bit seed for one named stream of a run."""
    state = np.random.SeedSequence([seed, zlib.crc32(stream.encode())]).generate_state(2)
    return int(state[0]) << 31 ^ int(state[1])
