"""One training loop, for all that learns: step after step, saved on the way, resumed to the bit.

A *trainee* knows how to make one step. What a step needs is in its parts (weights, moments of the
optimisers, averages) or follows from its seed and the step's number, so that one that was stopped
and brought on from its checkpoint makes the very steps that it would have made:

    train     steps, one by one
    bring     to so many steps: by the checkpoint where there is one, else by training
    save      a checkpoint, whole or not at all
    load      it, checked before it is believed
    fit       Adam on any loss, for what needs no more than `Fit`

Besides, what the steps of several trainees are made of.
"""

import copy
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ebmref import files
from ebmref.seeds import derive_seed


class Diverged(RuntimeError):
    """A loss or a weight is not finite; the message says where, and which checkpoint was good."""


class Stateful(Protocol):
    """What a checkpoint keeps the state of, such as an `nn.Module` or an optimiser."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> Any: ...


class Trainee(Protocol):
    """What can be trained.

    Attributes:
        kind: what it is called in messages.
        step: how many steps were made.
        saved: the last checkpoint that was written or read, in words; None before.
        device: where its parts are.
    """

    kind: str
    step: int
    saved: str | None
    device: torch.device

    def parts(self) -> dict[str, Stateful]:
        """All that a checkpoint holds, by name."""
        ...

    def identity(self) -> dict:
        """What must agree on loading, the shapes of the parts apart: plain values by name."""
        ...

    def advance(self, data=None) -> Any:
        """Make one step, count it, and return its numbers.

        Raises:
            ValueError: data that do not fit.
            Diverged: a loss is not finite. Nothing was moved by that loss.
        """
        ...


# --- the loop --------------------------------------------------------------------------


def train(
    trainee: Trainee,
    n_steps: int,
    *,
    data=None,
    checkpoint: Path | None = None,
    save_every: int = 1000,
) -> Iterator[Any]:
    """Train until `n_steps` steps were made in all; yields each one's numbers.

    Args:
        trainee: changed in place; one that made steps already goes on from there.
        n_steps: where to stop.
        data: what `Trainee.advance` is given.
        checkpoint: a file to save to at every `save_every` steps and at the end.

    Raises:
        ValueError: save_every below 1; data that do not fit.
        Diverged: see `Trainee.advance` and `save`.
    """
    if save_every < 1:
        raise ValueError(f"save_every: expected >= 1; got {save_every}")
    while trainee.step < n_steps:
        made = trainee.advance(data)
        if checkpoint and (trainee.step % save_every == 0 or trainee.step == n_steps):
            save(trainee, checkpoint)
        yield made


def bring(
    trainee: Trainee,
    n_steps: int,
    *,
    data=None,
    checkpoint: Path | None = None,
    save_every: int = 1000,
    progress: bool = False,
) -> None:
    """Bring a trainee to `n_steps` steps: by its checkpoint where there is one, else by training.

    One that was cut off goes on from its last save. At the end the checkpoint stays, so that to
    call this again, with the same trainee and steps, costs a read.

    Args:
        trainee: changed in place; it must not be beyond `n_steps`.
        n_steps, data, save_every: as for `train`.
        checkpoint: of this trainee; None keeps nothing. Its name should tell apart what a
            checkpoint does not know: the data, and how the networks squash and normalise.
        progress: show a bar.

    Raises:
        ValueError, Diverged: as `train` and `load`; a trainee, or a checkpoint, beyond n_steps.
    """
    if checkpoint is not None and Path(checkpoint).exists():
        load(trainee, checkpoint)
    if trainee.step > n_steps:
        raise ValueError(
            f"n_steps: the {trainee.kind} has made {trainee.step} already; got {n_steps}"
        )
    steps = train(trainee, n_steps, data=data, checkpoint=checkpoint, save_every=save_every)
    bar = {"initial": trainee.step, "total": n_steps, "unit": "step", "mininterval": 1.0}
    for _ in tqdm(steps, desc=trainee.kind, disable=not progress, **bar):
        pass


# --- checkpoints -----------------------------------------------------------------------


def save(trainee: Trainee, path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        Diverged: something in it is not finite. Nothing was written.
    """
    state = {name: part.state_dict() for name, part in trainee.parts().items()}
    wrong = next((name for name, x in _tensors(state) if not x.isfinite().all()), None)
    if wrong:
        raise Diverged(
            f"step {trainee.step}: {wrong} is not finite; last good checkpoint: "
            f"{trainee.saved or 'none'}"
        )
    with files.whole(path) as fresh:
        torch.save(state | trainee.identity() | {"step": trainee.step}, fresh)
    trainee.saved = f"{path}, step {trainee.step}"


def load(trainee: Trainee, path: Path) -> None:
    """Go on from a checkpoint.

    Raises:
        ValueError: no checkpoint, a damaged one, or one of another trainee; this one is then
            unchanged.
    """
    state = _read(path, trainee.device)
    differ = [name for name, now in trainee.identity().items() if not _same(state.get(name), now)]
    if differ:
        raise ValueError(
            f"checkpoint {path}: of another {trainee.kind} ({', '.join(differ)} differ)"
        )
    parts = trainee.parts()
    step = state.get("step")
    if type(step) is not int or any(
        not _fits(state.get(name), part) for name, part in parts.items()
    ):
        raise ValueError(f"checkpoint {path}: of other networks")
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except Exception:  # a part may refuse what fits by its shapes, after others have taken theirs
        for name, part in parts.items():
            part.load_state_dict(before[name])
        raise ValueError(f"checkpoint {path}: of other networks") from None
    trainee.step = step
    trainee.saved = f"{path}, step {step}"


def _read(path: Path, device: torch.device) -> dict:
    """A checkpoint as it was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch reads a damaged tensor without a word
        state = torch.load(path, map_location=device, weights_only=True)
        if damaged is None and isinstance(state, dict):
            return state
        reason = f"{damaged or 'its content'} is damaged"
    except Exception as error:  # what unpickling damaged bytes raises can be anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise ValueError(f"checkpoint {path}: missing or damaged ({reason})")


def _same(held, now) -> bool:
    """Whether a checkpoint's value is the plain one that is wanted."""
    try:
        return type(held) is type(now) and bool(held == now)
    except Exception:  # a file can hold anything, such as tensors where numbers belong
        return False


def _fits(state, part: Stateful) -> bool:
    """Whether a part's state has the names and shapes of the part."""
    if not isinstance(state, dict):
        return False
    if isinstance(part, torch.optim.Optimizer):
        return _fits_optimizer(state, part)
    return _shapes(state) == _shapes(part.state_dict())


def _fits_optimizer(state: dict, optimizer: torch.optim.Optimizer) -> bool:
    """Whether groups are as large, and each moment is of its parameter's shape."""
    groups = [group["params"] for group in optimizer.param_groups]
    held = state.get("param_groups")
    if not isinstance(held, list) or not isinstance(state.get("state"), dict):
        return False
    if [len(group.get("params", ())) for group in held] != [len(group) for group in groups]:
        return False
    parameters = [p for group in groups for p in group]
    return all(
        type(i) is int
        and 0 <= i < len(parameters)
        and all(x.dim() == 0 or x.shape == parameters[i].shape for _, x in _tensors(moments))
        for i, moments in state["state"].items()
    )


def _shapes(state: dict) -> dict[str, torch.Size]:
    return {name: x.shape for name, x in _tensors(state)}


def _tensors(state, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of a state, however deep, each with the way to it."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


# --- a plain fit -----------------------------------------------------------------------


class Fit:
    """A model that descends a loss, a `Trainee`.

    Args:
        model: what is trained.
        loss: draws a batch and gives `(n_models,)`, the loss of each model, or a number. The sum
            is descended, so each model gets the gradient of its own loss alone.
        optimizer: of the model's parameters.
        schedule: of its rates, one of `torch.optim.lr_scheduler`; stepped after it.
    """

    kind = "fit"

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[], Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    ):
        self.model, self.loss = model, loss
        self.optimizer, self.schedule = optimizer, schedule
        self.step, self.saved = 0, None
        self.device = next(model.parameters()).device

    def parts(self) -> dict[str, Stateful]:
        """Model, moments and rates. What the loss draws from is the caller's to keep."""
        parts = {"model": self.model, "optimizer": self.optimizer}
        return parts | ({} if self.schedule is None else {"schedule": self.schedule})

    def identity(self) -> dict:
        """Which optimiser and schedule."""
        return {"by": f"{type(self.optimizer).__name__}, {type(self.schedule).__name__}"}

    def advance(self, data=None) -> Tensor:
        """One step; the loss before it, as `loss` gives it."""
        values = self.loss()
        if not values.isfinite().all():
            raise Diverged(
                f"loss: not finite at step {self.step}; a smaller learning_rate may help"
            )
        self.optimizer.zero_grad()
        values.sum().backward()
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        return values.detach()


def fit(
    model: nn.Module,
    loss: Callable[[], Tensor],
    n_steps: int,
    learning_rate: float,
    *,
    anneal: bool = False,
) -> Iterator[Tensor]:
    """Adam on many models at once; yields each model's loss after each step.

    Args:
        model, loss: see `Fit`.
        n_steps, learning_rate: of Adam.
        anneal: let the learning rate fall to zero along a cosine, so that the noise of the
            batches averages out.

    Raises:
        ValueError: a step count or rate that is not positive.
        Diverged: a loss is not finite.
    """
    if n_steps < 1 or not learning_rate > 0:
        raise ValueError(f"n_steps, learning_rate: expected > 0; got {n_steps}, {learning_rate}")
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = None
    if anneal:
        # In this order of operations: recorded numbers hang on the last bit.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            adam, lambda step: (1 + math.cos(math.pi * step / n_steps)) / 2
        )
    yield from train(Fit(model, loss, adam, schedule), n_steps)


# --- what steps are made of ------------------------------------------------------------


def source(trainee, stream: str) -> torch.Generator:
    """The generator of a named stream of a trainee's seed, on its device."""
    return torch.Generator(trainee.device).manual_seed(derive_seed(trainee.seed, stream))


class Batches:
    """Data in batches, `batches[i]` being `(k, size, *event)`.

    An epoch is a permutation of the data, of each of the k models its own.

    Args:
        trainee: has a seed, a device and the dtype of its networks.
        data: `(n, *event)`, n >= size.
        k: how many models.
        size: of a batch.

    Raises:
        ValueError: too few data, or of another dtype.
    """

    def __init__(self, trainee, data: Tensor, k: int, size: int):
        if data.dim() < 2 or len(data) < size:
            raise ValueError(
                f"data: expected (n, *event) with n >= batch = {size}; got {tuple(data.shape)}"
            )
        if data.dtype != trainee.dtype:
            raise ValueError(
                f"data: expected {trainee.dtype}, as the networks are of; got {data.dtype}"
            )
        self.trainee, self.k, self.size = trainee, k, size
        self.given, self.data = data, data.to(trainee.device)
        self.n_batches = len(data) // size
        self.epoch = -1

    def __getitem__(self, index: int) -> Tensor:
        epoch, i = divmod(index, self.n_batches)
        if epoch != self.epoch:
            self.epoch = epoch
            draws = source(self.trainee, f"epoch-{epoch}")
            uniform = torch.rand(self.k, len(self.data), generator=draws, device=self.data.device)
            self.order = uniform.argsort(1)
        return self.data[self.order[:, i * self.size : (i + 1) * self.size]]


def cosine_fall(step: int, over: int) -> float:
    """What is left of a rate that falls along a cosine over so many steps; 1 where `over` is 0."""
    passed = min(1.0, step / over) if over else 0.0
    return 0.5 * (1 + math.cos(math.pi * passed))


def half_precision(device: torch.device, on: bool) -> torch.autocast:
    """Where it is on, matrix products are in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def descend(optimizer: torch.optim.Optimizer, parameters, gradients) -> None:
    """One step of the optimiser along given gradients."""
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient.contiguous()  # the fused optimiser takes its layout for the parameter's
    optimizer.step()


def take_into_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Let a moving average of weights follow a net.

    Young weights count for little: the decay at step t is no more than (1 + t) / (10 + t), so that
    the average reaches back a tenth of the run at most.
    """
    decay = min(decay, (1 + step) / (10 + step))
    now = [p.detach() for p in net.parameters()]
    torch._foreach_lerp_(list(average.parameters()), now, 1 - decay)


def diverged(trainee: Trainee, losses: dict[str, Tensor | None]) -> Diverged:
    """What to raise where one of these losses is not finite."""
    told = ", ".join(f"{name} {got.tolist()}" for name, got in losses.items() if got is not None)
    return Diverged(
        f"step {trainee.step + 1}: {told}; last good checkpoint: {trainee.saved or 'none'}"
    )
