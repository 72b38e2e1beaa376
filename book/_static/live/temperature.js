/* The free energy along the short axis of the ellipse, at a temperature of the reader's choice. */
(function () {
  'use strict';

  const ANGLES = Array.from({ length: 48 }, (_, k) => 2 * Math.PI * k / 48);
  const ANSWERS = Array.from({ length: 121 }, (_, k) => (k - 60) / 20);
  const BETAS = [0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3.2, 5, 7, 10,
    15, 20, 32, 50, 100];

  /* E(y, z) of an answer on the short axis with each angle. */
  function energies(y) {
    return ANGLES.map((z) => 4 * Math.cos(z) ** 2 + (y - 1.5 * Math.sin(z)) ** 2);
  }

  /* -1/beta log mean exp(-beta E), with the normalised measure. */
  function freeEnergy(energy, beta) {
    const least = Math.min(...energy);
    // Weights relative to the largest, less one: F keeps its digits in the heat, too.
    const excess = energy.reduce((sum, e) => sum + Math.expm1(-beta * (e - least)), 0);
    return least - Math.log1p(excess / energy.length) / beta;
  }

  /* exp(-beta E), made to sum to one. */
  function softmin(energy, beta) {
    const least = Math.min(...energy);
    const weights = energy.map((e) => Math.exp(-beta * (e - least)));
    const all = weights.reduce((a, b) => a + b);
    return weights.map((w) => w / all);
  }

  function solve({ beta, y }) {
    const energy = energies(y);
    const weights = softmin(energy, beta);
    // Two of the angles, 0 and pi, are in neither half.
    const upper = weights.slice(1, 24).reduce((a, b) => a + b) + (weights[0] + weights[24]) / 2;
    return {
      weights, upper,
      value: freeEnergy(energy, beta),
      least: Math.min(...energy),
      mean: energy.reduce((a, b) => a + b) / energy.length,
      heard: 1 / weights.reduce((sum, w) => sum + w * w, 0),
      curve: ANSWERS.map((at) => freeEnergy(energies(at), beta)),
    };
  }

  if (typeof module !== 'undefined') {
    module.exports = { ANGLES, ANSWERS, energies, freeEnergy, softmin, solve };
    return;
  }

  const HIGH = 8;
  const number = livePen.number;
  const two = (v) => v.toFixed(2).replace('-', '\u2212');

  liveFigure('fig-temperature', {
    label: 'Left: the free energy over y between the mean energy and the least one. Right: the ' +
      'softmin weights of the angles z at one y.',
    hint: 'Drag the ring along the curve, or move it with the arrow keys, and change β.',
    panels: 2,
    controls: [
      { name: 'beta', label: 'inverse temperature β', values: BETAS, value: 1, show: String },
      { name: 'y', label: 'answer y', min: -3, max: 3, step: 0.05, value: 0.2, show: two },
    ],
    handle: { x: 'y', panel: 0, label: 'answer y on the curve',
      at: ({ y }, { value }) => [y, Math.min(value, HIGH)] },
    solve,
    draw(pen, { beta, y }, found) {
      const { ink, energy, model } = pen.colours;
      const left = pen.panel(0, { x: [-3, 3], y: [0, HIGH], xlabel: 'y', ylabel: 'energy',
        title: `free energy at β = ${beta}` });
      left.line([y, y], [found.least, found.mean], ink, { wide: 1.5 });
      left.line(ANSWERS, ANSWERS.map((at) => at * at + 3.125), ink, { wide: 1.5, dash: [2, 3] });
      left.line(ANSWERS, ANSWERS.map((at) => (Math.abs(at) - 1.5) ** 2), ink,
        { wide: 1.5, dash: [6, 4] });
      left.line(ANSWERS, found.curve, energy, { wide: 3 });
      left.legend([[ink, 'mean', [2, 3]], [energy, 'F'], [ink, 'minimum', [6, 4]]], 0.64);

      const most = Math.max(...found.weights);
      const top = [0.05, 0.1, 0.2, 0.5, 1].find((one) => one >= most) || 1;
      const right = pen.panel(1, { x: [0, 2 * Math.PI], y: [0, 1.05 * top], xlabel: 'z',
        ylabel: 'weight', title: `softmin weights at y = ${two(y)}`,
        xticks: [[0, '0'], [Math.PI / 2, 'π/2'], [Math.PI, 'π'], [1.5 * Math.PI, '3π/2'],
          [2 * Math.PI, '2π']] });
      right.area(ANGLES, found.weights, model);
      right.line(ANGLES, found.weights, model, { wide: 1.5 });
      right.dots(ANGLES, found.weights, model, 2.5);
    },
    say({ beta, y }, { value, least, mean, upper, heard }) {
      return `At β = ${beta}, F(${two(y)}) = ${number(value)}, between the least energy, ` +
        `${number(least)}, and the mean, ${number(mean)}. The upper half of the ellipse, ` +
        `z between 0 and π, has ${upper.toFixed(2)} of the weight; in effect ` +
        `${heard.toFixed(1)} of the 48 angles count.`;
    },
  });
})();
