// What the page shows, which is also what its address says: a view can be sent to somebody. And the request that it means.

const MOST_VALUES = 12;

/** The columns that items can be filtered by. */
export let columns = [];
export const state = { ...first.read(), editing: "history" };
const listeners = [];

function address() {
  const query = new URLSearchParams();
  for (const name of first.TEXTS) if (state[name]) query.set(name, state[name]);
  for (const name of first.LISTS) for (const value of state[name]) query.append(name, value);
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
  Object.assign(state, first.read(), { editing: "history" });
  for (const listener of listeners) listener(before);
});

/** Keeps the columns of a domain that have few enough values to choose from. */
export function keepColumns(all) {
  columns = all.filter((column) => column.num_values > 1 && column.num_values <= MOST_VALUES);
}

/** The filter as the API takes it: texts of the address become the columns' own values. */
export function whereOf() {
  const typedValues = ([name, values]) => {
    const column = columns.find((each) => each.name === name);
    return [name, values.map((text) => column?.values.find((each) => String(each.value) === text)?.value ?? text)];
  };
  return Object.fromEntries(Object.entries(state.where).map(typedValues));
}

/** The body of the request for recommendations. */
export function bodyOf(history) {
  return first.bodyOf(state, history, whereOf());
}
