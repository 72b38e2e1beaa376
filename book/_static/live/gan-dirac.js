/* The smallest GAN: data at 0, samples at theta, d(x) = psi x, and steps of a reader's choice. */
(function () {
  'use strict';

  const LOSSES = ['saturating', 'non-saturating', 'Wasserstein'];
  const STEPS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3];
  const PENALTIES = [0, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3];
  const MOST = 5000;  // steps that are played
  const SHOWN = 300;  // of these, in the plane
  const FAR = 100;  // a distance from which nothing comes back
  const LIMIT = 2.2;

  const sigmoid = (t) => 1 / (1 + Math.exp(-t));

  /* What each player moves along: minus the gradient of its own loss. */
  function field([theta, psi], loss, penalty) {
    if (loss === 'Wasserstein') return [psi, -theta - penalty * psi];
    const told = sigmoid(psi * theta);
    const weight = loss === 'saturating' ? told : 1 - told;
    return [psi * weight, -theta * told - penalty * psi];
  }

  /* One step, both at once or the generator after the discriminator. */
  function advance(point, h, loss, penalty, turns) {
    const [a, b] = field(point, loss, penalty);
    const psi = point[1] + h * b;
    const move = turns ? field([point[0], psi], loss, penalty)[0] : a;
    return [point[0] + h * move, psi];
  }

  /* Of one step near the equilibrium: below one it draws in, above one it drives out. */
  function spectralRadius(h, loss, penalty, turns) {
    const a = h * (loss === 'Wasserstein' ? 1 : 0.5);
    const held = 1 - h * penalty;
    const trace = 1 + held - (turns ? a * a : 0);
    const determinant = turns ? held : held + a * a;
    const root = trace * trace / 4 - determinant;
    if (root < 0) return Math.sqrt(determinant);
    return Math.abs(trace / 2) + Math.sqrt(root);
  }

  function solve({ step, loss, penalty, turns, theta, psi }) {
    const path = [[theta, psi]];
    const radii = [Math.hypot(theta, psi)];
    while (radii.length <= MOST && radii[radii.length - 1] < FAR) {
      path.push(advance(path[path.length - 1], step, loss, penalty, turns));
      radii.push(Math.hypot(...path[path.length - 1]));
    }
    return { path: path.slice(0, SHOWN + 1), radii, steps: radii.length - 1,
      end: radii[radii.length - 1], edge: spectralRadius(step, loss, penalty, turns) };
  }

  if (typeof module !== 'undefined') {
    module.exports = { LOSSES, field, advance, spectralRadius, solve };
    return;
  }

  const number = livePen.number;
  const two = (v) => v.toFixed(2).replace('-', '\u2212');
  const player = (name, label, value) =>
    ({ name, label, min: -2, max: 2, step: 0.05, value, show: two });
  const TENS = [[-4, '10⁻⁴'], [-3, '10⁻³'], [-2, '0.01'], [-1, '0.1'], [0, '1'], [1, '10']];

  liveFigure('fig-gan-dirac', {
    label: 'Left, the plane of generator θ and discriminator ψ with the path of a game. Right, ' +
      'the distance from the equilibrium against the steps, both in powers of ten.',
    hint: 'Drag the ring, where the game starts, or move it with the arrow keys, and change ' +
      'loss, step and penalty. The dashed circle is √(2h), the dotted line √(8/t).',
    panels: 2,
    most: 380,
    controls: [
      { name: 'loss', label: 'loss of the generator', values: LOSSES, value: 'non-saturating',
        show: String },
      { name: 'step', label: 'step h', values: STEPS, value: 0.2, show: String },
      { name: 'penalty', label: 'gradient penalty γ (R1)', values: PENALTIES, value: 0,
        show: String },
      player('theta', 'start: generator θ', 1),
      player('psi', 'start: discriminator ψ', 0),
      { name: 'turns', label: 'in turn: the generator answers to the discriminator’s move',
        value: false },
    ],
    handle: { x: 'theta', y: 'psi', panel: 0, label: 'start of the game',
      at: ({ theta, psi }) => [theta, psi] },
    play: 4,
    solve,
    draw(pen, { step, loss, turns }, { path, radii }, share) {
      const { ink, energy, model } = pen.colours;
      const colour = turns ? energy : model;
      const left = pen.panel(0, { x: [-LIMIT, LIMIT], y: [-LIMIT, LIMIT], square: true,
        xlabel: 'θ', ylabel: 'ψ', title: `${path.length - 1} steps of ${step}` });
      const turn = Array.from({ length: 121 }, (_, k) => Math.PI * k / 60);
      const laws = loss === 'non-saturating';
      const circle = Math.sqrt(2 * step);
      if (laws)
        left.line(turn.map((t) => circle * Math.cos(t)), turn.map((t) => circle * Math.sin(t)),
          ink, { wide: 1.5, dash: [6, 4] });
      left.line([-0.08, 0.08], [-0.08, 0.08], ink);
      left.line([-0.08, 0.08], [0.08, -0.08], ink);
      const way = path.slice(0, Math.ceil(share * (path.length - 1)) + 1);
      const [xs, ys] = [0, 1].map((k) => way.map((at) => at[k]));
      left.line(xs, ys, colour, { wide: 1.5 });
      const [x, y] = way[way.length - 1];
      if (Math.max(Math.abs(x), Math.abs(y)) < LIMIT) left.dots([x], [y], colour, 5);

      const right = pen.panel(1, { x: [0, Math.log10(MOST)], y: [-4, 1.2],
        xlabel: 'steps', ylabel: 'distance', title: 'distance from the equilibrium',
        xticks: [[0, '1'], [1, '10'], [2, '100'], [3, '1000']], yticks: TENS });
      const made = radii.map((_, k) => k).slice(1);
      const logs = made.map((k) => Math.log10(k));
      if (laws) {
        right.line([0, 4], [Math.log10(circle), Math.log10(circle)], ink,
          { wide: 1.5, dash: [6, 4] });
        right.line(logs, made.map((k) => 0.5 * Math.log10(8 / (step * k))), ink,
          { wide: 1.5, dash: [2, 3] });
      }
      right.line(logs, made.map((k) => Math.log10(Math.max(radii[k], 1e-9))), colour,
        { wide: 2 });
    },
    say({ step, loss, turns }, { steps, end, edge }) {
      const played = turns ? 'in turn' : 'at once';
      const size = Math.abs(edge - 1) < 1e-9 ? 'exactly 1' : number(edge, 4);
      const begin = `The largest eigenvalue of a step, ${played}, has size ${size}. `;
      if (end >= FAR) return `${begin}The game has left: ${steps} steps took it 100 away.`;
      const now = `After ${steps} steps the distance is ${number(end)}`;
      if (loss !== 'non-saturating') return `${begin}${now}.`;
      return `${begin}${now}; √(2h) is ${number(Math.sqrt(2 * step))}, and √(8/t) is ` +
        `${number(Math.sqrt(8 / (step * steps)))}.`;
    },
  });
})();
