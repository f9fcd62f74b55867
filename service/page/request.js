// Requests that differ from the one that the state means, and that one as a command.

import { state } from "./state.js";

const { PATH, keys } = first;

/** What is compared with the answer, and the name of each; null if nothing is or can be. */
export function otherBody(body) {
  if (state.compare === "pictures") return { names: ["With pictures", "Without pictures"], body: { ...body, mask_images: body.history } };
  if (state.compare === "canary") return { names: ["Stable", "Canary"], body: { ...body, role: "canary" } };
  if (state.compare === "history" && state.other.length) return { names: ["History A", "History B"], body: { ...body, history: state.other } };
  return null;
}

/** The request without one item of its history, or without its picture; null if nothing would be left to ask. */
export function without(body, reason) {
  if (reason.part === "image") return { ...body, mask_images: [reason.item_id] };
  const history = body.history.filter((id) => id !== reason.item_id);
  return history.length ? { ...body, history, exclude_items: [reason.item_id] } : null;
}

/** The request as a command for a terminal. */
export function curlOf(body) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const key = keys.get() ? ' \\\n  -H "X-API-Key: $API_KEY"' : "";
  const url = new URL(PATH, document.baseURI).href;
  return `curl -s ${quoted(url)} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d ${quoted(JSON.stringify(body))}`;
}
