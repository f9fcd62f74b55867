// Items by id, fetched once and kept.

import { get } from "./api.js";

const known = new Map();
const key = (domain, id) => `${domain} ${id}`;

export function keep(domain, items) {
  for (const item of items) known.set(key(domain, item.item_id), item);
}

/** The item, or what is known of it before it has been fetched. */
export function itemOf(domain, id) {
  return known.get(key(domain, id)) ?? { item_id: id, title: null, image: "?", attributes: {} };
}

/** Fetches items that are not known. */
export async function learn(domain, ids) {
  const missing = [...new Set(ids)].filter((id) => !known.has(key(domain, id)));
  await Promise.all(
    missing.slice(0, 50).map(async (id) => {
      const url = `domains/${encodeURIComponent(domain)}/items/${encodeURIComponent(id)}`;
      keep(domain, [await get(url).catch(() => ({ item_id: id, title: id, image: null, attributes: {} }))]);
    }),
  );
}
