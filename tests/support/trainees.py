"""What tests of trainees share: all that a checkpoint holds, as tensors by name."""

import torch


def numbers(trainee):
    """All tensors of all parts."""
    found = {}
    for name, part in trainee.parts().items():
        state = part.state_dict()
        if isinstance(part, torch.optim.Optimizer):
            state = {f"{i}.{k}": v for i, one in state["state"].items() for k, v in one.items()}
        found |= {f"{name}.{key}": torch.as_tensor(v).clone() for key, v in state.items()}
    return found
