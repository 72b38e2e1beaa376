/* What live figures are painted with: panels with axes on a canvas, in the book's colours.

   Loaded before `live.js`, which hands a pen to each figure's `draw`; lengths are CSS pixels. */
(function (root) {
  'use strict';

  // Of ebmbook/plots.py: one colour a role.
  const COLOURS = { data: '#0072b2', model: '#d55e00', energy: '#009e73', sampler: '#cc79a7',
    baseline: '#e69f00', ink: '#7f7f7f' };
  const VIRIDIS = ('44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae803fbc73' +
    '5ec96284d44baddc30d8e219fde725').match(/../g).map((pair) => parseInt(pair, 16));
  const SIDE_BY_SIDE = 520;  // below, panels stand in a column

  /* The colour of a share in [0, 1] of the map of energies, as [red, green, blue]. */
  function viridis(share) {
    const last = VIRIDIS.length / 3 - 1;
    const at = Math.min(Math.max(share, 0), 1) * last;
    const low = Math.min(Math.floor(at), last - 1);
    return [0, 1, 2].map((k) => {
      const [a, b] = [VIRIDIS[3 * low + k], VIRIDIS[3 * low + 3 + k]];
      return Math.round(a + (at - low) * (b - a));
    });
  }

  /* [red, green, blue] of "#rrggbb". */
  function rgb(colour) {
    return [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  }

  /* A number as the pages print it: a true minus, powers of ten, so many digits. */
  function number(value, digits = 3) {
    if (!Number.isFinite(value)) return value > 0 ? '∞' : value < 0 ? '\u2212∞' : 'unknown';
    const size = Math.abs(value);
    const plain = value === 0 || (size >= 1e-3 && size < 1e5);
    if (plain) {
      const text = value === 0 ? '0' : value.toPrecision(digits);
      return (text.includes('e') ? String(+text) : text).replace('-', '\u2212');
    }
    const [base, power] = value.toExponential(digits - 1).split('e');
    const raise = (c) => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(c)];
    const raised = String(+power).replace(/./g, raise);
    return `${base} × 10${raised}`.replace('-', '\u2212');
  }

  /* Round values in [low, high], about n of them. */
  function ticks(low, high, n = 5) {
    const rough = (high - low) / Math.max(n, 1);
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((k) => k * unit >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: count }, (_, k) => +((first + k) * step).toPrecision(12));
  }

  /* Where n panels stand on a canvas of this width, none higher than `most`. */
  function layout(width, n, most = 340) {
    const row = width >= SIDE_BY_SIDE;
    const wide = row ? width / n : width;
    const high = Math.min(0.9 * wide + 20, most);
    const boxes = Array.from({ length: n }, (_, k) => ({
      left: row ? k * wide : 0, top: row ? 0 : k * high, width: wide, height: high }));
    return { height: row ? high : n * high, boxes };
  }

  /* Where a level runs between the values of a grid: segments [x0, y0, x1, y1] in its cells, by
     marching squares. values[j * nx + i] stands at (i, j). */
  function contour(values, nx, ny, level) {
    const found = [];
    for (let j = 0; j + 1 < ny; j++) {
      for (let i = 0; i + 1 < nx; i++) {
        const at = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
        const cuts = [];
        for (let k = 0; k < 4; k++) {
          const [p, q] = [at[k], at[(k + 1) % 4]];
          const [a, b] = [values[p[1] * nx + p[0]] - level, values[q[1] * nx + q[0]] - level];
          if ((a < 0) === (b < 0)) continue;
          const t = a / (a - b);
          cuts.push(p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]));
        }
        for (let k = 0; k + 3 < cuts.length; k += 4) found.push(cuts.slice(k, k + 4));
      }
    }
    return found;
  }

  /* Axes in a box of the canvas. `of`: x and y, each [low, high]; title, xlabel, ylabel; xticks and
     yticks, [value, text] each; square: as many pixels a unit on both. */
  function panel(pen, box, of) {
    const c = pen.context;
    let [left, top] = [box.left + 56, box.top + 26];
    let [width, height] = [box.width - 70, box.height - 70];
    if (of.square) {
      const side = Math.min(width, height);
      left += (width - side) / 2;
      width = height = side;
    }
    const along = (v) => left + (v - of.x[0]) / (of.x[1] - of.x[0]) * width;
    const up = (v) => top + height - (v - of.y[0]) / (of.y[1] - of.y[0]) * height;

    function within(paint) {
      c.save();
      c.beginPath();
      c.rect(left, top, width, height);
      c.clip();
      paint();
      c.restore();
    }
    function trace(xs, ys) {
      c.beginPath();
      for (let k = 0; k < xs.length; k++) c.lineTo(along(xs[k]), up(ys[k]));
    }
    function stroke(colour, { wide = 2, dash = [] } = {}) {
      Object.assign(c, { strokeStyle: colour, lineWidth: wide, lineJoin: 'round' });
      c.setLineDash(dash);
      c.stroke();
    }
    function write(text, x, y, { align = 'center', base = 'alphabetic', turn = 0 } = {}) {
      c.save();
      c.translate(x, y);
      c.rotate(turn);
      Object.assign(c, { fillStyle: pen.text, textAlign: align, textBaseline: base });
      c.fillText(text, 0, 0);
      c.restore();
    }
    function image(nx, ny, colourAt) {
      const small = document.createElement('canvas');
      [small.width, small.height] = [nx, ny];
      const inner = small.getContext('2d');
      const pixels = inner.createImageData(nx, ny);
      for (let j = 0; j < ny; j++)
        for (let i = 0; i < nx; i++)
          pixels.data.set(colourAt(j * nx + i), 4 * ((ny - 1 - j) * nx + i));
      inner.putImageData(pixels, 0, 0);
      // Values stand at the middles of pixels, the outermost on the edge.
      const [dx, dy] = [width / (nx - 1), height / (ny - 1)];
      within(() => c.drawImage(small, left - dx / 2, top - dy / 2, width + dx, height + dy));
    }

    const own = {
      along, up, left, top, width, height,
      valueAt: (px, py) => [of.x[0] + (px - left) / width * (of.x[1] - of.x[0]),
        of.y[0] + (top + height - py) / height * (of.y[1] - of.y[0])],
      /* values[j * nx + i] at the i-th x and the j-th y, in steps of colour from low to high. */
      heat(values, nx, ny, low, high, steps = 24) {
        image(nx, ny, (k) => {
          const share = Math.min((values[k] - low) / (high - low), 0.9999);
          return [...viridis((Math.floor(share * steps) + 0.5) / steps), 255];
        });
      },
      /* The colour "#rrggbb" of each number of the grid, thinned; none of the number `empty`. */
      parts(numbers, nx, ny, colours, empty = -1, alpha = 0.2) {
        const all = colours.map(rgb);
        image(nx, ny, (k) => [...all[numbers[k]], numbers[k] === empty ? 0 : 255 * alpha]);
      },
      contours(values, nx, ny, levels, colour) {
        const [dx, dy] = [width / (nx - 1), height / (ny - 1)];
        within(() => {
          c.beginPath();
          for (const level of levels) {
            for (const [x0, y0, x1, y1] of contour(values, nx, ny, level)) {
              c.moveTo(left + x0 * dx, top + height - y0 * dy);
              c.lineTo(left + x1 * dx, top + height - y1 * dy);
            }
          }
          stroke(colour, { wide: 0.8 });
        });
      },
      line(xs, ys, colour, how) {
        within(() => { trace(xs, ys); stroke(colour, how); });
      },
      /* What lies between the line and the foot of the panel. */
      area(xs, ys, colour, alpha = 0.25) {
        within(() => {
          trace([...xs, xs[xs.length - 1], xs[0]], [...ys, of.y[0], of.y[0]]);
          Object.assign(c, { fillStyle: colour, globalAlpha: alpha });
          c.fill();
        });
      },
      dots(xs, ys, colour, radius = 4) {
        c.fillStyle = colour;
        for (let k = 0; k < xs.length; k++) {
          c.beginPath();
          c.arc(along(xs[k]), up(ys[k]), radius, 0, 2 * Math.PI);
          c.fill();
        }
      },
      star(x, y, colour, radius = 10) {
        c.beginPath();
        for (let k = 0; k < 10; k++) {
          const [r, a] = [k % 2 ? radius * 0.4 : radius, Math.PI * (k / 5 - 0.5)];
          c.lineTo(along(x) + r * Math.cos(a), up(y) + r * Math.sin(a));
        }
        c.fillStyle = colour;
        c.fill();
      },
      /* Entries [colour, text, dash] from the top right corner down, or the top middle. */
      legend(entries, at = 1) {
        entries.forEach(([colour, text, dash = []], k) => {
          const [x, y] = [left + at * width - 4, top + 8 + 17 * k];
          write(text, x, y, { align: 'right', base: 'middle' });
          const end = x - 6 - c.measureText(text).width;
          c.save();
          c.beginPath();
          c.moveTo(end - 20, y);
          c.lineTo(end, y);
          stroke(colour, { wide: 2.5, dash });
          c.restore();
        });
      },
    };

    c.fillStyle = COLOURS.ink;
    c.fillRect(left - 1, top, 1, height + 1);
    c.fillRect(left - 1, top + height, width + 1, 1);
    const marks = (given, span, n) => given ||
      ticks(...span, n).map((v) => [v, String(v).replace('-', '\u2212')]);
    for (const [v, text] of marks(of.xticks, of.x, width / 60)) {
      c.fillStyle = COLOURS.ink;
      c.fillRect(along(v) - 0.5, top + height, 1, 5);
      write(text, along(v), top + height + 8, { base: 'top' });
    }
    for (const [v, text] of marks(of.yticks, of.y, height / 45)) {
      c.fillStyle = COLOURS.ink;
      c.fillRect(left - 5, up(v) - 0.5, 5, 1);
      write(text, left - 8, up(v), { align: 'right', base: 'middle' });
    }
    write(of.title || '', left + width / 2, top - 10);
    write(of.xlabel || '', left + width / 2, top + height + 26, { base: 'top' });
    write(of.ylabel || '', left - 44, top + height / 2, { turn: -Math.PI / 2 });
    return own;
  }

  const livePen = { COLOURS, viridis, rgb, number, ticks, layout, contour, panel };
  if (typeof module !== 'undefined') module.exports = livePen;
  else root.livePen = livePen;
})(typeof window === 'undefined' ? null : window);
