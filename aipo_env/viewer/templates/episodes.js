"use strict";
for (const viewer of document.querySelectorAll(".viewer")) start(viewer);

function start(viewer) {
  const items = [...viewer.querySelectorAll(".list li")];
  const articles = [...viewer.querySelectorAll("article")];
  const choices = [...viewer.querySelectorAll("select")];
  const count = viewer.querySelector("output");
  const tip = viewer.querySelector(".tip");
  let pointed = null;

  function show(chosen) {
    point(null);
    items.forEach((item, index) => {
      articles[index].hidden = item !== chosen;
      item.firstElementChild.setAttribute("aria-current", item === chosen);
    });
  }

  function filter() {
    for (const item of items)
      item.hidden = choices.some((choice) => choice.value && item.dataset[choice.name] !== choice.value);
    const left = items.filter((item) => !item.hidden);
    count.textContent = `${left.length} of ${items.length} episodes`;
    viewer.querySelector(".none").hidden = left.length > 0;
    if (!left.some((item) => item.firstElementChild.ariaCurrent === "true")) show(left[0]);
  }

  function describe(token) {
    const { id, logprob, coefficient } = token.dataset;
    const lines = [token.classList[1] + (id ? `, token ${id}` : "")];
    if (logprob) lines.push(`log-probability ${logprob} (p ${Math.exp(logprob).toPrecision(2)})`);
    if (coefficient) lines.push(`coefficient ${coefficient}`);
    return lines.join("\n");
  }

  function point(token) {
    pointed?.classList.remove("pointed");
    pointed = token;
    tip.hidden = !token;
    if (!token) return;
    token.classList.add("pointed");
    tip.textContent = describe(token);
    const origin = viewer.getBoundingClientRect();
    const place = token.getClientRects()[0] ?? token.getBoundingClientRect();
    const room = place.bottom + 6 + tip.offsetHeight < innerHeight;
    tip.style.top = `${(room ? place.bottom + 6 : place.top - 6 - tip.offsetHeight) - origin.top}px`;
    tip.style.left = `${Math.max(0, Math.min(place.left - origin.left, origin.width - tip.offsetWidth))}px`;
  }

  function step(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") point(null);
    if (!move) return;
    event.preventDefault();
    const tokens = [...event.currentTarget.querySelectorAll(".token")];
    const next = tokens[tokens.indexOf(pointed) + move] ?? tokens.at(move > 0 ? 0 : -1);
    next?.scrollIntoView({ block: "nearest" });
    point(next ?? null);
  }

  for (const item of items)
    item.firstElementChild.addEventListener("click", (event) => {
      event.preventDefault();
      show(item);
    });
  for (const choice of choices) choice.addEventListener("change", filter);
  for (const transcript of viewer.querySelectorAll(".transcript")) {
    transcript.addEventListener("keydown", step);
    transcript.addEventListener("blur", () => point(null));
    transcript.addEventListener("pointerover", (event) => point(event.target.closest(".token")));
    transcript.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
  }
  viewer.querySelector(".filters").hidden = false;
  filter();
}
