// The recommendations: asked for, shown, explained and compared.

import { Problem } from "./api.js";
import { addReasons } from "./because.js";
import { listOf, painted } from "./cards.js";
import { differences } from "./compare.js";
import { el, fill } from "./dom.js";
import { footer } from "./footer.js";
import { keep, recommended } from "./items.js";
import { otherBody } from "./request.js";
import { bodyOf, state } from "./state.js";

const place = document.getElementById("answers");
let request = new AbortController();

/** Asks for what the state stands for, shows it, and then asks for the reasons. `firstList` is shown already, if there is one. */
export async function refresh(firstList = null) {
  request.abort();
  request = new AbortController();
  const { signal } = request;
  place.setAttribute("aria-busy", "true");
  try {
    const list = await firstList;
    if (list) keep(list.body.domain, list.answer.items);
    await complete(list ? [list] : await show(signal), signal);
  } catch (error) {
    if (error.name !== "AbortError") fill(place, failure(error));
  } finally {
    if (!signal.aborted) place.setAttribute("aria-busy", "false");
  }
}

/** Shows one list, two that are compared, or none. */
async function show(signal) {
  if (!state.history.length) {
    first.take(null); // what is on its way is no longer asked for
    fill(place, el("p", { class: "empty panel" }, "Click some pictures: what somebody bought decides what is recommended."));
    return [];
  }
  const body = bodyOf(state.history);
  const other = otherBody(body);
  const [answer, compared] = await Promise.all([recommended(body, signal), other ? recommended(other.body, signal).catch((error) => error) : null]);
  signal.throwIfAborted();
  if (compared instanceof Error && compared.name === "AbortError") throw compared;
  const lists = other && !(compared instanceof Error) ? showPair(answer, body, compared, other) : showOne(answer, body, compared);
  await painted(place);
  return lists;
}

function showOne(answer, body, problem) {
  const list = listOf(answer, body);
  fill(place, problem ? failure(problem) : null, list.element);
  return [list];
}

function showPair(answer, body, compared, other) {
  const marks = differences(answer.items, compared.items);
  const lists = [listOf(answer, body, other.names[0], marks.first), listOf(compared, other.body, other.names[1], marks.second)];
  fill(place, el("p", { class: "summary" }, marks.words), el("div", { class: "pair" }, lists.map((list) => list.element)));
  return lists;
}

/** Adds what each answer cost, and the reasons. */
async function complete(lists, signal) {
  for (const list of lists) list.element.append(footer(list.answer, list.body));
  for (const list of lists) await addReasons(list, signal);
}

function failure(error) {
  const words = error instanceof Problem ? error.message : "The service does not answer.";
  return el("p", { class: "panel problem", role: "alert" }, words);
}
