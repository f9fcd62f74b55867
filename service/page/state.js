// What the page shows, which is also what its address says: a view can be sent to somebody.

const LISTS = ["history", "other"];
const TEXTS = ["domain", "user", "name", "q", "k", "beams", "template", "compare"];

export const state = { ...empty(), editing: "history" };
const listeners = [];

function empty() {
  const texts = Object.fromEntries(TEXTS.map((name) => [name, ""]));
  return { ...texts, history: [], other: [], where: {}, certified: false };
}

/** Reads the address. */
export function read() {
  const query = new URLSearchParams(location.search);
  const found = empty();
  for (const name of TEXTS) found[name] = query.get(name) ?? "";
  for (const name of LISTS) found[name] = query.getAll(name);
  found.certified = query.get("certified") === "1";
  for (const [name, value] of query) {
    if (name.startsWith("where.")) (found.where[name.slice(6)] ??= []).push(value);
  }
  Object.assign(state, found, { editing: "history" });
}

function address() {
  const query = new URLSearchParams();
  for (const name of TEXTS) if (state[name]) query.set(name, state[name]);
  for (const name of LISTS) for (const value of state[name]) query.append(name, value);
  if (state.certified) query.set("certified", "1");
  for (const [name, values] of Object.entries(state.where)) for (const value of values) query.append(`where.${name}`, value);
  return `${location.pathname}?${query}`;
}

/** Changes the state; `isStep` makes it a step that the browser's back button undoes. */
export function change(changes, isStep = true) {
  const before = { ...state };
  Object.assign(state, changes);
  history[isStep ? "pushState" : "replaceState"](null, "", address());
  for (const listener of listeners) listener(before);
}

/** Changes the state and the address before anything shows them. */
export function amend(changes) {
  Object.assign(state, changes);
  history.replaceState(null, "", address());
}

/** Calls `listener` with the state before each change. */
export function onChange(listener) {
  listeners.push(listener);
}

addEventListener("popstate", () => {
  const before = { ...state };
  read();
  for (const listener of listeners) listener(before);
});
