"""The benchmark measures what it says; the peers themselves are not needed here."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretended import pretended

ROOT = Path(__file__).resolve().parents[2]


def script(name: str):
    """A module from bench/, which is no package; the module search path is put back."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / f"bench/{name}.py")
    before = list(sys.path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def bench():
    yield from script("samplers")


@pytest.fixture(scope="module")
def training():
    yield from script("training")


@pytest.fixture(scope="module")
def refining():
    yield from script("refining")


@pytest.fixture(scope="module")
def gpu():
    yield from script("gpu")


@pytest.fixture(scope="module")
def turning():
    yield from script("nuts")


def test_every_cell_is_there(bench):
    """Four algorithms on two targets with 1, 100 and 10,000 chains, three on the network."""
    names = [work.name for work in bench.cells()]
    assert len(names) == len(set(names)) == 4 * 2 * 3 + 3
    assert {"ula/mixture/1", "hmc/gaussian/10000", "mala/mlp/1000"} <= set(names)


def test_all_libraries_sample_the_same_target(bench):
    """Our energies with and without an analytic gradient: the same values and gradients."""
    from ebmref.energies import value_and_gradient

    for name in ("mixture", "gaussian"):
        target = bench.peers.targets()[name]
        x = torch.from_numpy(bench.peers.start(target, 50))
        one, two = (
            value_and_gradient(bench.our_energy(target, analytic), x) for analytic in (True, False)
        )
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_ratios_are_of_the_same_round(bench):
    """Rates of a machine that slows down: the ratio is 2 in every round."""
    made = {"ebmref": {"rates": [8.0, 4.0, 2.0]}, "blackjax": {"rates": [4.0, 2.0, 1.0]}}
    assert bench.ratios({"libraries": made}, "ebmref", "blackjax") == (2, 2, 2)
    made["torchebm"] = {"missing": "has no MALA"}
    assert bench.ratios({"libraries": made}, "ebmref", "torchebm") is None


def test_a_ratio_below_its_floor_is_marked(bench):
    assert "✗" in bench._ratio((1.0, 1.4, 2.0), 1.5)
    assert "✗" not in bench._ratio((1.0, 1.5, 2.0), 1.5)
    assert "✗" not in bench._ratio((0.1, 0.2, 0.3))


def test_a_cell_runs_and_is_written_down(tmp_path):
    """One cell, one library in its process: rates of each round, and a table."""
    command = [sys.executable, "bench/samplers.py", "--only", "random_walk/mixture/100"]
    options = ["--library", "ebmref, eager", "--rounds", "2", "--out", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads((tmp_path / "samplers.json").read_text())["cells"]
    rates = cell["libraries"]["ebmref, eager"]["rates"]
    assert len(rates) == 2 and min(rates) > 1000
    assert "random_walk/mixture/100" in (tmp_path / "samplers.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--only", "nuts/*"], "no cell is called"), (["--library", "stan"], "expected one of")],
)
def test_unknown_names_are_refused(options, message):
    command = [sys.executable, "bench/samplers.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and message in done.stderr


def test_the_plain_loop_trains_our_networks(training):
    """Same outputs from the same weights, of each model, and a step moves them."""
    for work in training.WORKS[1], training.WORKS[3]:
        game = training.make_game(work)
        last = torch.nn.Sigmoid() if len(work.event) == 3 else None
        z = torch.randn(work.k, 5, work.latent, generator=torch.Generator().manual_seed(0))
        x = game.generator(z)
        logits = game.discriminator(x)
        for i in range(work.k):
            g_net = training.sequential(game.generator.layers, i, last)
            d_net = training.sequential(game.discriminator.layers, i, None)
            assert torch.allclose(g_net(z[i]), x[i].flatten(1), atol=1e-5)
            assert torch.allclose(d_net(x[i].flatten(1))[:, 0], logits[i], atol=1e-5)


def test_the_training_table(training):
    """Each row has both loops' times, their ratio and the share of the products."""
    work = training.WORKS[2]._replace(n_steps=2, n_data=200)
    times = training.measure(work, rounds=2)
    assert set(times) == {"plain", "ours", "half"} and all(len(got) == 2 for got in times.values())
    share = training.product_share(work)
    assert 0 < share < 1
    times = {"plain": [0.03, 0.04], "ours": [0.01, 0.02], "half": [0.01, 0.01]}
    row = training.table([(work, times, 0.5)]).splitlines()[-1]
    assert "2.00 / **2.50** / 3.00" in row and "50 %" in row and "35.00 | 15.00" in row


def test_refinement_is_timed_at_the_cost_it_tells(refining):
    rows = refining.measure(2, n=100)
    assert set(rows) == set(refining.ddls.METHODS) - {"prior"}
    assert all(len(times) == 2 and min(times) > 0 for times, _ in rows.values())
    assert all(0 < cost <= refining.BUDGET for _, cost in rows.values())
    long = refining.long_runs(1, chains=20, steps=5)
    assert set(long) == set(refining.WIDTHS)
    made = refining.table({"mala": ([2.0, 1.0, 4.0], 200.0)}, {64: [9.0, 8.0]})
    # By hand: 2 s for 200 passes of 5 models with 2,500 samples.
    assert "| mala | 200 | 1.0 / **2.0** / 4.0 | 0.80 |" in made
    assert "| 64 | 8.0 / **8.5** / 9.0 |" in made


def test_without_a_gpu_nothing_is_measured(tmp_path):
    command = [sys.executable, "bench/gpu.py", "--out", str(tmp_path / "out")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr.strip() == "no GPU here: nothing was measured" and not done.stdout


def test_rates_of_a_device(gpu, monkeypatch):
    """On the CPU, one sampler with few chains; what comes too late is told, as what fails is."""
    monkeypatch.setattr(gpu, "LEAST", 0.01)
    monkeypatch.setattr(gpu, "ALGORITHMS", ("ula",))
    monkeypatch.setattr(gpu, "TARGETS", ("mixture",))
    found = gpu.rates("cpu", time.monotonic() + 600, chains=(20,))
    assert [key[2:] for key in found] == [(20, False), (20, True)]
    assert all(float(one.replace(",", "")) > 100 for one in found.values())
    assert gpu.rates("cpu", time.monotonic() - 1, chains=(20,)) == {}
    row = gpu.table(found, chains=(20, 7))[-1]
    assert row.startswith("| mixture | ula | no time / no time | ") and row.count("|") == 5
    monkeypatch.setattr(gpu, "rate", lambda *_: torch.empty(2**60))
    assert gpu.cell("ula", "mixture", 1, "cpu", False).startswith("RuntimeError: ")


def test_targets_are_on_the_device(gpu):
    for target in gpu.peers.targets().values():
        for analytic in (True, False)[target.name in gpu.peers.WIDTHS :]:
            with pretended():
                energy = gpu.bench.our_energy(target, analytic, "cuda")
                assert energy(torch.ones(5, target.dim, device="cuda")).device.type == "cuda"


def test_commands_are_ended_in_time(gpu, monkeypatch):
    say = [sys.executable, "-c", "import os; print(1); print(os.environ['WORD'])"]
    assert gpu.run(say, 60, WORD="= so =") == (0, "so")
    began = time.monotonic()
    wait = [sys.executable, "-c", "import time; print('wait', flush=True); time.sleep(100)"]
    assert gpu.run(wait, 2)[0] is None and time.monotonic() - began < 60
    ended = iter([(0, ""), (None, ""), (1, "gan-pictures: mnist is missing")])
    monkeypatch.setattr(gpu, "run", lambda *_: next(ended))
    lines = gpu.chapters("cpu", time.monotonic() + 60)[2:]
    assert [line.split(" | ")[2] for line in lines] == [
        "whole |", "did not fit: goes on from its checkpoint |", "gan-pictures: mnist is missing |",
    ]  # fmt: skip
    assert all("no time" in line for line in gpu.chapters("cpu", time.monotonic() - 1)[2:])


def test_the_report_has_its_parts(gpu):
    made = gpu.report({"Tests": ["3 passed"], "Samplers": ["| a |", "| b |"]}, "A GPU.")
    assert made == "# On a GPU\n\nA GPU.\n\n## Tests\n\n3 passed\n\n## Samplers\n\n| a |\n| b |\n"


def test_nuts_has_a_cell_of_every_target(turning):
    """Ours, a few steps: all draws come back, and a table tells what is missing and what is not."""
    for work in turning.WORKS:
        cell = turning.build("ebmref", work._replace(n_steps=2, warmup=2))
        draws = cell.advance()
        assert draws.shape[:2] == (2, turning.CHAINS) and "leapfrogs" in cell.note
    made = {"ess_per_step": [0.5, 0.25], "rates": [10.0, 30.0, 20.0], "warmup_seconds": 3.0}
    entries = {"ebmref": made | {"note": "step 0.1"}, "numpyro": {"missing": "is not here"}}
    told = turning.table(
        {
            "machine": "",
            "targets": [{"target": "funnel", "acceptance": 0.9, "libraries": entries}],
        }
    )
    assert "| 5 / **10** / 15 | 2 / **5** / 8 | 500, 250 | 3 | step 0.1 |" in told
    assert "is not here" in told
    assert len({line.count("|") for line in told.splitlines() if line.startswith("|")}) == 1


def test_the_funnel_is_one_in_jax_too(turning):
    jax = pytest.importorskip("jax")
    target = turning.target_of("funnel")
    x = turning.start(target)
    theirs = torch.from_numpy(-jax.device_get(turning.log_density(target)(x)).copy())
    ours = turning.our_energy(target)(torch.from_numpy(x))
    torch.testing.assert_close(ours - ours[0], theirs - theirs[0], rtol=1e-4, atol=1e-3)
