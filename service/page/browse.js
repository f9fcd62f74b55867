// Finding items: by title, by attributes, or as a known customer's purchases.

import { get } from "./api.js";
import { add } from "./basket.js";
import { delayed, el, field, fill, picture } from "./dom.js";
import { keep } from "./items.js";
import { change, columns, keepColumns, state, whereOf } from "./state.js";
import { attributes, title } from "./words.js";

const PAGE = 24;

const place = document.getElementById("browse");
const search = el("input", { type: "search", placeholder: "Title or id", autocomplete: "off", oninput: () => typed() });
const customers = el("select", { name: "customer", onchange: () => take() });
const filters = el("div", { class: "filters" });
const filtersPart = el("details", { open: matchMedia("(min-width: 60rem)").matches }, el("summary", {}, "Filters, also of what is recommended"), filters);
const found = el("p", { class: "quiet", role: "status" });
const grid = el("ul", { class: "grid" });
const next = el("button", { type: "button", onclick: () => list(shownItems) }, "Show more");
const customersField = field("Customer", customers);
fill(place, el("div", { class: "fields" }, field("Search", search), customersField), filtersPart, found, grid, next);

let histories = [];
let shownItems = 0;
let request = new AbortController();
const typed = delayed(() => change({ q: search.value.trim() }, false), 200);

/** Shows another domain. Returns the histories of its customers; null if a third one was chosen meanwhile. */
export async function openDomain(domain) {
  const url = `domains/${encodeURIComponent(domain)}`;
  const none = () => ({ customers: [] });
  const [columnsAnswer, customersAnswer] = await Promise.all([
    get(`${url}/columns`),
    get(`page/customers/${encodeURIComponent(domain)}`).catch(none),
  ]);
  if (domain !== state.domain) return null;
  keepColumns(columnsAnswer.columns);
  histories = customersAnswer.customers;
  customersField.hidden = !histories.length;
  const options = histories.map((each, number) => el("option", { value: number }, `${each.user_id} (${each.history.length} items)`));
  fill(customers, el("option", { value: "" }, "choose one …"), options);
  return histories;
}

export function showBrowse(before) {
  search.value = document.activeElement === search ? search.value : state.q;
  const chosen = histories.findIndex((each) => each.user_id === state.user);
  customers.value = chosen < 0 ? "" : String(chosen);
  fill(filters, columns.map(filterOf));
  const isSame = before && before.domain === state.domain && before.q === state.q && JSON.stringify(before.where) === JSON.stringify(state.where);
  if (!isSame) list(0);
}

/** Filters apply to the items that are shown, and to what is recommended. */
function filterOf(column) {
  const values = [...column.values].sort((a, b) => (String(a.value) < String(b.value) ? -1 : 1));
  const select = el("select", { name: `filter-${column.name}`, "data-key": `filter-${column.name}`, onchange: () => choose(column.name, select.value) }, el("option", { value: "" }, "any"));
  for (const { value } of values) select.append(el("option", { value: String(value) }, String(value)));
  select.value = state.where[column.name]?.[0] ?? "";
  return field(column.name, select);
}

function choose(name, value) {
  const where = { ...state.where };
  delete where[name];
  if (value) where[name] = [value];
  change({ where });
}

function take() {
  const chosen = histories[Number(customers.value)];
  if (customers.value && chosen) change({ user: chosen.user_id, [state.editing]: [...chosen.history] });
}

function list(offset) {
  load(offset).catch(() => fill(found, "The items could not be loaded."));
}

async function load(offset) {
  request.abort();
  request = new AbortController();
  const { domain } = state;
  const where = Object.keys(state.where).length ? JSON.stringify(whereOf()) : "";
  const query = { q: state.q, where, offset, limit: PAGE };
  let page;
  try {
    page = await get(`domains/${encodeURIComponent(domain)}/items`, query, request.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    throw error;
  }
  keep(domain, page.items);
  if (!offset) grid.replaceChildren();
  grid.append(...page.items.map(tile));
  shownItems = offset + page.items.length;
  fill(found, `${page.total} ${page.total === 1 ? "item" : "items"}`);
  next.hidden = shownItems >= page.total;
}

function tile(item) {
  const name = title(item);
  const about = attributes(item).join(", ");
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", class: "tile", title: `${name}: ${about}`, "aria-label": `Add ${name}, ${about}`, onclick: () => add(item.item_id) },
      picture(state.domain, item),
      el("span", { class: "name" }, name),
    ),
  );
}
