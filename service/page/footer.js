// What an answer cost: where the time went, and the request as a command.

import { el } from "./dom.js";
import { curlOf } from "./request.js";

const STAGES = ["plan", "features", "queue", "encode", "decode"];

export function footer(answer, body) {
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
