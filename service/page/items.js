// Items by id, fetched once and kept.

import { Problem, get } from "./api.js";

const MOST = 200;
const known = new Map();
const key = (domain, id) => `${domain} ${id}`;

export function keep(domain, items) {
  for (const item of items) known.set(key(domain, item.item_id), item);
}

/** The item, or what is known of it before it has been fetched. */
export function itemOf(domain, id) {
  return known.get(key(domain, id)) ?? { item_id: id, title: null, image: null, attributes: {} };
}

/** The answer to a request, whose items are kept. */
export async function recommended(body, signal) {
  const { status, content, ms } = await (first.take(body) ?? first.asked(body, signal));
  if (status !== 200) throw new Problem(status, content);
  keep(body.domain, content.items);
  return { ...content, roundtrip_ms: ms };
}

/** Fetches items that are not known. */
export async function learn(domain, ids) {
  const missing = [...new Set(ids)].filter((id) => !known.has(key(domain, id))).slice(0, MOST);
  if (!missing.length) return;
  const query = new URLSearchParams([["limit", MOST], ...missing.map((id) => ["item_id", id])]);
  const { items } = await get(`domains/${encodeURIComponent(domain)}/items?${query}`);
  keep(domain, missing.map((id) => ({ item_id: id, title: id, image: null, attributes: {} })));
  keep(domain, items);
}
