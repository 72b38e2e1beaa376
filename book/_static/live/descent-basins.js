/* Gradient descent on two double wells, from a start and with a step of the reader's choice. */
(function () {
  'use strict';

  const TILT = 0.5;
  const [DEEP, RIDGE, SHALLOW] = wells(TILT);
  const STEPS = [0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5];
  const MOST = 150;  // steps of a descent
  const FLAT = 1e-3;  // no component of the gradient above: arrived
  const FAR = 1e9;  // an energy from which no descent comes back
  const NOWHERE = 4;
  const SIDE = Array.from({ length: 81 }, (_, k) => (k - 40) / 20);

  /* Deep minimum, ridge and shallow minimum of one coordinate: 4 y^3 - 4 y + tilt = 0. */
  function wells(tilt) {
    const phase = Math.acos(-tilt / 8 * Math.sqrt(27)) / 3;
    return [2, 4, 0].map((turn) => 2 / Math.sqrt(3) * Math.cos(phase + turn * Math.PI / 3));
  }

  function energy([a, b]) {
    return (a * a - 1) ** 2 + TILT * a + ((b * b - 1) ** 2 + TILT * b);
  }

  /* Gradient descent from (a, b). If `halve`, a step that does not lower the energy enough is
     refused and halved, and doubled again, up to its first length, after each that does, which is
     `ebmref.inference.gradient_argmin`; if not, every step is taken. */
  function descend([a, b], length, halve, path = null, most = MOST, flat = FLAT) {
    let value = energy([a, b]);
    let [ga, gb] = [4 * a * (a * a - 1) + TILT, 4 * b * (b * b - 1) + TILT];
    let [step, steps, refused, falls] = [length, 0, 0, true];
    if (path) path.push([a, b]);
    while (steps < most && Math.max(Math.abs(ga), Math.abs(gb)) > flat && value < FAR) {
      const [na, nb] = [a - step * ga, b - step * gb];
      const next = (na * na - 1) ** 2 + TILT * na + ((nb * nb - 1) ** 2 + TILT * nb);
      if (!halve || next <= value - 0.5 * step * (ga * ga + gb * gb)) {
        falls = falls && next < value;
        [a, b, value] = [na, nb, next];
        ga = 4 * a * (a * a - 1) + TILT;
        gb = 4 * b * (b * b - 1) + TILT;
        if (halve) step = Math.min(2 * step, length);
      } else {
        step /= 2;
        refused += 1;
      }
      steps += 1;
      if (path) path.push([a, b]);
    }
    const slope = Math.max(Math.abs(ga), Math.abs(gb));
    // What is still on its way down stays in its basin; what leaps to and fro has none.
    const part = slope <= flat || falls ? which(a, b) : NOWHERE;
    return { end: [a, b], value, slope, steps, refused, part };
  }

  /* The number of the basin, 0 the deepest: coordinate k adds 2^k where it is beyond the ridge. */
  function which(a, b) {
    return (a > RIDGE ? 1 : 0) + (b > RIDGE ? 2 : 0);
  }

  /* Where a descent from each point of the square ends; the last answer is kept. */
  let known = {};
  function parts(step, halve) {
    const key = `${step} ${halve}`;
    if (!known[key])
      known = { [key]: SIDE.flatMap((b) => SIDE.map((a) => descend([a, b], step, halve).part)) };
    return known[key];
  }

  function solve({ step, halve, y1, y2 }) {
    const path = [];
    return { ...descend([y1, y2], step, halve, path), path, parts: parts(step, halve) };
  }

  if (typeof module !== 'undefined') {
    module.exports = { DEEP, RIDGE, SHALLOW, NOWHERE, wells, energy, descend, which, parts,
      solve };
    return;
  }

  const GRID = SIDE.flatMap((b) => SIDE.map((a) => energy([a, b])));
  const LEVELS = [-0.9, -0.5, 0, 0.5, 1, 1.5, 2.5, 4, 7, 11];
  const NAMES = ['in the lower left basin, the deepest: this is the answer',
    'in the lower right basin, not the answer', 'in the upper left basin, not the answer',
    'in the upper right basin, the shallowest, not the answer'];
  const number = livePen.number;
  const two = (v) => v.toFixed(2).replace('-', '\u2212');
  const place = (y) => `(${two(y[0])}, ${two(y[1])})`;
  const coordinate = (name, label, value) =>
    ({ name, label, min: -2, max: 2, step: 0.05, value, show: two });

  liveFigure('fig-descent-basins', {
    label: 'A square with the contours of an energy of four wells, coloured by the well in which ' +
      'a descent from each place ends, and the path of one descent.',
    hint: 'Drag the ring, where the descent starts, or move it with the arrow keys (with Shift ' +
      'farther). The colours say where descents of this step end; where there is none, they do ' +
      `not, in ${MOST} steps. The dashed lines are the ridges.`,
    panels: 1,
    most: 460,
    controls: [
      { name: 'step', label: 'step size', values: STEPS, value: 0.02, show: String },
      coordinate('y1', 'start y₁', 0.8),
      coordinate('y2', 'start y₂', 1.6),
      { name: 'halve', label: 'halve a step that does not lower the energy enough', value: true },
    ],
    handle: { x: 'y1', y: 'y2', panel: 0, label: 'start of the descent',
      at: ({ y1, y2 }) => [y1, y2] },
    play: 2.5,
    solve,
    draw(pen, values, found, share) {
      const { ink, energy: green, data, sampler, baseline, model } = pen.colours;
      const colours = [green, data, sampler, baseline, ink];
      const on = pen.panel(0, { x: [-2, 2], y: [-2, 2], square: true, xlabel: 'y₁',
        ylabel: 'y₂', title: `step ${values.step}` });
      const n = SIDE.length;
      on.parts(found.parts, n, n, colours, NOWHERE);
      on.contours(GRID, n, n, LEVELS, ink);
      on.line([RIDGE, RIDGE], [-2, 2], ink, { wide: 1.5, dash: [6, 4] });
      on.line([-2, 2], [RIDGE, RIDGE], ink, { wide: 1.5, dash: [6, 4] });
      on.dots([DEEP, SHALLOW, SHALLOW], [SHALLOW, DEEP, SHALLOW], ink, 5);
      on.star(DEEP, DEEP, model);
      const path = found.path.slice(0, Math.ceil(share * (found.path.length - 1)) + 1);
      const [xs, ys] = [0, 1].map((k) => path.map((y) => y[k]));
      on.line(xs, ys, pen.text, { wide: 1.5 });
      on.dots(xs, ys, pen.text, 2.5);
      on.dots(xs.slice(-1), ys.slice(-1), pen.text, 5);
    },
    say(values, { path, end, value, refused, slope, steps, part }) {
      const halved = refused ? `, ${refused} of them refused and halved` : '';
      const begin = `${steps} ${steps === 1 ? 'step' : 'steps'} from ${place(path[0])}${halved}. `;
      const answer = `; the answer has ${number(energy([DEEP, DEEP]))}.`;
      if (value >= FAR) return `${begin}Each step is longer than the one before: it diverges.`;
      const now = `at ${place(end)}, with energy ${number(value)}${answer}`;
      if (part === NOWHERE) return `${begin}It still leaps to and fro, ${now}`;
      const still = slope > FLAT ? `It is still on its way (slope ${number(slope, 2)})` : 'It ends';
      return `${begin}${still} ${NAMES[part]}, ${now}`;
    },
  });
})();
