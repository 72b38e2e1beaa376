/* Films: where scripts run, a still gets buttons, and the film is loaded when it is asked for.

   `_images/NAME.film.js` calls bookFilm(NAME, {width, height, frames}) with frames of
   [left, top, seconds, over, clears, PNG in base 64]; `ebmbook.press.pictures` makes it. */
(function () {
  'use strict';

  const waiting = {};
  window.bookFilm = (name, film) => waiting[name](film);

  function element(kind, parent, className, given = {}) {
    const made = document.createElement(kind);
    made.className = className;
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  /* The film's frames, each whole, as canvases. */
  async function composed({ width, height, frames }) {
    const sheet = Object.assign(document.createElement('canvas'), { width, height });
    const pen = sheet.getContext('2d');
    const whole = [];
    for (const [left, top, seconds, over, clears, data] of frames) {
      const picture = new Image();
      picture.src = `data:image/png;base64,${data}`;
      await picture.decode();
      const place = [left, top, picture.naturalWidth, picture.naturalHeight];
      if (!over) pen.clearRect(...place);
      pen.drawImage(picture, left, top);
      const kept = Object.assign(document.createElement('canvas'), { width, height });
      kept.getContext('2d').drawImage(sheet, 0, 0);
      whole.push({ picture: kept, seconds });
      if (clears) pen.clearRect(...place);
    }
    return whole;
  }

  function player(still) {
    const source = still.dataset.film;
    const name = decodeURIComponent(source.split('/').pop()).replace(/\.film\.js$/, '');
    const row = document.createElement('div');
    row.className = 'film-controls';
    still.after(row);
    const button = element('button', row, '', { type: 'button' });
    button.textContent = 'Play';
    const slider = element('input', row, '',
      { type: 'range', min: 1, max: 1, step: 1, value: 1, 'aria-label': 'Frame of the film',
        disabled: '' });
    const told = element('span', row, 'film-told', { 'aria-hidden': 'true' });
    const state = element('span', row, 'film-told', { role: 'status' });

    let film = null, loading = null, canvas, timer;

    function show(k) {
      canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
      canvas.getContext('2d').drawImage(film[k].picture, 0, 0);
      slider.value = k + 1;
      slider.setAttribute('aria-valuetext', `${k + 1} of ${film.length}`);
      told.textContent = `${k + 1} / ${film.length}`;
    }
    function pause() {
      clearTimeout(timer);
      timer = undefined;
      button.textContent = 'Play';
    }
    function play(k) {
      show(k);
      button.textContent = 'Pause';
      timer = setTimeout(() => play((k + 1) % film.length), 1000 * film[k].seconds);
    }
    function load() {
      if (loading) return loading;
      state.textContent = 'loading';
      loading = new Promise((done, failed) => {
        waiting[name] = done;
        const script = element('script', document.head, '', { src: source });
        script.addEventListener('error', failed);
      }).then(async (given) => {
        film = await composed(given);
        state.textContent = '';
        canvas = document.createElement('canvas');
        Object.assign(canvas, { width: given.width, height: given.height });
        canvas.className = 'film';
        canvas.setAttribute('role', 'img');
        canvas.setAttribute('aria-label', still.alt);
        // As large as the still was told to be.
        canvas.style.width = `${still.getAttribute('width')}px`;
        slider.max = film.length;
        slider.disabled = false;
        still.hidden = true;
        still.after(canvas);
      }).catch(() => {
        loading = null;
        state.textContent = 'The film could not be loaded.';
        throw new Error(`${source}: not loaded`);
      });
      return loading;
    }

    button.addEventListener('click', () => {
      if (timer !== undefined) { pause(); return; }
      load().then(() => {
        const at = slider.valueAsNumber - 1;
        play(at === film.length - 1 ? 0 : at);
      }, () => {});
    });
    slider.addEventListener('input', () => { pause(); show(slider.valueAsNumber - 1); });
  }

  for (const still of document.querySelectorAll('img[data-film]')) player(still);
})();
