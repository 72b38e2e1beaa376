"""The one loop on the smallest trainee: what is saved, what is refused, what stays as it was."""

import math

import pytest
import torch
from torch import nn

from ebmref import files, training


class Counter:
    """Adds one to a number a step; `jump` where the number becomes infinite."""

    kind = "counter"

    def __init__(self, jump=None, seed=0, size=1):
        self.number, self.seed, self.jump = nn.Linear(size, 1), seed, jump
        self.other = torch.optim.SGD(self.number.parameters(), 0.1)
        self.step, self.saved, self.device = 0, None, torch.device("cpu")
        with torch.no_grad():
            for parameter in self.number.parameters():
                parameter.zero_()

    def parts(self):
        return {"number": self.number, "other": self.other}

    def identity(self):
        return {"seed": self.seed, "recipe": {"by": 1}}

    def advance(self, data=None):
        self.step += 1
        with torch.no_grad():
            self.number.bias += math.inf if self.step == self.jump else 1 if data is None else data
        return self.step


def value(counter):
    return float(counter.number.bias.detach())


def test_train_yields_each_step_and_goes_on_from_there():
    one = Counter()
    assert list(training.train(one, 3)) == [1, 2, 3]
    assert list(training.train(one, 5, data=10)) == [4, 5]
    assert list(training.train(one, 5)) == []
    assert value(one) == 23


def test_a_weight_that_is_not_finite_is_refused_at_save(tmp_path):
    """The save before it stays, and is named."""
    path = tmp_path / "one.pt"
    one = Counter(jump=5)
    words = r"step 5: number\.bias is not finite; last good checkpoint: .*one\.pt, step 4$"
    with pytest.raises(training.Diverged, match=words):
        list(training.train(one, 9, checkpoint=path, save_every=1))
    again = Counter()
    training.load(again, path)
    assert (again.step, value(again)) == (4, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["one.pt"]


def test_what_differs_is_named(tmp_path):
    path = tmp_path / "one.pt"
    training.save(Counter(), path)
    with pytest.raises(ValueError, match=r"of another counter \(seed differ\)$"):
        training.load(Counter(seed=1), path)
    torch.save({"seed": torch.zeros(2), "recipe": {"by": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match=r"of another counter \(seed, recipe differ\)$"):
        training.load(Counter(), path)


def broken(state, what):
    if what == "a part is no dict":
        state["number"] = 3
    if what == "step":
        state["step"] = "many"
    if what == "groups":
        state["other"]["param_groups"] = []
    if what == "a moment of another shape":
        state["other"]["state"] = {0: {"momentum_buffer": torch.zeros(7)}}
    if what == "refused late":  # shapes fit; PyTorch misses a key when the first part is loaded
        del state["other"]["param_groups"][0]["params"][1]
    return state


@pytest.mark.parametrize(
    "what",
    ["a part is no dict", "step", "groups", "a moment of another shape", "refused late"],
)
def test_what_does_not_fit_leaves_the_trainee_as_it_was(what, tmp_path):
    path = tmp_path / "one.pt"
    one = Counter()
    list(training.train(one, 3, checkpoint=path))
    torch.save(broken(torch.load(path, weights_only=True), what), path)
    two = Counter()
    list(training.train(two, 1))
    with pytest.raises(ValueError, match="of other networks"):
        training.load(two, path)
    assert (two.step, two.saved, value(two)) == (1, None, 1)


def test_a_part_that_refuses_late_gives_back_what_others_took(tmp_path, monkeypatch):
    path = tmp_path / "one.pt"
    list(training.train(Counter(), 3, checkpoint=path))
    two = Counter()
    list(training.train(two, 1))
    load, asked = two.other.load_state_dict, []

    def once(state):
        asked.append(value(two))
        if len(asked) == 1:
            raise KeyError("of another version")
        load(state)

    monkeypatch.setattr(two.other, "load_state_dict", once)
    with pytest.raises(ValueError, match="of other networks"):
        training.load(two, path)
    assert asked[0] == 3  # the first part had been loaded
    assert (two.step, value(two)) == (1, 1)


@pytest.mark.parametrize("anneal", [False, True])
def test_a_fit_stopped_and_resumed_is_straight_through(anneal, tmp_path):
    def make():
        net = nn.Linear(2, 1)
        with torch.no_grad():
            net.weight.fill_(1.0)
            net.bias.fill_(1.0)
        adam = torch.optim.Adam(net.parameters(), lr=0.1)
        schedule = None
        if anneal:
            schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / 10)
        x = torch.arange(6.0).view(3, 2)
        return training.Fit(net, lambda: net(x).square().mean()[None], adam, schedule)

    path = tmp_path / "fit.pt"
    straight, first, second = make(), make(), make()
    training.bring(straight, 9)
    training.bring(first, 4, checkpoint=path)
    training.bring(second, 4, checkpoint=path)
    assert second.step == 4
    training.bring(second, 9)
    pairs = zip(straight.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_file_is_whole_or_the_old_one(tmp_path):
    path = tmp_path / "deep" / "text.txt"
    files.write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomic(path, "new \udc80")
    with pytest.raises(KeyboardInterrupt), files.whole(path) as fresh:
        fresh.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["text.txt"]
