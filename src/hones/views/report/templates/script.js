"use strict";
(() => {
  const root = document.documentElement;
  const button = document.querySelector("button.theme");
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => (button.textContent = dark() ? "Light" : "Dark");
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  const say = (mark) => {
    const readout = mark.closest("figure").querySelector(".readout");
    readout.textContent = mark.getAttribute("aria-label");
  };
  for (const kind of ["pointerover", "focusin"])
    document.addEventListener(kind, (event) => {
      const mark = event.target.closest && event.target.closest(".mark");
      if (mark) say(mark);
    });

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  document.addEventListener("keydown", (event) => {
    const chart = event.target.closest && event.target.closest("svg.chart");
    const way = ways[event.key];
    if (!chart || !way) return;
    event.preventDefault();
    const marks = [...chart.querySelectorAll(".mark")];
    const now = event.target.closest(".mark");
    if (!now) { if (marks.length) marks[0].focus(); return; }
    const [x, y] = centre(now);
    let best = null, least = Infinity;
    for (const mark of marks) {
      const [u, v] = centre(mark);
      const along = (u - x) * way[0] + (v - y) * way[1];
      const across = Math.abs((u - x) * way[1]) + Math.abs((v - y) * way[0]);
      if (mark !== now && along > 0.5 && along + 3 * across < least) { best = mark; least = along + 3 * across; }
    }
    if (best) best.focus();
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details[data-print]:not([open]), details.long:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
})();
