// The sentence that explains an item, streamed as the model writes it.

import { events, post } from "./api.js";
import { el, field, fill } from "./dom.js";
import { state } from "./state.js";
import { degraded } from "./words.js";

/** Fills an open part of a card. */
export function explain(details, domain, item) {
  const feature = el("input", { type: "text", maxlength: 512, placeholder: "colour", autocomplete: "off" });
  const stars = el("select", {}, el("option", { value: "" }, "none"), [1, 2, 3, 4, 5].map((number) => el("option", { value: number }, "★".repeat(number))));
  const text = el("p", { class: "sentence", "aria-live": "polite" });
  let request = new AbortController();

  async function run(event) {
    event?.preventDefault();
    request.abort();
    request = new AbortController();
    try {
      await stream(requestOf(domain, item, feature.value.trim(), stars.value), text, request.signal);
    } catch (error) {
      if (error.name !== "AbortError") fill(text, error.message);
    }
  }

  const form = el("form", { onsubmit: run }, field("About", feature), field("Stars", stars), el("button", {}, "Explain again"));
  details.append(text, form);
  run();
}

function requestOf(domain, item, feature, stars) {
  const body = { domain, item_id: item.item_id, stream: true };
  if (state.user) body.user_id = state.user;
  if (state.name) body.user_name = state.name;
  if (feature) body.feature = feature;
  if (stars) body.star_rating = Number(stars);
  return body;
}

async function stream(body, place, signal) {
  fill(place, el("span", { class: "quiet" }, "…"));
  let text = "";
  for await (const { event, data } of events(await post("explain", body, signal))) {
    if (event === "error") throw new Error(data.detail);
    if (event === "token") text += data.text;
    if (event === "done") fill(place, el("q", {}, data.text), data.degraded.filter(({ kind }) => kind !== "anonymous_user").map((each) => el("span", { class: "quiet small" }, ` ${degraded(each).words}`)));
    else fill(place, el("q", {}, text));
  }
}
