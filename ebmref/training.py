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

import contextlib
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
from ebmref.checks import check_tensors
from ebmref.seeds import derive_seed
from ebmref.spectral import settle
from ebmref.states import fits, not_finite, same


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
        ValueError: save_every below 1; data that do not fit; a checkpoint of a trainee that draws
            from PyTorch's own generator, which no checkpoint holds.
        RuntimeError: gradients are switched off.
        Diverged: see `Trainee.advance` and `save`; at the last step also without a checkpoint.
    """
    if save_every < 1:
        raise ValueError(f"save_every: expected >= 1; got {save_every}")
    while trainee.step < n_steps:
        if not torch.is_grad_enabled():
            raise RuntimeError(
                f"{trainee.kind}: training needs gradients, which torch.no_grad() or "
                "torch.inference_mode() has switched off"
            )
        before = _own_states(trainee.device) if checkpoint else []
        made = trainee.advance(data)
        if checkpoint and not all(map(torch.equal, before, _own_states(trainee.device))):
            raise ValueError(
                f"checkpoint: step {trainee.step} of the {trainee.kind} drew from PyTorch's own "
                "generator, as dropout does; no checkpoint holds that, and none could be resumed"
            )
        if checkpoint and (trainee.step % save_every == 0 or trainee.step == n_steps):
            save(trainee, checkpoint)
        elif trainee.step == n_steps:
            _check_finite(trainee, _state(trainee))
        yield made


def _own_generators(device: torch.device) -> list[torch.Generator]:
    """Those that PyTorch draws from where it is given none, as in dropout."""
    own = [torch.default_generator]
    if device.type == "cuda":
        at = torch.cuda.current_device() if device.index is None else device.index
        own.append(torch.cuda.default_generators[at])
    return own


def _own_states(device: torch.device) -> list[Tensor]:
    return [generator.get_state() for generator in _own_generators(device)]


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
    state = _state(trainee)
    _check_finite(trainee, state)
    told = {"step": trainee.step}
    if torch.get_default_dtype() != torch.float32:
        told[_DEFAULT] = str(torch.get_default_dtype())
    with files.whole(path) as fresh:
        torch.save(state | trainee.identity() | told, fresh)
    trainee.saved = f"{path}, step {trainee.step}"


# Batches are drawn in the default dtype; a file that does not name it is of single precision.
_DEFAULT = "default dtype"


def _state(trainee: Trainee) -> dict:
    """The states of all parts, by name."""
    return {name: part.state_dict() for name, part in trainee.parts().items()}


def _check_finite(trainee: Trainee, state: dict) -> None:
    """Raise Diverged, with the last good checkpoint, unless all of a state is finite."""
    if wrong := not_finite(state):
        raise Diverged(
            f"step {trainee.step}: {wrong} is not finite; last good checkpoint: "
            f"{trainee.saved or 'none'}"
        )


def load(trainee: Trainee, path: Path) -> None:
    """Go on from a checkpoint.

    Raises:
        ValueError: no checkpoint, a damaged one, one of another trainee or made with another
            default dtype, or one that is not finite; this one is then unchanged.
    """
    state = _read(path, trainee.device)
    differ = [name for name, now in trainee.identity().items() if not same(state.get(name), now)]
    if differ:
        raise ValueError(
            f"checkpoint {path}: of another {trainee.kind} ({', '.join(differ)} differ)"
        )
    made_in, now = state.get(_DEFAULT, str(torch.float32)), str(torch.get_default_dtype())
    if made_in != now:
        raise ValueError(f"checkpoint {path}: made with the default dtype {made_in}; it is {now}")
    parts = trainee.parts()
    step = state.get("step")
    if type(step) is not int or any(
        not fits(state.get(name), part) for name, part in parts.items()
    ):
        raise ValueError(f"checkpoint {path}: of other networks; names, shapes or dtypes differ")
    if wrong := not_finite({name: state[name] for name in parts}):
        raise ValueError(f"checkpoint {path}: {wrong} is not finite")
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


# --- a plain fit -----------------------------------------------------------------------


class Fit:
    """A model that descends a loss, a `Trainee`.

    Args:
        model: what is trained.
        loss: draws a batch and gives `(n_models,)`, the loss of each model, or a number. The sum
            is descended, so each model gets the gradient of its own loss alone.
        optimizer: of the model's parameters.
        schedule: of its rates, one of `torch.optim.lr_scheduler`; stepped after it.
        generator: what the loss draws from, to be saved with the rest. Without it a fit that is
            resumed goes on with other draws. Dropout, which draws from PyTorch's own generator, is
            refused by `train` where there is a checkpoint.
    """

    kind = "fit"

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[], Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        generator: torch.Generator | None = None,
    ):
        self.model, self.loss = model, loss
        self.optimizer, self.schedule, self.generator = optimizer, schedule, generator
        self.step, self.saved = 0, None
        self.device = next(model.parameters()).device

    def parts(self) -> dict[str, Stateful]:
        """Model, moments, rates and, where it is known, what the loss draws from."""
        parts = {"model": self.model, "optimizer": self.optimizer}
        if self.schedule is not None:
            parts["schedule"] = self.schedule
        if self.generator is not None:
            parts["generator"] = _Drawn(self.generator)
        return parts

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


class _Drawn:
    """A generator as part of a checkpoint."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def state_dict(self) -> dict:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self.generator.set_state(state["state"].cpu())


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


@contextlib.contextmanager
def seeded(trainee) -> Iterator[None]:
    """PyTorch's own generators, led by a trainee's seed and step, and set back at the end.

    So dropout, and whatever else draws from them in a network, is the same after a resume.
    """
    own, before = _own_generators(trainee.device), _own_states(trainee.device)
    seed = derive_seed(trainee.seed, f"own-{trainee.step}")
    try:
        for generator in own:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(own, before, strict=True):
            generator.set_state(state)


class Batches:
    """Data in batches, `batches[i]` being `(k, size, *event)`.

    An epoch is a permutation of the data, of each of the k models its own.

    Args:
        trainee: has a seed, a device and the dtype of its networks.
        data: `(n, *event)`, n >= size.
        k: how many models.
        size: of a batch.

    Raises:
        ValueError: no tensor, too few data, or of another dtype.
    """

    def __init__(self, trainee, data: Tensor, k: int, size: int):
        check_tensors(data=data)
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


def gradients(
    value: Tensor, parameters: list[Tensor], slope: Tensor | None = None
) -> list[Tensor | None]:
    """The gradient of each parameter; None for one that is frozen, or has no part in the value.

    Args:
        value: 0-d, or of the shape of `slope`.
        parameters: of what is trained.
        slope: gradient of a loss by the value, where that is no number itself.

    Raises:
        ValueError: all are frozen.
    """
    learning = [p for p in parameters if p.requires_grad]
    if not learning:
        raise ValueError("parameters: expected one that learns; all are frozen")
    found = iter(torch.autograd.grad(value, learning, slope, allow_unused=True))
    return [next(found) if p.requires_grad else None for p in parameters]


def descend(optimizer: torch.optim.Optimizer, parameters, gradients) -> None:
    """One step of the optimiser along given gradients; a parameter without one stays."""
    for p, gradient in zip(parameters, gradients, strict=True):
        # The fused optimiser takes its layout for the parameter's.
        p.grad = None if gradient is None else gradient.contiguous()
    optimizer.step()


def take_into_average(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Let a moving average of weights follow a net.

    Young weights count for little: the decay at step t is no more than (1 + t) / (10 + t), so that
    the average reaches back a tenth of the run at most. Buffers, such as the statistics of batches,
    are not averaged but taken over. Those of a parametrization, such as a spectral norm's vectors,
    belong to its weights, and follow those of the average.
    """
    decay = min(decay, (1 + step) / (10 + step))
    now = [p.detach() for p in net.parameters()]
    torch._foreach_lerp_(list(average.parameters()), now, 1 - decay)
    buffers = dict(net.named_buffers())
    for name, held in average.named_buffers():
        if "parametrizations" not in name.split("."):
            held.copy_(buffers[name])
    settle(average)


def diverged(trainee: Trainee, losses: dict[str, Tensor | None]) -> Diverged:
    """What to raise where one of these losses is not finite."""
    told = ", ".join(f"{name} {got.tolist()}" for name, got in losses.items() if got is not None)
    return Diverged(
        f"step {trainee.step + 1}: {told}; last good checkpoint: {trainee.saved or 'none'}"
    )
