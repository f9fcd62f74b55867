// The recommendations: asked for, shown, explained and compared.

import { Problem, picture, post } from "./api.js";
import { reasonsOf } from "./because.js";
import { differences } from "./compare.js";
import { el, fill } from "./dom.js";
import { explainer } from "./explain.js";
import { keep, learn } from "./items.js";
import { PATH, bodyOf, curlOf, otherBody } from "./request.js";
import { state } from "./state.js";
import { attributes, degraded, proven, title } from "./words.js";

const NUM_REASONS = 6;
const STAGES = ["plan", "features", "queue", "encode", "decode"];

const place = document.getElementById("answers");
let request = new AbortController();

/** Asks for what the state stands for, shows it, and then asks for the reasons. */
export async function refresh() {
  request.abort();
  request = new AbortController();
  const { signal } = request;
  place.setAttribute("aria-busy", "true");
  try {
    await show(signal);
  } catch (error) {
    if (error.name !== "AbortError") fill(place, failure(error));
  } finally {
    if (!signal.aborted) place.setAttribute("aria-busy", "false");
  }
}

async function show(signal) {
  if (!state.history.length) {
    fill(place, el("p", { class: "empty panel" }, "Click some pictures: what somebody bought decides what is recommended."));
    return;
  }
  const body = bodyOf(state.history);
  const other = otherBody(body);
  const [answer, compared] = await Promise.all([ask(body, signal), other ? ask(other.body, signal).catch((error) => error) : null]);
  if (signal.aborted) return;
  if (compared instanceof Error && compared.name === "AbortError") throw compared;
  if (!other) {
    const list = listOf(answer, body);
    fill(place, list.element);
    await list.explain(signal);
    return;
  }
  if (compared instanceof Error) {
    fill(place, failure(compared), listOf(answer, body).element);
    return;
  }
  const marks = differences(answer.items, compared.items);
  const lists = [listOf(answer, body, other.names[0], marks.first), listOf(compared, other.body, other.names[1], marks.second)];
  fill(place, el("p", { class: "summary" }, marks.words), el("div", { class: "pair" }, lists.map((list) => list.element)));
  for (const list of lists) await list.explain(signal);
}

export async function ask(body, signal) {
  const startedAt = performance.now();
  const answer = await (await post(PATH, body, signal)).json();
  keep(body.domain, answer.items);
  return { ...answer, roundtrip_ms: performance.now() - startedAt };
}

function failure(error) {
  const words = error instanceof Problem ? error.message : "The service does not answer.";
  return el("p", { class: "panel problem", role: "alert" }, words);
}

/** One answer, and a function that adds the reasons to it. */
function listOf(answer, body, name = "", marks = new Map()) {
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
    footer(answer, body),
  );
  cards.forEach((each, number) => each.classList.toggle("is-proven", number < numProven));
  return { element, explain: (signal) => addReasons({ answer, body, cards, preview }, signal) };
}

/** Of log-probabilities the ratio, of probabilities the probability. */
function share(score, best) {
  return best <= 0 ? Math.exp(score - best) : score;
}

async function addReasons(shown, signal) {
  const { body } = shown;
  if (!shown.cards.length || body.mask_images) return;
  const answer = await ask({ ...body, attribution: NUM_REASONS }, signal).catch((error) => {
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

function card(item, answer, mark, hasReasons) {
  const name = title(item);
  return el(
    "li",
    { class: mark ? `card ${mark.kind}` : "card", "data-id": item.item_id },
    el(
      "div",
      { class: "top" },
      el("div", { class: "picture" }, picture(answer.domain, item, { loading: "eager" }), el("span", { class: "rank", "aria-label": `Rank ${item.rank}` }, String(item.rank))),
      el(
        "div",
        { class: "about" },
        el("h4", {}, name, mark ? el("span", { class: "mark" }, mark.words) : null, el("span", { class: "change" })),
        el("p", { class: "tags" }, attributes(item).map((value) => el("span", {}, value))),
        el("p", { class: "score", title: "log-probability; the bar compares it with the best" }, el("span", { class: "meter", "aria-hidden": "true" }), `score ${item.score.toFixed(2)}`),
      ),
    ),
    el("div", { class: hasReasons ? "because" : "because none" }),
    explainer(answer.domain, item),
  );
}

function notice(each) {
  const { words, detail } = degraded(each);
  return el("p", { class: "notice" }, words, " ", el("span", { class: "quiet" }, detail));
}

function footer(answer, body) {
  const times = answer.timings_ms;
  const known = STAGES.map((name) => [name, times[name]]);
  const rest = Math.max(0, times.total - known.reduce((sum, [, ms]) => sum + ms, 0));
  const parts = [...known, ["other", rest]];
  const bar = el("div", { class: "times", "aria-hidden": "true" });
  for (const [name, ms] of parts) bar.append(el("span", { class: `stage ${name}`, title: `${name} ${ms.toFixed(1)} ms`, "--share": String(ms / times.total) }));
  const legend = el("ul", { class: "legend" }, parts.map(([name, ms]) => el("li", { class: name }, `${name} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`)));
  const command = curlOf(body);
  const copy = el("button", { type: "button", class: "quiet", onclick: () => copied(command, copy) }, "Copy");
  return el(
    "footer",
    {},
    el("p", { class: "quiet" }, `${times.total.toFixed(0)} ms in the service, ${answer.roundtrip_ms.toFixed(0)} ms until it was here`),
    bar,
    legend,
    el("details", { class: "curl" }, el("summary", {}, "As a command"), el("div", {}, copy, el("pre", { tabindex: 0 }, command))),
    el("p", { class: "quiet small" }, `bundle ${answer.bundle.slice(0, 12)}, catalog revision ${answer.catalog_revision}, ${answer.num_beams_effective} beams, request ${answer.request_id}`),
  );
}

async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange(); // a page without TLS has no clipboard
    range.selectNodeContents(button.nextElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected: press Ctrl+C";
  }
}
