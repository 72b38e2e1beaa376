/* Live figures: what all of them share.

   The picture of the record stays on the page. Where scripts run, this one puts a canvas with
   sliders in its place, and a button that brings the picture back. One more live figure is one
   more file: `NAME.js` in the folder above is loaded, after this one, on the page that has the
   figure `fig-NAME`, by `book/_ext/live_figures.py`; nothing is written on the page. It reads

     (function () {
       'use strict';
       const laws = { solve };  // the mathematics: pure functions, which the tests call
       if (typeof module !== 'undefined') { module.exports = laws; return; }
       liveFigure('fig-NAME', plan);
     })();

   and the plan is
     label     what the canvas shows, in words, for those who do not see it
     hint      a line on what to do
     panels    how many: side by side where there is room, else one below the other
     most      the greatest height of a panel, in pixels; optional
     controls  controls: {name, label, value, show} and either min, max, step or `values`, all that
               there are; show(value) is the text, `livePen.number` without it
     handle    a dot that can be dragged and moved by arrow keys: {x, y, panel, label, at}; x and y
               name the controls that it moves, y is optional; at(values, found) is where it stands
     solve     solve(values) -> found, pure
     draw      draw(pen, values, found, share): paints on pen.panel(k, axes), see `pen.js`
     say       say(values, found) -> the read-out, a sentence or two
     play      seconds in which "Play" takes `share` from 0 to 1; without it share is 1

   The laws of each file are held to those of `ebmref` by `tests/book/test_live_figures.py`. */
(function (root) {
  'use strict';

  function element(kind, parent, className, given = {}) {
    const made = document.createElement(kind);
    made.className = className;
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  /* A slider with its label and its value, or a box to tick where the value is true or false:
     {input, value(), put(value), tell()}. */
  function control(parent, of) {
    const row = element('label', parent, 'live-control');
    if (typeof of.value === 'boolean') {
      row.classList.add('live-tick');
      const input = element('input', row, '', { type: 'checkbox' });
      element('span', row, 'live-name').textContent = of.label;
      input.checked = of.value;
      return { input, value: () => input.checked, put: (to) => { input.checked = to; }, tell() {} };
    }
    element('span', row, 'live-name').textContent = of.label;
    const value = element('span', row, 'live-value', { 'aria-hidden': 'true' });
    const { min, max, step } = of.values ? { min: 0, max: of.values.length - 1, step: 1 } : of;
    const input = element('input', row, '', { type: 'range', min, max, step });
    const own = {
      input,
      step,
      value: () => (of.values ? of.values[input.valueAsNumber] : input.valueAsNumber),
      // An input of type range rounds and limits what it is given.
      put: (to) => { input.value = of.values ? of.values.indexOf(to) : to; },
      tell() {
        const text = (of.show || root.livePen.number)(own.value());
        value.textContent = text;
        input.setAttribute('aria-valuetext', text);
      },
    };
    own.put(of.value);
    return own;
  }

  /* A dot on the picture: calls moveTo(px, py) while dragged, and stepBy(dx, dy) for arrow keys. */
  function dot(picture, label, moveTo, stepBy) {
    const made = element('div', picture, 'live-handle', { role: 'slider', tabindex: 0,
      'aria-label': label });
    const under = (event) => {
      const at = picture.getBoundingClientRect();
      moveTo(event.clientX - at.left, event.clientY - at.top);
    };
    made.addEventListener('pointerdown', (event) => {
      event.preventDefault();
      made.focus();
      made.setPointerCapture(event.pointerId);
    });
    made.addEventListener('pointermove', (event) => {
      if (made.hasPointerCapture(event.pointerId)) under(event);
    });
    // A touch elsewhere scrolls the page; a tap or a click calls the dot.
    picture.addEventListener('click', (event) => { if (event.target !== made) under(event); });
    made.addEventListener('keydown', (event) => {
      const to = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
      if (!to[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      stepBy(...to[event.key].map((way) => way * (event.shiftKey ? 10 : 1)));
    });
    return made;
  }

  function fill(figure, live, name, plan) {
    const { number, layout, panel, COLOURS } = root.livePen;
    const picture = element('div', live, 'live-picture');
    const canvas = element('canvas', picture, '',
      { role: 'img', 'aria-label': plan.label, 'aria-describedby': `${name}-told` });
    const context = canvas.getContext('2d');
    const rows = element('div', live, 'live-controls');
    const controls = {};
    for (const of of plan.controls) {
      controls[of.name] = control(rows, of);
      controls[of.name].input.addEventListener('input', change);
    }
    const told = element('p', live, 'live-told', { id: `${name}-told`, 'aria-live': 'polite' });
    if (plan.hint) element('p', live, 'live-hint').textContent = plan.hint;
    const buttons = element('div', live, 'live-buttons');

    let values, found, rest, run = 0, share = 1, waiting = false;
    const panels = [];
    const handle = plan.handle && dot(picture, plan.handle.label, moveTo, stepBy);

    function paint() {
      waiting = false;
      const width = picture.clientWidth;
      if (!width) return;  // hidden: the recorded picture is shown
      const { height, boxes } = layout(width, plan.panels, plan.most);
      const dense = root.devicePixelRatio || 1;
      canvas.width = Math.round(width * dense);
      canvas.height = Math.round(height * dense);
      canvas.style.height = `${height}px`;
      context.setTransform(dense, 0, 0, dense, 0, 0);
      const style = getComputedStyle(live);
      context.font = `13px ${style.fontFamily}`;
      const pen = { context, width, height, colours: COLOURS, text: style.color };
      pen.panel = (k, axes) => (panels[k] = panel(pen, boxes[k], axes));
      plan.draw(pen, values, found, share);
      if (handle) place();
    }
    function repaint() {
      if (!waiting) root.requestAnimationFrame(paint);
      waiting = true;
    }
    function change() {
      [share, run] = [1, run + 1];  // what plays stops
      values = {};
      for (const key of Object.keys(controls)) {
        values[key] = controls[key].value();
        controls[key].tell();
      }
      found = plan.solve(values);
      // Read aloud once the hand rests, not at every place on the way.
      told.setAttribute('aria-busy', 'true');
      clearTimeout(rest);
      rest = setTimeout(() => told.removeAttribute('aria-busy'), 400);
      told.textContent = plan.say(values, found);
      repaint();
    }

    function place() {
      const { x, y, panel: k, at } = plan.handle;
      const [vx, vy] = at(values, found);
      const [px, py] = [panels[k].along(vx), panels[k].up(vy)];
      handle.style.transform = `translate(${px}px, ${py}px)`;
      const { min, max, value } = controls[x].input;
      for (const [key, text] of [['min', min], ['max', max], ['now', value],
        ['text', (y ? [vx, vy] : [vx]).map((v) => number(v)).join(', ')]])
        handle.setAttribute(`aria-value${key}`, text);
    }
    function moveTo(px, py) {
      const { x, y, panel: k } = plan.handle;
      const on = panels[k];
      const reach = 22;  // half of a finger's width
      if (px < on.left - reach || px > on.left + on.width + reach) return;
      if (py < on.top - reach || py > on.top + on.height + reach) return;
      const [vx, vy] = on.valueAt(px, py);
      controls[x].put(vx);
      if (y) controls[y].put(vy);
      change();
    }
    function stepBy(dx, dy) {
      const { x, y } = plan.handle;
      const by = (one, steps) => one.put(one.input.valueAsNumber + steps * one.step);
      by(controls[x], y ? dx : dx + dy);
      if (y) by(controls[y], dy);
      change();
    }

    function button(text, act) {
      const made = element('button', buttons, 'live-button', { type: 'button' });
      made.textContent = text;
      made.addEventListener('click', () => act(made));
      return made;
    }
    if (plan.play) {
      const still = root.matchMedia('(prefers-reduced-motion: reduce)');
      const play = button('Play', () => {
        const mine = (run += 1);
        let begun = null;
        root.requestAnimationFrame(function next(now) {
          if (mine !== run) return;
          begun = begun === null ? now : begun;
          share = Math.min((now - begun) / (1000 * plan.play), 1);
          paint();
          if (share < 1) root.requestAnimationFrame(next);
        });
      });
      const asked = () => { play.hidden = still.matches; if (still.matches) change(); };
      play.hidden = still.matches;
      still.addEventListener('change', asked);
    }
    button('Reset', () => {
      for (const of of plan.controls) controls[of.name].put(of.value);
      change();
    });
    button('Show the recorded picture', (made) => {
      const back = figure.classList.toggle('is-live');
      made.textContent = back ? 'Show the recorded picture' : 'Show the live figure';
      if (back) repaint();
    }).classList.add('live-toggle');

    figure.classList.add('is-live');
    change();
    paint();
    new ResizeObserver(repaint).observe(picture);
    new MutationObserver(repaint).observe(document.documentElement,
      { attributes: true, attributeFilter: ['data-theme'] });
  }

  /* Make the figure with this id live, by the plan; a page without it stays as it is. */
  function liveFigure(name, plan) {
    const figure = document.getElementById(name);
    const recorded = figure && [...figure.children].find((one) => one.matches('img, a, picture'));
    if (!recorded) return;
    recorded.classList.add('live-recorded');
    const live = element('div', figure, 'live');
    recorded.after(live);
    try {
      fill(figure, live, name, plan);
    } catch (fault) {  // the recorded picture is better than half a figure
      live.remove();
      figure.classList.remove('is-live');
      throw fault;
    }
  }

  root.liveFigure = liveFigure;
})(window);
