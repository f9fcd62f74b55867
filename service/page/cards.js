// An answer as a list of cards.

import { el, picture } from "./dom.js";
import { attributes, degraded, proven, title } from "./words.js";

const PICTURES_MS = 300;
const NUM_FIRST = 6; // whose pictures are loaded before the others

/** One answer, the element that shows it, and the places where more is shown later. */
export function listOf(answer, body, name = "", marks = new Map()) {
  const cards = answer.items.map((item) => card(item, answer, marks.get(item.item_id), !body.mask_images));
  const best = answer.items[0]?.score ?? 0;
  for (const [number, each] of cards.entries()) each.style.setProperty("--share", String(share(answer.items[number].score, best)));
  const numProven = Math.min(answer.exact_prefix, cards.length);
  const preview = el("div", { class: "preview", role: "status" });
  const words = proven(answer.exact_prefix, cards.length);
  const list = el("ol", { class: "cards", "data-proven": numProven }, cards);
  const element = el(
    "div",
    { class: "list" },
    name ? el("h3", {}, name) : null,
    words ? el("p", { class: "proven" }, el("span", { class: "seal", "aria-hidden": "true" }, "✓"), words) : null,
    answer.degraded.map(notice),
    preview,
    list,
  );
  cards.forEach((each, number) => each.classList.toggle("is-proven", number < numProven));
  return { answer, body, cards, element, preview };
}

/** Of log-probabilities the ratio, of probabilities the probability. */
function share(score, best) {
  return best <= 0 ? Math.exp(score - best) : score;
}

function card(item, answer, mark, hasReasons) {
  const name = title(item);
  const urgency = item.rank <= NUM_FIRST ? { loading: "eager", priority: "high" } : {};
  return el(
    "li",
    { class: mark ? `card ${mark.kind}` : "card", "data-id": item.item_id },
    el(
      "div",
      { class: "top" },
      el("div", { class: "picture" }, picture(answer.domain, item, urgency), el("span", { class: "rank", "aria-label": `Rank ${item.rank}` }, String(item.rank))),
      el(
        "div",
        { class: "about" },
        el("h4", {}, name, mark ? el("span", { class: "mark" }, mark.words) : null, el("span", { class: "change" })),
        el("p", { class: "tags" }, attributes(item).map((value) => el("span", {}, value))),
        el("p", { class: "score", title: "log-probability; the bar compares it with the best" }, el("span", { class: "meter", "aria-hidden": "true" }), `score ${item.score.toFixed(2)}`),
      ),
    ),
    el("div", { class: hasReasons ? "because" : "because none" }),
    explained(answer.domain, item),
  );
}

/** A part that opens on demand. */
function explained(domain, item) {
  const details = el("details", { class: "explain" }, el("summary", {}, "Explain"));
  const open = async () => (await import("./explain.js")).explain(details, domain, item);
  details.addEventListener("toggle", open, { once: true });
  return details;
}

export function notice(each) {
  const { words, detail } = degraded(each);
  return el("p", { class: "notice" }, words, " ", el("span", { class: "quiet" }, detail));
}

/** Resolves once the pictures of the cards in an element are on the screen, but does not wait for slow ones. */
export async function painted(element) {
  const frame = () => new Promise(requestAnimationFrame);
  const pictures = [...element.querySelectorAll(".card img[loading=eager]")].map((image) => image.decode());
  const all = Promise.allSettled(pictures).then(frame).then(frame);
  await Promise.race([all, new Promise((resolve) => setTimeout(resolve, PICTURES_MS))]);
}
