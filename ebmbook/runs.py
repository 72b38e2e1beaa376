"""How big, where, and from which seed a chapter runs.

A chapter asks `run.pick(quick=..., full=...)` and never branches on the device.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ebmbook import keys
from ebmbook.profiles import resolve_profile
from ebmref.seeds import derive_seed


@dataclass(frozen=True)
class Run:
    """One execution of one chapter: its profile, seed and device, resolved."""

    chapter: str
    profile: str
    seed: int
    device: torch.device

    def pick(self, *, quick, full):
        """The value that belongs to this run's profile."""
        return {"quick": quick, "full": full}[self.profile]

    def generator(self, stream: str, device: torch.device | str | None = None) -> torch.Generator:
        """A fresh generator for the named stream, on the run's device unless told otherwise.

        Streams are independent of one another, so a draw added to one leaves the
        numbers of all the others as they were.
        """
        generator = torch.Generator(device=self.device if device is None else device)
        return generator.manual_seed(derive_seed(self.seed, stream))

    def checkpoint(self, name: str) -> Path | None:
        """Where long training keeps its state, so that one that was cut off goes on from there.

        The name tells the code that asks, with all that it depends on: of a notebook the running
        statement and what it needs of the cells before, see `keys.of_caller`. What other code, or
        another PyTorch, or another kind of device made is not found.

        None in the quick profile, which makes everything anew, unless `$EBMREF_KEEP` is set. The
        folder is `$EBMREF_CHECKPOINTS`, by default `checkpoints/` beside the run.

        Args:
            name: of what is trained, with all that tells it from others that the same statement
                trains, the seed apart.
        """
        if self.profile == "quick" and not os.environ.get("EBMREF_KEEP"):
            return None
        made_by = keys.digest(keys.of_caller(self.profile), torch.__version__, self.device.type)
        folder = Path(os.environ.get("EBMREF_CHECKPOINTS") or "checkpoints").expanduser()
        return folder / f"{name}-seed-{self.seed}-{made_by}.pt"


def resolve_device(device: str | None = None) -> torch.device:
    """The argument, else the environment's `EBMREF_DEVICE`, else a GPU where there is one.

    Raises:
        ValueError: no such device, or this machine has none.
    """
    name = device or os.environ.get("EBMREF_DEVICE")
    if not name:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(name)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be one this machine has; got {name!r} ({reason})") from None
    return resolved


def begin(
    chapter: str, profile: str | None = None, seed: int = 0, device: str | None = None
) -> Run:
    """Resolve a chapter's parameters and make its numbers repeat exactly.

    Raises:
        ValueError: unknown profile or device, or a seed that is no integer >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0; got {seed!r}")
    run = Run(chapter, resolve_profile(profile), seed, resolve_device(device))
    # cuBLAS repeats itself only with a fixed workspace; it must be named before first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same switch as use_deterministic_algorithms, which imports a compiler first.
    torch.set_deterministic_debug_mode("error")
    if run.profile == "quick":
        # Small tensors lose time to threads, and the order of a sum is then fixed.
        torch.set_num_threads(1)
    return run
