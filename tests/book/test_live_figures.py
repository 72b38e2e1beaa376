"""Live figures: their numbers are the package's and their page's; a page from the disk can load
them."""

import math
import re

import matplotlib as mpl
import pytest
import torch
from scripts import LIVE, evaluate

from ebmbook import plots
from ebmbook.lab import dirac, racing
from ebmbook.press import notebooks
from ebmref import energies, inference, samplers
from ebmref.free_energy import free_energy, softmin

FILES = sorted(path for path in LIVE.rglob("*") if path.is_file())
FIGURES = [path.stem for path in sorted(LIVE.glob("*.js"))]
EXACT = {"rtol": 0, "atol": 1e-9}


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def uniform(*shape, low=-2.0, high=2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(201)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_small_and_load_from_the_disk(path):
    """Modules and `fetch` fail there; nothing comes from the network."""
    text = path.read_text(encoding="utf-8")
    assert path.suffix in (".js", ".css") and path.stat().st_size < 15_000
    unwanted = r"\bimport\b|\bexport\b|\bfetch\b|XMLHttpRequest|https?:|url\(|innerHTML|\beval\b"
    assert re.search(unwanted, text) is None
    if path.suffix == ".js":
        assert "'use strict';" in text and max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", FIGURES)
def test_each_script_makes_the_figure_of_its_name_live(name):
    """Which is on one page."""
    assert f"liveFigure('fig-{name}'," in (LIVE / f"{name}.js").read_text(encoding="utf-8")
    sources = [notebooks.source_path(chapter).read_text() for chapter in notebooks.chapters()]
    assert sum(f"    name: fig-{name}\n" in text for text in sources) == 1


def shown_before(chapter: str, figure: str) -> dict:
    """What the visible cell before a figure computes, with the imports of its page."""
    cells = notebooks.code_cells(notebooks.draft(chapter))
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    begin = next(cell.source for cell in cells if "\nrun = ledger.start(" in cell.source)
    space = {"exact": {"dtype": torch.float64}}
    exec(begin.split("\nrun = ")[0], space)
    exec(cells[names.index(figure) - 1].source, space)
    return space


class TestTemperature:
    def test_it_is_the_energy_of_the_short_axis(self):
        y = uniform(20, low=-3.0, high=3.0)
        got = tensor(evaluate("temperature", f"{y.tolist()}.map(laws.energies)"))
        z = torch.arange(48, dtype=torch.float64) * (2 * math.pi / 48)
        on_axis = torch.stack([torch.zeros_like(y), y], -1)
        tips = torch.stack([2.0 * z.cos(), 1.5 * z.sin()], -1)
        torch.testing.assert_close(got, (on_axis[:, None] - tips).square().sum(-1), **EXACT)

    @pytest.mark.parametrize("beta", [0.01, 0.3, 1.0, 3.2, 100.0, 1e4])
    def test_free_energy_and_weights_are_the_package_s(self, beta):
        table = uniform(30, 48, low=-20.0, high=20.0)
        both = evaluate(
            "temperature",
            f"{table.tolist()}.map((e) => [laws.freeEnergy(e, {beta}), laws.softmin(e, {beta})])",
        )
        values, weights = zip(*both, strict=True)
        torch.testing.assert_close(tensor(values), free_energy(table, beta), **EXACT)
        torch.testing.assert_close(tensor(weights), softmin(table, beta), **EXACT)

    @pytest.mark.parametrize("beta, y", [(0.1, 0.2), (1.0, -1.3), (10.0, 0.0), (100.0, 2.9)])
    def test_what_is_read_out(self, beta, y):
        got = evaluate("temperature", f"laws.solve({{ beta: {beta}, y: {y} }})")
        energy = tensor(evaluate("temperature", f"laws.energies({y})"))
        weights = softmin(energy, beta)
        assert got["value"] == pytest.approx(float(free_energy(energy, beta)), abs=1e-9)
        assert got["least"] == pytest.approx((abs(y) - 1.5) ** 2, abs=1e-9)
        assert got["mean"] == pytest.approx(y**2 + 3.125, abs=1e-9)
        assert got["least"] <= got["value"] <= got["mean"]
        sides = torch.sin(2 * math.pi * torch.arange(48) / 48).round(decimals=6)
        upper = weights[sides > 0].sum() + weights[sides == 0].sum() / 2
        assert got["upper"] == pytest.approx(float(upper), abs=1e-9)
        assert got["heard"] == pytest.approx(float(1 / weights.square().sum()), abs=1e-9)

    def test_it_starts_from_the_picture_of_the_page(self):
        page = shown_before("free-energy", "fig-temperature")
        answers = evaluate("temperature", "laws.ANSWERS")
        torch.testing.assert_close(tensor(answers), page["answers"], **EXACT)
        for beta, curve in page["curves"].items():
            got = evaluate("temperature", f"laws.solve({{ beta: {beta}, y: 0.2 }})")
            torch.testing.assert_close(tensor(got["curve"]), curve, **EXACT)
            torch.testing.assert_close(tensor(got["weights"]), page["heard"][beta], **EXACT)


def descents(starts: torch.Tensor, step: float, halve: str) -> list[dict]:
    """Each with its path, which the script fills in."""
    return evaluate(
        "descent-basins",
        f"{starts.tolist()}.map((at) => {{ const path = []; "
        f"return {{ path, ...laws.descend(at, {step}, {halve}, path) }}; }})",
    )


class TestBasins:
    def test_it_is_the_energy_of_the_page(self):
        y = uniform(30, 2)
        got = tensor(evaluate("descent-basins", f"{y.tolist()}.map(laws.energy)"))
        torch.testing.assert_close(got, energies.double_well(y), **EXACT)
        wells = evaluate("descent-basins", "[laws.DEEP, laws.RIDGE, laws.SHALLOW]")
        assert wells == pytest.approx(energies.double_well_points(0.5), abs=1e-9)

    @pytest.mark.parametrize("step", [0.002, 0.02, 0.1, 0.5])
    def test_a_halving_descent_is_the_package_s(self, step):
        """Step by step, and as many steps."""
        starts = uniform(8, 2)
        for start, got in zip(starts, descents(starts, step, "true"), strict=True):
            want = inference.gradient_argmin(
                energies.double_well, start[None], step, 150, tolerance=1e-3, keep_path=True
            )
            torch.testing.assert_close(tensor(got["path"]), want.path[:, 0], **EXACT)
            assert got["steps"] == len(want.path) - 1
            assert got["value"] == pytest.approx(float(want.energy), abs=1e-9)
            assert got["slope"] == pytest.approx(float(want.slope), abs=1e-9)
            still = (want.path[1:] == want.path[:-1]).all(-1).sum()
            assert got["refused"] == still

    @pytest.mark.parametrize("step", [0.02, 0.1, 0.15])
    def test_a_plain_descent_takes_every_step(self, step):
        """Here as far as rounding is not blown up by a leap."""
        starts = uniform(8, 2)
        for start, got in zip(starts, descents(starts, step, "false"), strict=True):
            y, path = start.clone().requires_grad_(), [start]
            for _ in range(min(got["steps"], 12)):
                (slope,) = torch.autograd.grad(energies.double_well(y[None]).sum(), y)
                y = (y - step * slope).detach().requires_grad_()
                path.append(y.detach())
            want = torch.stack(path)
            torch.testing.assert_close(tensor(got["path"][: len(want)]), want, **EXACT)
            assert got["refused"] == 0

    def test_the_part_is_the_basin_of_the_end_or_none(self):
        """With halved steps the one that the start is in; with too long ones there may be none."""
        _, ridge, _ = energies.double_well_points(0.5)
        starts = uniform(200, 2)
        beyond = (starts > ridge).long()
        for step in (0.002, 0.02, 0.5):
            parts = [got["part"] for got in descents(starts, step, "true")]
            assert parts == (beyond[:, 0] + 2 * beyond[:, 1]).tolist()
        long = descents(starts, 0.5, "false")
        nowhere = evaluate("descent-basins", "laws.NOWHERE")
        # The curvature at the wells is 9.4 and 6.4: a step of 0.5 leaves both.
        assert sum(got["part"] == nowhere for got in long) > 190

    def test_the_map_is_of_descents(self):
        parts = evaluate("descent-basins", "laws.solve({step: 0.1, halve: false, y1: 2, y2: 0.5})")
        side = torch.linspace(-2, 2, 81, dtype=torch.float64)
        corner = torch.stack([side, torch.full_like(side, 0.5)], -1)
        row = [got["part"] for got in descents(corner, 0.1, "false")]
        assert parts["parts"][50 * 81 : 51 * 81] == row and parts["part"] == row[-1]
        assert len(set(row)) > 1

    def test_it_shows_the_descents_of_the_page(self):
        """Which go on where these have arrived, and are in single precision: at a minimum energies
        are soon equal there, and a step is refused."""
        page = shown_before("inference", "fig-descent-basins")
        paths, ends = page["paths"], page["ends"]
        for k, got in enumerate(descents(paths[0].double(), 0.02, "true")):
            path = tensor(got["path"])
            want = paths[: len(path), k].double()
            torch.testing.assert_close(path, want, rtol=0, atol=5e-4)
            assert got["part"] == ends[k] and len(path) <= len(paths)


LAWS = {
    "two moons": energies.two_moons(torch.zeros(2, dtype=torch.float64)),
    "ridge": racing.normal(tensor([3.0, 0.3])).energy,
    "round": racing.normal(tensor([1.0, 1.0])).energy,
}


class TestRace:
    """The kernels, given their noise, are the package's; what a chain is worth is the page's."""

    @pytest.mark.parametrize("shape", LAWS)
    def test_energies_and_slopes(self, shape):
        x = uniform(30, 2, low=-4.0, high=4.0)
        got = evaluate("race", f"{x.tolist()}.map((x) => laws.SHAPES['{shape}'].at(x))")
        value, slope = energies.value_and_gradient(LAWS[shape], x)
        torch.testing.assert_close(tensor([one["value"] for one in got]), value, **EXACT)
        torch.testing.assert_close(tensor([one["slope"] for one in got]), slope, **EXACT)

    @pytest.mark.parametrize("shape", LAWS)
    @pytest.mark.parametrize("name", ["random walk", "MALA", "HMC"])
    def test_a_chain_is_the_package_s(self, shape, name):
        law, s, n = LAWS[shape], 0.5, 40
        kernel = {
            "random walk": samplers.random_walk(law, s),
            "MALA": samplers.mala(law, s**2),
            "HMC": samplers.hmc(law, s, 4),
        }[name]
        xi, u = kernel.draw(n, torch.zeros(1, 2, dtype=torch.float64), torch.Generator())
        x0 = tensor([[0.7, 0.2]])
        state, step = kernel.init(x0, torch.Generator()), tensor(kernel.step_size)
        path, taken = [x0[0]], 0.0
        for one in zip(xi, u, strict=True):
            state, accepted = kernel.step(state, one, step)
            path.append(state.x[0])
            taken += float(accepted)
        noise = [[a[0], float(b)] for a, b in zip(xi.tolist(), u[:, 0], strict=True)]
        got = evaluate(
            "race",
            f"laws.run('{name}', '{shape}', [0.7, 0.2], {s}, 4, {n}, (k) => {noise}[k])",
        )
        torch.testing.assert_close(tensor(got["path"]), torch.stack(path), **EXACT)
        assert got["acceptance"] == pytest.approx(taken / n, abs=1e-9)

    @pytest.mark.parametrize("shape", LAWS)
    def test_a_chain_s_worth_is_the_page_s(self, shape):
        means = uniform(12, 4)
        mean, variance = (
            tensor(evaluate("race", f"laws.SHAPES['{shape}'].{name}"))
            for name in ("mean", "variance")
        )
        want = racing.worth(means, racing.Truth(mean, variance)).draws.min()
        got = evaluate("race", f"laws.worth('{shape}', {means.tolist()})")
        assert got == pytest.approx(float(want), rel=1e-9)
        x = LAWS[shape].sample(200_000, torch.Generator().manual_seed(3))
        f = torch.cat([x, x.square()], 1)
        assert ((f.mean(0) - mean).abs() < 5 * (variance / len(x)).sqrt()).all()
        torch.testing.assert_close(f.var(0), variance, rtol=0.03, atol=0)
        path = x[:9]
        told = tensor(evaluate("race", f"laws.chainMean({path.tolist()})"))
        torch.testing.assert_close(told, f[1:9].mean(0), **EXACT)

    def test_its_own_noise_is_even_and_normal(self):
        u = tensor(evaluate("race", "(r => Array.from({length: 4000}, r.uniform))(laws.source(1))"))
        z = tensor(evaluate("race", "(r => Array.from({length: 4000}, r.normal))(laws.source(1))"))
        assert u.min() >= 0 and u.max() < 1
        assert float(u.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(z.mean()) == pytest.approx(0, abs=0.07)
        assert float(z.square().mean()) == pytest.approx(1, abs=0.1)

    def test_it_begins_with_the_steps_of_the_page(self):
        steps = evaluate("race", "laws.STEPS")
        assert steps == pytest.approx(racing.SCALES)
        values = "{shape: 'ridge', step: laws.STEPS[16], length: 4, x1: 0, x2: 0}"
        found = {one["name"]: one for one in evaluate("race", f"laws.solve({values})")}
        assert [len(one["path"]) for one in found.values()] == [421, 421, 106]
        assert found["random walk"]["draws"] > 2 * found["MALA"]["draws"]  # leaps along the ridge


def dirac_game(loss, penalty):
    return dirac.Game(loss, penalty=float(penalty))


DIRAC = [("saturating", 0.0), ("non-saturating", 0.0), ("non-saturating", 0.5), ("Wasserstein", 1)]


class TestDirac:
    @pytest.mark.parametrize("loss, penalty", DIRAC)
    def test_a_step_is_the_package_s(self, loss, penalty):
        at = uniform(20, 2)
        for turns, rule in (("false", "at once"), ("true", "in turn")):
            got = evaluate(
                "gan-dirac",
                f"{at.tolist()}.map((p) => laws.advance(p, 0.3, '{loss}', {penalty}, {turns}))",
            )
            want = dirac.advance(dirac_game(loss, penalty), at, 0.3, rule)
            torch.testing.assert_close(tensor(got), want, **EXACT)

    @pytest.mark.parametrize("loss, penalty", DIRAC)
    @pytest.mark.parametrize("step", [0.02, 0.5, 2.0, 3.0])
    def test_the_size_of_the_eigenvalue_is_the_package_s(self, loss, penalty, step):
        for turns, rule in (("false", "at once"), ("true", "in turn")):
            got = evaluate(
                "gan-dirac", f"laws.spectralRadius({step}, '{loss}', {penalty}, {turns})"
            )
            want = dirac.spectral_radius(dirac_game(loss, penalty), step, rule)
            # Where two eigenvalues meet, the root of a rounding error is between them.
            assert got == pytest.approx(want, abs=1e-7)

    def test_what_is_read_out(self):
        asked = "step: 0.2, loss: 'non-saturating', penalty: 0, theta: 1, psi: 0"
        for turns, law in (("false", (2 * 0.2) ** 0.5), ("true", (8 / 1000) ** 0.5)):
            got = evaluate("gan-dirac", f"laws.solve({{ {asked}, turns: {turns} }})")
            assert got["steps"] == 5000 and len(got["radii"]) == 5001 and len(got["path"]) == 301
            assert got["end"] == got["radii"][-1] == pytest.approx(law, rel=0.05)
        gone = evaluate("gan-dirac", "laws.solve({ step: 2, loss: 'Wasserstein', penalty: 0, "
                        "theta: 1, psi: 0, turns: false })")  # fmt: skip
        assert gone["end"] >= 100 > gone["radii"][-2] and gone["steps"] == len(gone["radii"]) - 1

    def test_it_starts_from_the_picture_of_the_page(self):
        page = shown_before("gan-convergence", "fig-gan-dirac")
        asked = "step: 0.2, loss: 'non-saturating', penalty: 0, theta: 1, psi: 0"
        for turns, rule in (("false", "at once"), ("true", "in turn")):
            got = evaluate("gan-dirac", f"laws.solve({{ {asked}, turns: {turns} }})")
            path = page["paths"][rule]
            torch.testing.assert_close(tensor(got["path"]), path[:301], **EXACT)
            torch.testing.assert_close(tensor(got["radii"]), path.norm(dim=1), **EXACT)


class TestPen:
    """What every live figure is painted with."""

    def test_colours_are_the_book_s(self):
        got = evaluate("kit/pen", "laws.COLOURS")
        assert got == {name: getattr(plots, name.upper()) for name in got}
        shares = torch.linspace(0, 1, 101).tolist()
        drawn = tensor(evaluate("kit/pen", f"{shares}.map(laws.viridis)"))
        want = 255 * tensor(mpl.colormaps[plots.ENERGY_MAP](shares))[:, :3]
        assert (drawn - want).abs().max() < 6
        assert evaluate("kit/pen", "laws.rgb('#0072b2')") == [0, 0x72, 0xB2]

    @pytest.mark.parametrize(
        "value, text",
        [
            ("0", "0"),
            ("-1.0349", "−1.03"),
            ("0.25", "0.250"),
            ("12", "12.0"),
            ("1234.5", "1230"),
            ("-2.5e-7", "−2.50 × 10⁻⁷"),
            ("3e12", "3.00 × 10¹²"),
            ("-Infinity", "−∞"),
            ("NaN", "unknown"),
        ],
    )
    def test_numbers_read_as_on_the_page(self, value, text):
        assert evaluate("kit/pen", f"laws.number({value})") == text

    def test_ticks_are_round_and_inside(self):
        assert evaluate("kit/pen", "laws.ticks(-2, 2, 4)") == [-2, -1, 0, 1, 2]
        assert evaluate("kit/pen", "laws.ticks(0, 0.105, 5)") == [0, 0.05, 0.1]
        assert evaluate("kit/pen", "laws.ticks(-0.3, 0.3, 6)") == pytest.approx(
            [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]
        )

    def test_panels_stand_in_a_column_where_it_is_narrow(self):
        wide = evaluate("kit/pen", "laws.layout(700, 2)")
        narrow = evaluate("kit/pen", "laws.layout(320, 2)")
        assert [box["top"] for box in wide["boxes"]] == [0, 0]
        assert [box["left"] for box in narrow["boxes"]] == [0, 0]
        assert narrow["boxes"][1]["top"] == narrow["boxes"][0]["height"] == narrow["height"] / 2

    def test_contours_lie_on_their_level(self):
        """Of x + 2 y, which is linear between the points of the grid, at 5.5."""
        values = [x + 2 * y for y in range(4) for x in range(5)]
        found = tensor(evaluate("kit/pen", f"laws.contour({values}, 5, 4, 5.5)")).view(-1, 2)
        torch.testing.assert_close(found @ tensor([1.0, 2.0]), tensor([5.5] * len(found)), **EXACT)
        assert found.view(-1, 4)[:, [0, 2]].diff(dim=1).abs().sum() == pytest.approx(4 - 0)
