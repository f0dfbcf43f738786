const press = (at) => {
  if (!at) return;
  element.dataset.last = at.dataset.pick;
  trigger("click", { pick: at.dataset.pick });
};
element.addEventListener("click", (event) => press(event.target.closest("[data-pick]")));
element.addEventListener("keydown", (event) => {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const at = event.target.closest(".mark");
  if (at && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    press(at);
  } else if (event.key in steps && event.target.closest("svg")) {
    event.preventDefault();
    const [layer, head] = at ? at.dataset.pick.split(".").map(Number) : [0, 0];
    const [down, right] = at ? steps[event.key] : [0, 0];
    element.querySelector(`[data-pick="${layer + down}.${head + right}"]`)?.focus();
  }
});
watch("value", () => {
  const last = element.dataset.last;
  if (last) element.querySelector(`.mark[data-pick="${last}"]`)?.focus({ preventScroll: true });
});
