// All around the recommendations: which domain, what was bought, what could be, and the options.

import { get } from "./api.js";
import { refresh } from "./answer.js";
import { showBasket } from "./basket.js";
import { openDomain, showBrowse } from "./browse.js";
import { el, fill } from "./dom.js";
import { learn } from "./items.js";
import { alertOf, askForKey } from "./key.js";
import { showOptions } from "./options.js";
import { amend, change, onChange, state } from "./state.js";

const { about, keys } = first;
const ANSWERING = ["domain", "user", "name", "k", "beams", "template", "compare", "history", "other", "where", "certified"];

let domains = [];

/** Opens the shop. `firstList` is, or becomes, the list that is shown already. */
export function open(firstList) {
  const links = [["docs", "API"], ...(about.has_status ? [["status", "Status"], ["metrics", "Metrics"]] : [])];
  fill(document.getElementById("links"), links.map(([url, name]) => el("a", { href: url }, name)));
  onChange((before) => update(before).catch(failed));
  if (about.needs_key && !keys.get()) askForKey(retry);
  else load(firstList).catch(failed);
}

async function load(firstList) {
  showBasket();
  const isAsked = first.isComplete(state);
  if (isAsked) refresh(firstList);
  ({ domains } = await get("domains"));
  if (!domains.length) throw new Error("No domain is served, or the key may use none.");
  const isServed = domains.some((each) => each.name === state.domain);
  if (!isServed) amend({ domain: domains[0].name });
  if (await openedDomain()) await show(null, !isAsked || !isServed);
}

/** A first visitor sees a customer's purchases instead of an empty page. False if another domain was chosen meanwhile. */
async function openedDomain() {
  const histories = await openDomain(state.domain);
  if (!histories) return false;
  if (!state.history.length && histories.length) {
    amend({ history: [...histories[0].history], user: histories[0].user_id });
  }
  return true;
}

async function update(before) {
  if (before.domain !== state.domain) {
    if (await openedDomain()) await show(null, true);
    return;
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
  load(null).catch(failed);
}

function failed(error) {
  if (error.status === 401) {
    keys.set("");
    askForKey(retry);
  }
  alertOf(error.message);
}
