"use strict";
// The examples of a report: filters, cards, and a dialog with one example. All data is set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const grid = document.getElementById("cards");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const dialog = document.getElementById("example");
  const PAGE = 48;
  let shown = [], limit = PAGE, open = 0;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function picture(source, alt) {
    const inside = source ? element("img", { src: source, alt, loading: "lazy" }) : "image not available";
    return element("div", { class: "picture" }, inside);
  }

  function options(name, values, all) {
    const select = form.elements[name], before = select.value;
    select.replaceChildren(...(all ? [element("option", { value: "" }, all)] : []),
      ...values.map((value) => element("option", { value }, value)));
    if ([...select.options].some((option) => option.value === before)) select.value = before;
  }

  const distinct = (values) => [...new Set(values)];
  const number = (value) => (value === null ? "" : value.toFixed(3));
  const verdict = (correct) => element("span", { class: correct ? "right" : "wrong" }, correct ? "correct" : "wrong");
  const result = (card) => card.models[form.elements.model.value];

  function fill() {
    options("dataset", distinct(data.cards.map((card) => card.dataset)), "all");
    options("model", distinct(data.cards.flatMap((card) => Object.keys(card.models))));
    options("case", data.cases.filter((name) =>
      data.cards.some((card) => Object.values(card.models).some((one) => one.cases.includes(name)))), "all");
    classes();
  }

  function classes() {
    const dataset = form.elements.dataset.value;
    const mine = data.cards.filter((card) => !dataset || card.dataset === dataset);
    options("label", distinct(mine.map((card) => card.label)).sort(), "all");
  }

  function filter() {
    const { dataset, label, case: kind } = Object.fromEntries(new FormData(form));
    shown = data.cards.filter((card) => result(card)
      && (!dataset || card.dataset === dataset)
      && (!label || card.label === label)
      && (!kind || result(card).cases.includes(kind)));
    limit = PAGE;
    draw();
  }

  function draw() {
    grid.replaceChildren(...shown.slice(0, limit).map((card, place) => {
      const button = element("button", { type: "button" }, ...small(card));
      button.addEventListener("click", () => show(place));
      return element("li", {}, button);
    }));
    more.hidden = shown.length <= limit;
    count.textContent = shown.length === 1 ? "1 image" : `${shown.length} images`;
  }

  function small(card) {
    const one = result(card);
    const top = (modality, best) => best
      ? element("span", { class: "row" }, element("span", {}, `${modality}: ${best[0]}`), element("span", {}, number(best[1])))
      : element("span", {}, `${modality}: none`);
    const prediction = one.predictions.find((row) => row[0] === data.method);
    return [
      picture(card.image, `Test image ${card.uri}`),
      element("b", {}, card.label),
      top("image", one.image[0]),
      top("captions", one.text[0]),
      prediction ? element("span", { class: "row" },
        element("span", {}, `${data.method}: ${prediction[2] ?? "no prediction"}`), verdict(prediction[4])) : null,
    ];
  }

  function bars(title, scores, label, colour) {
    const rows = scores.map(([name, p]) => {
      const bar = element("i");
      bar.style.width = `${100 * p}%`;
      bar.style.background = `var(--${colour})`;
      return element("div", { class: name === label ? "bar is" : "bar" },
        element("span", {}, name), element("div", {}, bar), element("span", {}, number(p)));
    });
    return element("section", {}, element("h3", {}, title), ...(rows.length ? rows : ["No captions were retrieved."]));
  }

  function predictions(one) {
    const head = element("tr", {}, ...["method", "prediction", "", "probability", "M"].map((name) => element("th", { scope: "col" }, name)));
    const rows = one.predictions.map(([method, m, name, p, correct]) => element("tr", {},
      element("td", {}, method), element("td", {}, name ?? "no prediction"), element("td", {}, verdict(correct)),
      element("td", { class: "n" }, number(p)), element("td", {}, m === null ? "" : String(m))));
    return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  }

  function captions(card) {
    return [
      element("h3", {}, `The best ${card.captions.length} captions`),
      element("ul", { class: "captions" }, ...card.captions.map(([id, similarity, text]) => element("li", {},
        picture(data.pictures[id], `Memory image ${id}`), text, element("br"),
        element("span", { class: "dim" }, `similarity ${number(similarity)}, memory_id ${id}`)))),
    ];
  }

  function show(place) {
    open = place;
    const card = shown[place], one = result(card);
    const step = (text, by) => {
      const button = element("button", { type: "button" }, text);
      button.disabled = !shown[open + by];
      button.addEventListener("click", () => show(open + by));
      return button;
    };
    const close = element("button", { type: "button" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const weights = one.weights ? `Weights: image ${number(one.weights[0])}, captions ${number(one.weights[1])}.` : "";
    dialog.replaceChildren(
      element("div", { class: "top" }, step("← Previous", -1), step("Next →", 1),
        element("span", { class: "dim" }, `${place + 1} of ${shown.length}`), close),
      element("div", { class: "head" },
        picture(card.image, `Test image ${card.uri}`),
        element("div", {}, element("h2", { id: "example-title" }, card.label),
          element("p", { class: "note" }, `${card.dataset}, query ${card.id}, ${card.uri}; model ${form.elements.model.value}. ${one.cases.join("; ")}`),
          element("p", {}, weights))),
      element("div", { class: "pair" },
        bars("Image scores", one.image, card.label, "image"),
        ...(data.memory ? [bars("Text scores", one.text, card.label, "text")] : [])),
      element("h3", {}, "Predictions"), element("div", { class: "wide" }, predictions(one)),
      ...(data.memory ? captions(card) : []));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    dialog.focus();
  }

  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && shown[open + by]) { event.preventDefault(); show(open + by); }
  });
  dialog.addEventListener("close", () => {
    if (open >= limit) { limit = open + 1; draw(); }
    grid.children[open]?.firstElementChild.focus();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => { classes(); filter(); });
  form.addEventListener("reset", () => setTimeout(() => { classes(); filter(); }));
  more.addEventListener("click", () => {
    const first = limit;
    limit += PAGE;
    draw();
    grid.children[first]?.firstElementChild.focus();
  });
  fill();
  filter();
})();
