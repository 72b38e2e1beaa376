"""Run golden cases of a file in a process of its own, and tell the states that they end in.

`python -P golden.py '{"path": ..., "traced": ..., "files": ..., "seen": ...}'` prints a digest of
each case of the file at `path`: of every byte of the tensors in what it returns. Where `seen` is
given the run is traced by the file `traced`, see there.

The file stands alone: it runs with the packages of earlier trees too.
"""

import hashlib
import json
import runpy
import sys
from collections.abc import Iterator

import torch
from torch import nn


def values(made) -> Iterator:
    """The tensors and numbers in what a case returns, in one order."""
    if isinstance(made, torch.Tensor | int | float | str | None):
        yield made
    elif isinstance(made, nn.Module):
        yield from values(made.state_dict())
    elif isinstance(made, dict):
        for name in sorted(made, key=str):
            yield from values(made[name])
    elif isinstance(made, list | tuple):
        yield len(made)
        for one in made:
            yield from values(one)
    else:  # what holds the networks, such as a game
        for name in sorted(vars(made)):
            if isinstance(vars(made)[name], torch.Tensor | nn.Module) and name[0] != "_":
                yield from values(vars(made)[name])


def digest(made) -> str:
    """A short name for all of it, to the last bit."""
    whole = hashlib.sha256()
    for one in values(made):
        if isinstance(one, torch.Tensor):
            one = one.detach().cpu().contiguous()
            whole.update(f"{one.dtype} {tuple(one.shape)} ".encode())
            whole.update(one.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            whole.update(f"{one!r} ".encode())
    return whole.hexdigest()[:16]


def main(path: str, traced: str, files: dict, seen: str) -> None:
    """Run the cases of the file."""
    tracer = runpy.run_path(traced) if seen else None
    if tracer:
        tracer["start"](files, {})
    cases = runpy.run_path(path)["CASES"]
    torch.set_num_threads(1)
    made = {name: digest(case()) for name, case in cases.items()}
    if tracer:
        tracer["stop"](seen)
    print(json.dumps(made))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
