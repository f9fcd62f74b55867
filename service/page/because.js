// Why an item is recommended: the purchases and pictures that count for it, and the list without one of them.

import { notice } from "./cards.js";
import { differences } from "./compare.js";
import { el, fill, picture } from "./dom.js";
import { itemOf, learn, recommended } from "./items.js";
import { without } from "./request.js";
import { factor, title } from "./words.js";

const NUM_REASONS = 6;
const LEAST_NATS = 0.05;
const MOST_SHOWN = 3;
const STRONG_NATS = 2;

/** Asks for the reasons of a list and adds them to its cards. */
export async function addReasons(shown, signal) {
  const { body } = shown;
  if (!shown.cards.length || body.mask_images) return;
  const answer = await recommended({ ...body, attribution: NUM_REASONS }, signal).catch((error) => {
    if (error.name === "AbortError") throw error;
    return { items: [], degraded: [{ kind: "attribution_missing", detail: error.message }] };
  });
  await learn(body.domain, body.history);
  const reasons = new Map(answer.items.map((item) => [item.item_id, item.because]));
  const lack = answer.degraded.find((each) => each.kind === "attribution_missing");
  shown.answer.items.forEach((item, number) => {
    const where = shown.cards[number].querySelector(".because");
    if (reasons.get(item.item_id)) fill(where, reasonsOf(reasons.get(item.item_id), shown, signal));
    else fill(where, lack && number === 0 ? notice(lack) : null);
  });
}

/** Buttons, one for each reason. `shown` is the list that they belong to. */
function reasonsOf(reasons, shown, signal) {
  const strong = reasons.filter((reason) => reason.effect >= LEAST_NATS).slice(0, MOST_SHOWN);
  if (!strong.length) return el("p", { class: "quiet small" }, "No single purchase or picture stands out: they make the same case.");
  return [el("span", { class: "quiet small" }, "because of"), el("ul", { class: "reasons" }, strong.map((reason) => el("li", {}, button(reason, shown, signal))))];
}

function button(reason, shown, signal) {
  const { domain } = shown.body;
  const item = itemOf(domain, reason.item_id);
  const isPicture = reason.part === "image";
  const words = isPicture ? `the picture of ${title(item)}` : title(item);
  const show = () => preview(reason, shown, signal, words);
  const hide = () => endPreview(shown);
  return el(
    "button",
    {
      type: "button",
      class: isPicture ? "reason by-picture" : "reason by-item",
      "aria-label": `${words}: ${factor(reason.effect)} as likely with it. Show the list without it`,
      title: `${words}: ${factor(reason.effect)} as likely with it`,
      "--share": String(Math.min(1, reason.effect / STRONG_NATS)),
      onmouseenter: show,
      onfocus: show,
      onclick: show,
      onmouseleave: hide,
      onblur: hide,
    },
    picture(domain, item),
    el("span", { class: "kind" }, isPicture ? "picture" : "purchase"),
    el("span", { class: "factor" }, factor(reason.effect)),
  );
}

async function preview(reason, shown, signal, words) {
  shown.previewed = reason;
  const body = without(shown.body, reason);
  if (!body) {
    fill(shown.preview, el("p", {}, `Without ${words} there is no history left to ask about.`));
    return;
  }
  shown.previews ??= new Map();
  const key = `${reason.part} ${reason.item_id}`;
  if (!shown.previews.has(key)) shown.previews.set(key, recommended(body, signal));
  const answer = await shown.previews.get(key).catch(() => null);
  if (!answer) shown.previews.delete(key);
  else if (shown.previewed === reason) showPreview(answer, shown, words);
}

function showPreview(answer, shown, words) {
  const marks = differences(shown.answer.items, answer.items);
  shown.cards.forEach((card) => {
    const mark = marks.first.get(card.dataset.id);
    card.classList.toggle("would-go", mark?.kind === "gone");
    card.querySelector(".change").textContent = mark ? (mark.kind === "gone" ? "would go" : mark.words) : "";
  });
  const tile = (item) => el("li", { class: marks.second.get(item.item_id)?.kind ?? "" }, picture(answer.domain, item, { alt: title(item) }));
  fill(shown.preview, el("p", {}, `Without ${words}: `), el("ol", { class: "strip" }, answer.items.map(tile)));
}

function endPreview(shown) {
  shown.previewed = null;
  fill(shown.preview);
  for (const card of shown.cards) {
    card.classList.remove("would-go");
    card.querySelector(".change").textContent = "";
  }
}
