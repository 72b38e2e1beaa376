"""Figures repeat byte for byte and can be read on black and on white."""

import io

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from ebmbook import plots
from ebmbook.press import pictures


def contrast(colour: str, ground: str) -> float:
    """WCAG contrast ratio of two colours."""

    def luminance(name):
        channels = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)
        ]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))

    high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#14181e"])
@pytest.mark.parametrize("role", ["DATA", "MODEL", "ENERGY", "SAMPLER", "BASELINE", "INK"])
def test_colours_stand_out_on_both_themes(role, ground):
    """At least 2:1 on the page's white and on the dark theme's ground; text has more."""
    need = 3.9 if role == "INK" else 2.0
    assert contrast(getattr(plots, role), ground) >= need


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_same_figure_same_bytes(kind):
    """A record made twice is the same record."""

    def draw():
        plots.use_style()
        fig, ax = plt.subplots()
        ax.plot([0, 1, 2], label="$x^2$")
        ax.legend()
        data = plots.figure_bytes(fig, kind)
        plt.close(fig)
        return data

    assert draw() == draw()


def test_an_animation_moves_and_ends_on_its_last_frame(monkeypatch):
    """Three frames, the last shown first to viewers without animation, and longest to others."""
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    fig, ax = plt.subplots(figsize=(2, 1))
    plots.animate(fig, lambda k: ax.set_title(f"frame {k}"), 3, seconds=4.0)
    film = Image.open(io.BytesIO(shown[0].data))
    assert film.n_frames == 4 and not plt.fignum_exists(fig.number)
    pictures, pauses = [], []
    for k in range(4):
        film.seek(k)
        pictures.append(film.convert("RGBA").tobytes())
        pauses.append(film.info.get("duration", 0))
    assert pictures[0] == pictures[3] and len(set(pictures)) == 3
    assert pauses[1:] == [1000, 1000, 1000]


@pytest.mark.parametrize("kind", ["still", "film"])
def test_pictures_for_readers_are_sharp_and_as_large(monkeypatch, kind):
    """Twice the pixels of a page a side, a film's one and a half; they name their density."""
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    sizes = {}
    for sharp in (False, True):
        plots.use_style(sharp=sharp)
        fig, ax = plt.subplots(figsize=(3, 2))
        if kind == "still":
            plots.show(fig, "png")
        else:
            plots.animate(fig, lambda k, ax=ax: ax.set_title(str(k)), 2)
        data = shown[-1].data
        sizes[sharp] = (Image.open(io.BytesIO(data)).size, pictures.size(data))
    plots.use_style()
    usual, film = (330, 220), (270, 180)
    assert sizes[False] == ((usual, usual) if kind == "still" else (film, film))
    pixels = (576, 384) if kind == "still" else (432, 288)
    assert sizes[True] == (pixels, (288, 192))


@pytest.mark.parametrize(("n_frames", "seconds"), [(1, 4.0), (3, 0.0)])
def test_no_film_of_nothing(n_frames, seconds):
    with pytest.raises(ValueError, match="n_frames, seconds"):
        plots.animate(plt.figure(), lambda k: None, n_frames, seconds)
    plt.close("all")


def test_unknown_kind_is_refused():
    fig = plt.figure()
    with pytest.raises(ValueError, match="kind must be"):
        plots.figure_bytes(fig, "pdf")
    plt.close(fig)


def test_image_grid_shows_each_image_once():
    fig = plots.image_grid([[[0.0, 1.0]]] * 5, n_columns=3, titles=list("abcde"))
    assert [len(ax.images) for ax in fig.axes] == [1, 1, 1, 1, 1, 0]
    plt.close(fig)
