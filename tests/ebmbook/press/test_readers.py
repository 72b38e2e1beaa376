"""Light pages: pictures that hold their place, films that wait for a button, short ways."""

import base64
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydata_sphinx_theme
import pytest
from PIL import Image

from ebmbook.press import notebooks, pictures, readers, room

sys.path.append(str(notebooks.BOOK / "_ext"))
import light_pages

SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s">'


def colours(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 255, (6, 8, 4), dtype=np.uint8), "RGBA")


def png(picture: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png", **options)
    return buffer.getvalue()


def frames() -> list[Image.Image]:
    """Three, of which the second differs from the first in a corner."""
    first, last = colours(1), colours(2)
    second = first.copy()
    second.paste(last.crop((3, 2, 6, 5)), (3, 2))
    return [first, second, last]


def film(blend: int = 0, disposal: int = 0) -> bytes:
    """As the records have them: the last frame as a still before all of them."""
    shown = frames()
    return png(
        shown[-1], save_all=True, default_image=True, append_images=shown, blend=blend,
        disposal=disposal, duration=[100, 200, 1500],
    )  # fmt: skip


class TestPictures:
    """Sizes, and films in parts."""

    @pytest.mark.parametrize(
        "data, size",
        [
            (png(colours(0)), (8, 6)),
            (png(Image.new("L", (1536, 576)), dpi=(192, 192)), (768, 288)),
            (SVG % (b"576pt", b"230.4pt"), (768, 307)),
            (SVG % (b"5in", b"1in"), (480, 96)),
            (SVG % (b"300", b"20px"), (300, 20)),
        ],
    )
    def test_size(self, data, size):
        assert pictures.size(data) == size

    @pytest.mark.parametrize("data", [b"GIF89a", SVG % (b"100%", b"1em"), b"<svg>"])
    def test_what_has_no_size(self, data):
        with pytest.raises(ValueError, match="expected a PNG, or an SVG"):
            pictures.size(data)

    def test_a_still_is_the_film_s_last_frame_and_no_film(self):
        still = pictures.still(film())
        assert pictures.is_film(film()) and not pictures.is_film(still)
        assert not pictures.is_film(SVG % (b"1", b"1"))
        picture = Image.open(io.BytesIO(still))
        assert getattr(picture, "n_frames", 1) == 1
        assert picture.convert("RGBA").tobytes() == frames()[-1].tobytes()

    def test_frames_are_pictures_that_make_the_film(self):
        got = pictures.frames(film())
        sheet = Image.new("RGBA", (8, 6))
        assert [one.seconds for one in got] == pytest.approx([0.1, 0.2, 1.5])
        for one, want in zip(got, frames(), strict=True):
            part = Image.open(io.BytesIO(one.data)).convert("RGBA")
            sheet.paste(part, (one.left, one.top))
            assert sheet.tobytes() == want.tobytes()
            assert not one.over and not one.clears
        # Only what differs is drawn anew.
        assert (got[1].left, got[1].top) == (3, 2)

    def test_how_a_frame_is_laid_down_is_told(self):
        assert all(one.over for one in pictures.frames(film(blend=1))[1:])
        assert pictures.frames(film(disposal=1))[0].clears

    def test_a_film_that_begins_with_its_still(self):
        first, *rest = frames()
        got = pictures.frames(png(first, save_all=True, append_images=rest, duration=100))
        assert len(got) == 3
        assert Image.open(io.BytesIO(got[0].data)).convert("RGBA").tobytes() == first.tobytes()

    def test_the_records_films_are_whole(self):
        """Of one chapter: the last frame composed is the still."""
        record = notebooks.read(notebooks.record_path("free-energy"))
        found = [
            data
            for cell in notebooks.code_cells(record)
            for output in cell.outputs
            if (data := _bytes(output)) and pictures.is_film(data)
        ]
        assert found
        for data in found:
            still = Image.open(io.BytesIO(pictures.still(data))).convert("RGBA")
            sheet = Image.new("RGBA", still.size)
            for one in pictures.frames(data):
                part = Image.open(io.BytesIO(one.data)).convert("RGBA")
                sheet.paste(part, (one.left, one.top))
            assert sheet.tobytes() == still.tobytes()


def _bytes(output) -> bytes | None:
    text = output.get("data", {}).get("image/png")
    return base64.b64decode(text) if text else None


FILES = {"one.png": png(colours(0)), "two.svg": SVG % (b"72pt", b"36pt"), "three.png": film()}


def test_pictures_on_a_page_say_their_size_and_wait():
    body = '<p><img alt="a" src="../_images/one.png" style="width: 100%;" /></p>'
    body += '<img alt="b" src="../_images/two.svg" width="9" /><img alt="c" src="http://x/y.png">'
    body += '<img alt="d" src="../_images/three.png" />'
    got, films = light_pages.sized(body, lambda src: FILES.get(src.rpartition("/")[2]))
    first, second, third, last, _ = [*got.split("<img ")[1:], ""]
    assert 'width="8" height="6"' in first and "lazy" not in first and "100%" in first
    assert 'width="96" height="48"' in second and 'loading="lazy"' in second
    assert second.count("width=") == 1 and third == 'alt="c" src="http://x/y.png">'
    assert films and 'data-film="../_images/three.film.js"' in last and "<noscript>" in last
    assert light_pages.sized("<p>none</p>", FILES.get) == ("<p>none</p>", False)


@pytest.mark.parametrize(
    "formula, room",
    [
        (r"\[ r = \sqrt{2h}, \]", 4.0),
        (r"\[ \frac1Z \int e^{-E} \]", 5.3),
        (r"\[\begin{split} a &lt; b \\ c &amp;= \sum_i d_i \end{split}\]", 6.9),
    ],
)
def test_a_formula_has_its_room_before_it_is_drawn(formula, room):
    """Measured: 63 pixels of 16 for a plain row, 84 for one with a fraction, 89 for a matrix."""
    body = f'<div class="math notranslate nohighlight" id="eq">\n{formula}</div><div class="x">'
    got = light_pages.roomy(body)
    assert f'id="eq" style="min-height: {room}em">\n{formula}</div><div class="x">' in got


@pytest.mark.parametrize(
    "formula, drawn",
    [
        (r"e^{-\beta E}", 2.43),
        (r"\min_z E", 3.59),
        (r"F_\infty(y)", 3.13),
        (r"t(z) = (\cos z, \sin z)", 9.54),
        (r"-\log p(x) = E(x) + \log Z", 13.23),
        (r"\sqrt{2h}", 2.3),
        (r"Z = \int e^{-E(x)}\,dx", 7.88),
        (r"\frac{d}{dt}(\theta^2 + \psi^2) = 0", 8.03),
        (r"E(y, z) = (y - z)^2", 9.06),
        (r"\hat z = \pi / 2", 4.02),
        (r"z(t) \approx e^{-\gamma t / 2} \cos t\; z(0)", 11.27),
        (r"\arccos(6/7) / \pi = 0.1722", 12.1),
        (r"{unclosed", 4.9),
        ("", 0.0),
    ],
)
def test_a_formula_in_a_line_has_about_its_width(formula, drawn):
    """As MathJax drew them in a browser, in em of the text around."""
    assert room.width(formula) == pytest.approx(drawn, rel=0.1, abs=0.25)
    body = f'<p>a <span class="math notranslate nohighlight">\\({formula}\\)</span></p>'
    want = f'style="--room: {room.width(formula)}em">\\({formula}\\)</span></p>'
    assert light_pages.roomy(body).endswith(want)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ASK = """
<script>
addEventListener('load', () => {
  const [button, slider] = document.querySelectorAll('.film-controls > *');
  const told = [button.textContent, slider.disabled];
  button.click();
  const timer = setInterval(() => {
    if (!document.querySelector('canvas')) return;
    clearInterval(timer);
    told.push(button.textContent, slider.max, document.querySelector('img').hidden);
    button.click();
    slider.value = 2;
    slider.dispatchEvent(new Event('input'));
    told.push(button.textContent, slider.getAttribute('aria-valuetext'));
    document.title = told.join();
  }, 50);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_film_plays_when_asked_and_stops(tmp_path, is_there):
    """From the disk; without its frames it says so, and the still stays."""
    shutil.copy(notebooks.BOOK / "_static/film.js", tmp_path)
    (tmp_path / "a.png").write_bytes(film())
    light_pages.leave_films(tmp_path)
    if not is_there:
        (tmp_path / "a.film.js").unlink()
    page = tmp_path / "page.html"
    page.write_text(
        '<figure><img alt="a" src="a.png" width="8" height="6" data-film="a.film.js"></figure>'
        f'<script src="film.js"></script>{ASK}'
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={tmp_path}/user", "--virtual-time-budget=60000",
               page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if is_there:
        assert "<title>Play,true,Pause,3,true,Play,2 of 3</title>" in done.stdout
        assert '<canvas width="8" height="6" class="film" role="img" aria-label="a"' in done.stdout
    else:
        assert "The film could not be loaded." in done.stdout and "<canvas" not in done.stdout


def test_films_are_left_as_stills_with_their_frames_beside_them(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    for _ in range(2):  # a second build finds the stills, and keeps the films
        light_pages.leave_films(tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
        assert names - FILES.keys() == {"three.film.js", "three.film.png"}
        assert (tmp_path / "three.png").read_bytes() == pictures.still(film())
        assert (tmp_path / "three.film.png").read_bytes() == film()
    told = (tmp_path / "three.film.js").read_text()
    assert told.startswith('bookFilm("three",{"width":8,"height":6,"frames":[[0,0,0.1,false,false,')


def test_icons_that_no_page_shows_are_left_out():
    theme = Path(pydata_sphinx_theme.__file__).parent
    (path,) = theme.glob("theme/**/static/vendor/fontawesome/*/js/all.min.js")
    whole = path.read_text(encoding="utf-8")
    fewer = light_pages.fewer_icons(whole, {"bars", "search", "github"})
    assert len(fewer) < 0.1 * len(whole)
    for name in ("bars:[", '"magnifying-glass":[', "github:["):  # "search" is its other name
        assert name in fewer, name
    assert "moon:[" not in fewer and "moon:[" in whole
    if node := shutil.which("node"):
        done = subprocess.run([node, "--check", "-"], input=fewer, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr


PAGE = '<h1>x</h1><img src="a.png" width="8" height="6">{more}<a href="{to}">on</a>'


@pytest.fixture
def site(tmp_path):
    """An index that leads to a ledger, whose map leads to its rows."""
    book = tmp_path / "book"
    book.mkdir()
    (book / "a.png").write_bytes(FILES["one.png"])
    (book / "film.png").write_bytes(FILES["three.png"])
    (book / "index.html").write_text(PAGE.format(more="", to="ledger.html"))
    (book / "ledger.html").write_text(PAGE.format(more="", to="#eq-1"))
    return tmp_path


def write(site, name: str, more: str = "", to: str = "ledger.html") -> None:
    (site / "book" / f"{name}.html").write_text(PAGE.format(more=more, to=to))


class TestReaders:
    """What a site is held to when it is built."""

    def test_all_well(self, site):
        assert readers.faults(site, ["eq-1"]) == []

    def test_a_row_that_is_far(self, site):
        told = "no 2 clicks lead from book/index.html to its row"
        assert readers.faults(site, ["eq-1", "eq-2"]) == [f"eq-2: {told}"]
        write(site, "index", to="one.html")
        write(site, "one")
        assert readers.faults(site, ["eq-1"]) == [f"eq-1: {told}"]
        write(site, "one", to="ledger.html#eq-1")
        assert readers.faults(site, ["eq-1"]) == []

    @pytest.mark.parametrize(
        "more, told",
        [
            ('<img src="a.png" loading="lazy">', "says no width and height"),
            ('<img src="a.png" width="8" height="7" loading="lazy">', "another size"),
            ('<img src="a.png" width="8" height="6">', "before anybody looks"),
            ('<img src="film.png" width="8" height="6" loading="lazy">', "nobody can stop it"),
            (
                '<img src="a.png" width="8" height="6" loading="lazy" data-film="a.film.js">',
                "its film is not there",
            ),
        ],
    )
    def test_a_picture_that_moves_the_page_or_itself(self, site, more, told):
        write(site, "one", more)
        (line,) = readers.faults(site)
        assert line.startswith("book/one.html: ") and told in line

    def test_a_page_is_weighed_with_pictures_and_films(self, site, monkeypatch):
        (site / "book/a.film.js").write_text("x" * 1000)
        more = '<img src="a.png" width="8" height="6" loading="lazy" data-film="a.film.js">'
        write(site, "one", more)
        page = site / "book/one.html"
        total = page.stat().st_size + len(FILES["one.png"]) + 1000
        assert readers.weight(page) == total
        monkeypatch.setattr(readers, "MOST", total)
        assert readers.faults(site) == []
        monkeypatch.setattr(readers, "MOST", total - 1)
        (line,) = readers.faults(site)
        assert f"book/one.html: {total} bytes with its pictures" in line
