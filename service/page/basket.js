// The history, or the two histories that are compared.

import { el, fill, picture } from "./dom.js";
import { itemOf } from "./items.js";
import { change, state } from "./state.js";
import { title } from "./words.js";

const basket = document.getElementById("basket");

export function add(id) {
  const list = state[state.editing];
  change({ [state.editing]: [...list, id] });
}

function remove(list, place) {
  change({ [list]: state[list].filter((_, each) => each !== place) });
}

export function showBasket() {
  const lists = state.compare === "history" ? ["history", "other"] : ["history"];
  fill(basket, lists.map((list, number) => shown(list, lists.length > 1 ? `History ${"AB"[number]}` : "Bought so far")));
}

function shown(list, heading) {
  const ids = state[list];
  const isEdited = state.editing === list;
  const several = state.compare === "history";
  return el(
    "div",
    { class: several && isEdited ? "history edited" : "history" },
    el(
      "div",
      { class: "bar" },
      el("h2", {}, heading),
      several
        ? el("button", { type: "button", class: "quiet", "data-key": `edit-${list}`, "aria-pressed": String(isEdited), onclick: () => change({ editing: list }, false) }, isEdited ? "adding here" : "add here")
        : null,
      ids.length ? el("button", { type: "button", class: "quiet", "data-key": `empty-${list}`, onclick: () => change({ [list]: [] }) }, "Empty") : null,
    ),
    ids.length
      ? el("ol", { class: "strip" }, ids.map((id, place) => entry(list, id, place)))
      : el("p", { class: "quiet" }, "Nothing yet. Click pictures below, or take a customer’s purchases."),
  );
}

function entry(list, id, place) {
  const item = itemOf(state.domain, id);
  const name = title(item);
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", class: "tile small", title: `${name}: remove`, "aria-label": `Remove ${name}`, "data-key": `${list}-${place}`, onclick: () => remove(list, place) },
      picture(state.domain, item),
      el("span", { class: "cross", "aria-hidden": "true" }, "×"),
    ),
  );
}
