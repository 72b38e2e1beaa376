// The ledger's filter. Without it the page is a table with everything in it.
(function () {
  "use strict";
  var form = document.querySelector(".ledger-filter");
  if (!form) return;
  var FIELDS = ["verdict", "section", "chapter"];
  var told = form.querySelector("[role=status]");
  var rows = Array.prototype.map.call(document.querySelectorAll("tbody.claim"), function (row) {
    return {
      node: row,
      paper: row.id.indexOf("paper-") === 0,
      section: row.closest("section"),
      // Taken before formulas are drawn, so that one can look for what one would type.
      words: (row.dataset.words + " " + row.textContent).toLowerCase().replace(/\s+/g, " ")
    };
  });

  // Most formulas are in proofs that nobody opens: those are drawn when one is opened.
  var LATER = "math-later";
  function swap(node, from, to) {
    Array.prototype.forEach.call(node.querySelectorAll("." + from), function (formula) {
      formula.classList.replace(from, to);
    });
  }
  Array.prototype.forEach.call(document.querySelectorAll(".claim details"), function (proof) {
    swap(proof, "math", LATER);
    proof.addEventListener("toggle", function () {
      if (!proof.open || !proof.querySelector("." + LATER)) return;
      swap(proof, LATER, "math");
      var startup = window.MathJax && window.MathJax.startup;
      if (startup && startup.promise) {
        startup.promise.then(function () { return window.MathJax.typesetPromise([proof]); });
      }
    });
  });

  function matches(row) {
    var kept = FIELDS.every(function (name) {
      var wanted = form.elements[name].value;
      var got = row.node.dataset[name];
      // A section of the report has those below it.
      return !wanted || got === wanted || (name === "section" && got.indexOf(wanted + ".") === 0);
    });
    return kept && form.elements.q.value.toLowerCase().split(/\s+/).every(function (word) {
      return row.words.indexOf(word) >= 0;
    });
  }

  function show() {
    var ours = 0, papers = 0, shown = new Set();
    rows.forEach(function (row) {
      row.node.hidden = !matches(row);
      if (row.node.hidden) return;
      shown.add(row.section);
      if (row.paper) papers += 1; else ours += 1;
    });
    rows.forEach(function (row) { row.section.hidden = !shown.has(row.section); });
    var of = rows.filter(function (row) { return !row.paper; }).length;
    told.textContent = ours + " of " + of + " claims of the report and " + papers + " of " +
      (rows.length - of) + " of the papers shown.";
  }

  function remember() {
    var asked = new URLSearchParams();
    FIELDS.concat("q").forEach(function (name) {
      var value = form.elements[name].value.trim();
      if (value) asked.set(name, value);
    });
    var query = asked.toString();
    // A browser may forbid it for a file; the filter works all the same.
    try {
      history.replaceState(null, "", (query ? "?" + query : location.pathname) + location.hash);
    } catch (error) { return; }
  }

  // A row that is linked to is shown, and open.
  function reveal() {
    var row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row || !row.classList.contains("claim")) return;
    if (row.hidden) { form.reset(); show(); remember(); }
    var proof = row.querySelector("details");
    if (proof) proof.open = true;
    row.scrollIntoView({ behavior: "instant" });
  }

  // Formulas that are drawn above a row move it: go there once more, unless the reader has gone on.
  var gone = false;
  ["wheel", "touchstart", "keydown", "mousedown"].forEach(function (kind) {
    window.addEventListener(kind, function () { gone = true; }, { once: true, passive: true });
  });
  window.addEventListener("load", function () {
    var drawn = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    if (drawn) drawn.then(function () { if (!gone) reveal(); });
  });

  var asked = new URLSearchParams(location.search);
  FIELDS.concat("q").forEach(function (name) {
    form.elements[name].value = asked.get(name) || "";
    if (form.elements[name].selectedIndex === -1) form.elements[name].value = "";
  });
  form.hidden = false;
  form.addEventListener("input", function () { show(); remember(); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(function () { show(); remember(); }); });
  window.addEventListener("hashchange", reveal);
  show();
  reveal();
})();
