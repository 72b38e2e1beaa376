"""One look for every figure: readable on white and on black, one colour a role.

Backgrounds are transparent and ink is a mid grey, so a page may be light or dark. The
role colours are of the Okabe-Ito palette, told apart by colour-blind readers as well.
"""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image as Picture

DATA = "#0072b2"  # what was observed
MODEL = "#d55e00"  # what a model answers or draws
ENERGY = "#009e73"  # the energy itself
SAMPLER = "#cc79a7"  # paths and draws of an inference or a sampler
BASELINE = "#e69f00"  # what the model is compared with
INK = "#7f7f7f"  # axes, labels, guides

# Low energy is the dark end: wells look deep.
ENERGY_MAP = "viridis"

STYLE = {
    "figure.figsize": (7.0, 3.2),
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=[DATA, MODEL, ENERGY, SAMPLER, BASELINE, "#56b4e9"]),
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "image.cmap": ENERGY_MAP,
    "savefig.facecolor": "none",
    # The same figure gives the same bytes.
    "svg.hashsalt": "ebmref",
}


# Pixels to an inch of pictures for dense screens: two for each that a page has there. Films, which
# weigh a frame at a time, have one and a half.
SHARP, SHARP_FILM = 192, 144


def use_style(sharp: bool = False) -> None:
    """Make the book's style the default of this process.

    Args:
        sharp: draw pictures and films for dense screens, three times the pixels or more.
    """
    mpl.rcParams.update(STYLE)
    mpl.rcParams["savefig.dpi"] = SHARP if sharp else "figure"


def _is_sharp() -> bool:
    return mpl.rcParams["savefig.dpi"] == SHARP


def _named(density: int) -> dict:
    """What tells a page how large a picture is; one that does not say is shown pixel by pixel."""
    return {"dpi": (density, density)} if _is_sharp() else {}


def figure_bytes(fig: Figure, kind: str = "svg") -> bytes:
    """The figure as SVG or PNG bytes, the same for the same figure.

    Raises:
        ValueError: `kind` is neither "svg" nor "png".
    """
    if kind not in ("svg", "png"):
        raise ValueError(f"kind must be 'svg' (lines) or 'png' (images); got {kind!r}")
    stamp = {"Date": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    density = SHARP if _is_sharp() else 110
    fig.savefig(buffer, format=kind, metadata=stamp, dpi=density)
    if kind == "svg":
        return buffer.getvalue()
    return _png(_quantized(_picture(buffer), 256), **_named(density))


def _picture(buffer: io.BytesIO):
    return Picture.open(buffer).convert("RGBA")


def _quantized(picture, colours: int):
    """Fewer colours, transparency among them: a third of the bytes, no visible loss."""
    return picture.quantize(colours, method=2, dither=0)


def _png(picture, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True, **options)
    return buffer.getvalue()


def show(fig: Figure, kind: str = "svg") -> None:
    """Display a figure once, as SVG (lines) or PNG (images), and close it.

    Alt text and caption stand in the chapter's source, in the cell's `mystnb` metadata.
    """
    from IPython.display import SVG, Image, display

    data = figure_bytes(fig, kind)
    plt.close(fig)
    display(SVG(data) if kind == "svg" else Image(data))


def animate(fig: Figure, update, n_frames: int, seconds: float = 8.0) -> None:
    """Display a figure that moves, as an animated PNG: no server, no script, alt text as ever.

    Viewers without animation show the last frame, which must therefore stand alone.

    Args:
        update: `update(k)` redraws the figure as frame k, for k = 0 .. n_frames - 1.
        n_frames: >= 2; each weighs some kilobytes.
        seconds: how long one round lasts; the last frame rests for a quarter of it.

    Raises:
        ValueError: fewer than two frames, or no time to show them.
    """
    if n_frames < 2 or not seconds > 0:
        raise ValueError(f"n_frames, seconds: expected >= 2 and > 0; got {n_frames}, {seconds}")
    from IPython.display import Image, display

    density = SHARP_FILM if _is_sharp() else 90
    frames = []
    for k in range(n_frames):
        update(k)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=density)
        frames.append(_picture(buffer))
    plt.close(fig)
    # One palette for all frames: what stands still is then the same, and costs nothing.
    width, height = frames[0].size
    film = Picture.new("RGBA", (width, n_frames * height))
    for k, frame in enumerate(frames):
        film.paste(frame, (0, k * height))
    film = _quantized(film, 64)
    frames = [film.crop((0, k * height, width, (k + 1) * height)) for k in range(n_frames)]
    pause = [750 * seconds / n_frames] * (n_frames - 1) + [250 * seconds]
    data = _png(
        frames[-1],
        save_all=True,
        default_image=True,
        append_images=frames,
        duration=pause,
        disposal=0,
        blend=0,
        **_named(density),
    )
    display(Image(data))


def image_grid(
    images, n_columns: int, titles=None, size: float = 1.0, vmin=0.0, vmax=1.0
) -> Figure:
    """A grid of grey images, dark ink on light paper.

    Args:
        images: `(n, height, width)`, values of `[vmin, vmax]`.
        n_columns: images a row.
        titles: one string an image, or None.
        size: inches a side of one image.
    """
    n_rows = -(-len(images) // n_columns)
    fig, axes = plt.subplots(
        n_rows, n_columns, figsize=(n_columns * size, n_rows * (size + 0.25)), squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        ax.imshow(image, cmap="gray_r", vmin=vmin, vmax=vmax, interpolation="nearest")
        if titles is not None:
            ax.set_title(titles[i], fontsize=8)
    return fig
