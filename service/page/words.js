// What the service says in names and numbers, in words.

const DEGRADED = {
  anonymous_user: "No customer is named, so the model answers as it would to a stranger.",
  attribution_missing: "The reasons are missing: time did not suffice.",
  beams_reduced: "The search was narrower than usual, because many requests are waiting.",
  missing_features: "Some pictures are missing: the model did not see them.",
  no_eligible_items: "No item fits these filters.",
  prompt_truncated: "The history is too long: the model read only its beginning.",
  unknown_items: "Some items are not in the catalog and were left out.",
  unknown_user: "This customer is not known, so the model treats them as a stranger.",
  untrained_model: "This model was never trained; what it says means nothing.",
};

export function degraded({ kind, detail }) {
  return { words: DEGRADED[kind] ?? kind, detail };
}

export function proven(numProven, numItems) {
  if (!numItems) return "";
  if (numProven >= numItems) return numItems === 1 ? "Proven to be the true best." : `All ${numItems} are proven to be the true top.`;
  if (!numProven) return "None of these is proven to be the true best; “certified” searches until they are.";
  return numProven === 1 ? "The first is proven to be the true best." : `The first ${numProven} are proven to be the true top.`;
}

/** An effect in nats as a factor. */
export function factor(nats) {
  const value = Math.exp(nats);
  return `×${value < 10 ? value.toFixed(1) : Math.round(value)}`;
}

export function attributes(item) {
  const values = Object.entries(item.attributes).filter(([name]) => name !== "category");
  const words = values.flatMap(([, value]) => value ?? []).filter((value) => typeof value === "string");
  return [...new Set(words)]; // a tag may repeat another column
}

export function title(item) {
  return item.title ?? item.item_id;
}
