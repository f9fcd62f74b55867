// The page: which domain, what was bought, what is recommended.

import { get, keys } from "./api.js";
import { refresh } from "./answer.js";
import { showBasket } from "./basket.js";
import { openDomain, showBrowse } from "./browse.js";
import { el, fill } from "./dom.js";
import { learn } from "./items.js";
import { alertOf, askForKey } from "./key.js";
import { showOptions } from "./options.js";
import { amend, change, onChange, read, state } from "./state.js";

const ANSWERING = ["domain", "user", "name", "k", "beams", "template", "compare", "history", "other", "where", "certified"];

let domains = [];

async function start() {
  read();
  const about = await get("page/about.json");
  const links = [["docs", "API"], ...(about.has_status ? [["status", "Status"], ["metrics", "Metrics"]] : [])];
  fill(document.getElementById("links"), links.map(([url, name]) => el("a", { href: url }, name)));
  if (about.needs_key && !keys.get()) return askForKey(retry);
  return open();
}

async function open() {
  ({ domains } = await get("domains"));
  if (!domains.length) throw new Error("No domain is served, or the key may use none.");
  if (!domains.some((each) => each.name === state.domain)) amend({ domain: domains[0].name });
  // The answer need not wait for the shop, unless filters have to be read as the columns' values.
  const isKnown = state.history.length > 0 && !Object.keys(state.where).length;
  if (isKnown) refresh();
  await openedDomain();
  await show(null, !isKnown);
}

/** A first visitor sees a customer's purchases instead of an empty page. */
async function openedDomain() {
  const histories = await openDomain(state.domain);
  if (!state.history.length && histories.length) {
    amend({ history: [...histories[0].history], user: histories[0].user_id });
  }
}

async function update(before) {
  if (before.domain !== state.domain) {
    await openedDomain();
    return show(null, true);
  }
  return show(before, ANSWERING.some((name) => JSON.stringify(before[name]) !== JSON.stringify(state[name])));
}

async function show(before, asks) {
  showDomains();
  showBasket();
  showBrowse(before);
  showOptions(domains.find((each) => each.name === state.domain));
  if (asks) refresh();
  await learn(state.domain, [...state.history, ...state.other]);
  showBasket();
}

function showDomains() {
  const choose = (name) => change({ domain: name, history: [], other: [], where: {}, q: "", user: "", name: "", template: "", compare: "" });
  fill(
    document.getElementById("domains"),
    domains.map(({ name }) => el("button", { type: "button", "data-key": `domain-${name}`, "aria-pressed": String(name === state.domain), onclick: () => name !== state.domain && choose(name) }, name)),
  );
}

function retry() {
  open().catch(failed);
}

function failed(error) {
  if (error.status === 401) {
    keys.set("");
    askForKey(retry);
  }
  alertOf(error.message);
}

onChange((before) => update(before).catch(failed));
start().catch(failed);
