/* A race of three samplers on an energy of the plane, at the same price: step and shape are the
   reader's choice. The kernels are those of `ebmref.samplers`, given their noise. */
(function () {
  'use strict';

  const PRICE = 420;  // evaluations of a chain, a gradient counted as one
  const CHAINS = 40;  // that tell what a chain is worth
  const STEPS = Array.from({ length: 22 }, (_, k) => 0.06 * 1.75 ** (k / 2));
  const LENGTHS = [1, 4, 12];
  const WIDTH = 0.25;
  const BEADS = Array.from({ length: 24 }, (_, k) => Math.PI * k / 23).flatMap((t) => {
    const [a, b] = [2 * (Math.cos(t) - 0.5), 2 * (Math.sin(t) - 0.25)];
    return [[a, b], [-a, -b]];
  });
  const [LONG, THIN] = [3, 0.3];  // of the ridge

  /* A normal law of two deviations: energy and gradient, draws, and the truth about x and x^2. */
  function normal(sd) {
    return {
      at: (x) => ({
        value: x.reduce((sum, v, k) => sum + (v / sd[k]) ** 2 / 2, 0),
        slope: x.map((v, k) => v / sd[k] ** 2),
      }),
      draw: (random) => sd.map((s) => s * random.normal()),
      mean: [0, 0, sd[0] ** 2, sd[1] ** 2],
      variance: [sd[0] ** 2, sd[1] ** 2, 2 * sd[0] ** 4, 2 * sd[1] ** 4],
    };
  }

  const average = (values) => values.reduce((a, b) => a + b, 0) / values.length;

  function moons() {
    const rate = 1 / WIDTH ** 2;
    const scale = Math.log(BEADS.length) + 2 * Math.log(WIDTH) + Math.log(2 * Math.PI);
    const square = [0, 1].map((k) => average(BEADS.map((b) => b[k] ** 2)) + WIDTH ** 2);
    const fourth = [0, 1].map((k) => average(BEADS.map(
      (b) => b[k] ** 4 + 6 * b[k] ** 2 * WIDTH ** 2 + 3 * WIDTH ** 4)));
    return {
      at(x) {
        const terms = BEADS.map((b) => -rate / 2 * ((x[0] - b[0]) ** 2 + (x[1] - b[1]) ** 2));
        const most = Math.max(...terms);
        const weights = terms.map((t) => Math.exp(t - most));
        const all = weights.reduce((a, b) => a + b);
        const slope = [0, 1].map((k) => weights.reduce(
          (sum, w, i) => sum + w / all * rate * (x[k] - BEADS[i][k]), 0));
        return { value: scale - most - Math.log(all), slope };
      },
      draw(random) {
        const bead = BEADS[Math.floor(BEADS.length * random.uniform())];
        return bead.map((b) => b + WIDTH * random.normal());
      },
      mean: [0, 0, ...square],
      variance: [...square, fourth[0] - square[0] ** 2, fourth[1] - square[1] ** 2],
    };
  }

  const SHAPES = { 'two moons': moons(), ridge: normal([LONG, THIN]), round: normal([1, 1]) };

  /* Random numbers: uniform by mulberry32, normal by Box and Muller; the same for a seed. */
  function source(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6D2B79F5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () =>
      Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, normal };
  }

  const squared = (v) => v[0] ** 2 + v[1] ** 2;

  /* What each sampler proposes from `here` with the noise xi: the place, and log A. */
  const KERNELS = {
    'random walk'(law, here, s, xi) {
      const x = here.x.map((v, k) => v + s * xi[k]);
      const there = { x, ...law.at(x) };
      return [there, here.value - there.value];
    },
    MALA(law, here, s, xi) {
      const x = here.x.map((v, k) => v - s * s / 2 * here.slope[k] + s * xi[k]);
      const there = { x, ...law.at(x) };
      const back = xi.map((v, k) => s / 2 * (here.slope[k] + there.slope[k]) - v);
      return [there, here.value - there.value + (squared(xi) - squared(back)) / 2];
    },
    HMC(law, here, s, xi, length) {
      let [there, v] = [here, xi.map((p, k) => p - s / 2 * here.slope[k])];
      for (let n = 0; n < length; n++) {
        const x = there.x.map((a, k) => a + s * v[k]);
        there = { x, ...law.at(x) };
        const kick = n === length - 1 ? s / 2 : s;
        v = v.map((p, k) => p - kick * there.slope[k]);
      }
      return [there, here.value - there.value + (squared(xi) - squared(v)) / 2];
    },
  };

  /* A chain of `steps` steps from x; noise() gives [xi, u] for each. */
  function run(name, shape, x, s, length, steps, noise) {
    const law = SHAPES[shape];
    let here = { x, ...law.at(x) };
    const path = [x];
    let accepted = 0;
    for (let n = 0; n < steps; n++) {
      const [xi, u] = noise(n);
      const [there, ratio] = KERNELS[name](law, here, s, xi, length);
      const log = Number.isNaN(ratio) ? -Infinity : ratio;
      accepted += Math.exp(Math.min(log, 0));
      if (log >= Math.log1p(-u)) here = there;
      path.push(here.x);
    }
    return { path, acceptance: accepted / steps };
  }

  const stepsOf = (name, length) => Math.floor(PRICE / (name === 'HMC' ? length : 1));

  /* Effective draws of the worst of x and x^2: its variance over the mean square of how far the
     means of chains, which begin in exact draws, are off. */
  function worth(shape, means) {
    const { mean, variance } = SHAPES[shape];
    return Math.min(...mean.map((truth, k) =>
      variance[k] / average(means.map((m) => (m[k] - truth) ** 2))));
  }

  function chainMean(path) {
    return [0, 1, 2, 3].map((k) => average(path.slice(1).map((x) => x[k % 2] ** (k < 2 ? 1 : 2))));
  }

  function judge(name, shape, s, length) {
    const random = source(7);
    const noise = () => [[random.normal(), random.normal()], random.uniform()];
    const steps = stepsOf(name, length);
    const means = [];
    for (let k = 0; k < CHAINS; k++) {
      const x = SHAPES[shape].draw(random);
      means.push(chainMean(run(name, shape, x, s, length, steps, noise).path));
    }
    return 1000 / PRICE * worth(shape, means);
  }

  let known = {};
  function solve({ shape, step, length, x1, x2 }) {
    const key = `${shape} ${step} ${length}`;
    const names = Object.keys(KERNELS);
    // Where the trace begins changes nothing of what a chain is worth.
    if (!known[key])
      known = { [key]: names.map((name) => judge(name, shape, step, length)) };
    return names.map((name, k) => {
      const random = source(11);
      const noise = () => [[random.normal(), random.normal()], random.uniform()];
      const chain = run(name, shape, [x1, x2], step, length, stepsOf(name, length), noise);
      return { name, ...chain, draws: known[key][k] };
    });
  }

  if (typeof module !== 'undefined') {
    module.exports = { BEADS, STEPS, LENGTHS, SHAPES, CHAINS, PRICE, run, solve, source, worth,
      chainMean, stepsOf };
    return;
  }

  const SIDE = Array.from({ length: 85 }, (_, k) => (k - 42) / 10);
  const heights = {};
  for (const shape of Object.keys(SHAPES))
    heights[shape] = SIDE.flatMap((b) => SIDE.map((a) => SHAPES[shape].at([a, b]).value));
  const MARKS = [-4, -2, 0, 2, 4].map((v) => [v, String(v).replace('-', '\u2212')]);
  const two = (v) => v.toFixed(2).replace('-', '\u2212');
  const about = (v) => livePen.number(v, 2);
  const start = (name, label, value) =>
    ({ name, label, min: -4, max: 4, step: 0.1, value, show: two });

  liveFigure('fig-race', {
    label: 'Three squares with the contours of an energy and the path of a chain each: random ' +
      'walk, MALA and HMC, at the same number of evaluations.',
    hint: 'Change step and shape, and watch which chain gets about. Drag the ring, where the ' +
      'paths begin. On the ridge try the longest steps.',
    panels: 3,
    controls: [
      { name: 'step', label: 'step (of MALA the root of h)', values: STEPS, value: STEPS[6],
        show: (v) => v.toPrecision(2) },
      { name: 'shape', label: 'energy', values: Object.keys(SHAPES), value: 'two moons',
        show: String },
      { name: 'length', label: 'leapfrog steps of HMC', values: LENGTHS, value: 4, show: String },
      start('x1', 'start x₁', -3),
      start('x2', 'start x₂', -0.5),
    ],
    handle: { x: 'x1', y: 'x2', panel: 0, label: 'start of the paths',
      at: ({ x1, x2 }) => [x1, x2] },
    play: 4,
    solve,
    draw(pen, { shape, x1, x2 }, found, share) {
      const { energy, sampler, model, ink } = pen.colours;
      found.forEach(({ name, path, acceptance }, k) => {
        const on = pen.panel(k, { x: [-4.2, 4.2], y: [-4.2, 4.2], square: true,
          title: `${name}, accepted ${two(acceptance)}`, xlabel: 'x₁', ylabel: 'x₂',
          xticks: MARKS, yticks: MARKS });
        const lowest = Math.min(...heights[shape]);
        on.contours(heights[shape], SIDE.length, SIDE.length, [1, 4, 9].map((v) => lowest + v),
          energy);
        const part = path.slice(0, Math.ceil(share * (path.length - 1)) + 1);
        const [xs, ys] = [0, 1].map((j) => part.map((x) => x[j]));
        on.line(xs, ys, model, { wide: 0.8 });
        on.dots(xs, ys, sampler, 2);
        on.dots([x1], [x2], ink, 4);
      });
    },
    say({ shape }, found) {
      const told = found.map(({ name, acceptance, draws }) =>
        `${name} accepts ${two(acceptance)} and is worth ${about(draws)}`).join('; ');
      return `Of 1000 evaluations on the ${shape === 'two moons' ? shape : `${shape} law`}, in ` +
        `effective draws of the worst of x and x²: ${told}. A chain of ${PRICE} that never ` +
        `moves is worth ${about(1000 / PRICE)}.`;
    },
  });
})();
