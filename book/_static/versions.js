// A choice of versions beside the title, where the page lies in the folder of one: `v1.0/` or
// `latest/` of a site whose first folder has a `versions.json`. Elsewhere, and from the disk,
// nothing is asked for and nothing is shown.
"use strict";

// The folders above the page's version, the version, and the page within it; null for none.
function placeOf(path) {
  const found = /^(.*?\/)(latest|v\d[^/]*)\/(.*)$/.exec(path);
  return found && { root: found[1], version: found[2], page: found[3] };
}

// What can be chosen: [folder, what it is called], the newest first.
function choices(told) {
  return [["latest", `latest (${told.latest})`], ...told.versions.map((one) => [one, one])];
}

async function offer(place) {
  const answer = await fetch(`${place.root}versions.json`);
  if (!answer.ok) return;
  const told = await answer.json();
  const choice = document.createElement("select");
  choice.className = "version-switch";
  choice.setAttribute("aria-label", "Version of the book");
  for (const [folder, name] of choices(told)) {
    choice.add(new Option(name, folder, false, folder === place.version));
  }
  choice.addEventListener("change", async () => {
    const folder = `${place.root}${choice.value}/`;
    // Not every version has every page.
    const there = await fetch(folder + place.page, { method: "HEAD" }).catch(() => null);
    location.href = there && there.ok ? folder + place.page + location.hash : folder;
  });
  const title = document.querySelector(".navbar-brand");
  if (title) title.after(choice);
}

if (typeof module !== "undefined") {
  module.exports = { placeOf, choices };
} else if (/^https?:$/.test(location.protocol)) {
  const place = placeOf(location.pathname);
  if (place) addEventListener("DOMContentLoaded", () => offer(place).catch(() => {}));
}
