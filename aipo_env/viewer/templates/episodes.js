"use strict";
for (const viewer of document.querySelectorAll(".viewer")) start(viewer);
for (const box of document.querySelectorAll(".scroll")) hintAt(box);

// A table that is wider than the screen says so.
function hintAt(box) {
  const hint = box.previousElementSibling;
  const look = () => (hint.hidden = box.scrollWidth <= box.clientWidth);
  new ResizeObserver(look).observe(box);
  look();
}

function start(viewer) {
  const items = [...viewer.querySelectorAll(".list li")];
  const articles = [...viewer.querySelectorAll("article")];
  const choices = [...viewer.querySelectorAll("select[name]")];
  const order = viewer.querySelector(".sort");
  const search = viewer.querySelector("input");
  const count = viewer.querySelector("output");
  const tip = viewer.querySelector(".tip");
  const article = new Map(items.map((item, index) => [item, articles[index]]));
  const words = new Map();
  let sorted = items;
  let current = null;
  let pointed = null;

  function show(chosen) {
    point(null);
    current = chosen ?? null;
    for (const item of items) {
      article.get(item).hidden = item !== chosen;
      item.firstElementChild.setAttribute("aria-current", item === chosen);
    }
  }

  // The words of all episodes are gathered when somebody first looks for some.
  function wordsOf(item) {
    if (!words.has(item)) words.set(item, article.get(item).textContent.toLowerCase());
    return words.get(item);
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const item of items)
      item.hidden =
        choices.some((choice) => choice.value && item.dataset[choice.name] !== choice.value) ||
        (wanted !== "" && !wordsOf(item).includes(wanted));
    const left = sorted.filter((item) => !item.hidden);
    count.textContent = `${left.length} of ${items.length} episodes`;
    viewer.querySelector(".none").hidden = left.length > 0;
    if (!left.includes(current)) show(left[0]);
  }

  function sort() {
    const name = order.value;
    const value = (item) => item.firstElementChild.dataset[name];
    // What has no value comes last; numbers fall, names rise.
    const compare = (one, other) => {
      const [first, second] = [value(one), value(other)];
      if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
      return name === "task" ? first.localeCompare(second, undefined, { numeric: true }) : second - first;
    };
    sorted = name ? [...items].sort(compare) : items;
    viewer.querySelector(".list ol").append(...sorted);
    filter();
  }

  function move(event) {
    const by = { j: 1, k: -1 }[event.key];
    const isTyping = event.target.closest?.("input, select, textarea");
    if (!by || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const left = sorted.filter((item) => !item.hidden);
    const next = left[left.indexOf(current) + by];
    if (!next) return;
    show(next);
    next.scrollIntoView({ block: "nearest" });
  }

  function describe(token) {
    const { id, logprob, coefficient } = token.dataset;
    const lines = [token.classList[1] + (id ? `, token ${id}` : "")];
    if (logprob) lines.push(`log-probability ${logprob} (p ${Math.exp(logprob).toPrecision(2)})`);
    if (coefficient) lines.push(`coefficient ${coefficient}`);
    if (token.classList.contains("part")) lines.push("a part of the character that a later token completes");
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
  order.addEventListener("change", sort);
  search.addEventListener("input", filter);
  document.addEventListener("keydown", move);
  for (const transcript of viewer.querySelectorAll(".transcript")) {
    transcript.addEventListener("keydown", step);
    transcript.addEventListener("blur", () => point(null));
    transcript.addEventListener("pointerover", (event) => point(event.target.closest(".token")));
    transcript.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
  }
  viewer.querySelector(".filters").hidden = false;
  filter();
}
