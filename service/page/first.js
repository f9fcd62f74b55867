// The address of the page, and the request that it stands for.
// No module: the browser runs this before it loads modules and lays the page out, so it asks as soon as possible.

"use strict";

const first = (() => {
  const PATH = "recommend/sequential";
  const TEXTS = ["domain", "user", "name", "q", "k", "beams", "template", "compare"];
  const LISTS = ["history", "other"];

  const KEY = "vip5-key";

  /** What the service says about itself: whether it needs a key, and whether it shows its state. Null on the page of that state. */
  const about = JSON.parse(document.querySelector("meta[name=about]")?.content ?? "null");

  const keys = {
    get: () => sessionStorage.getItem(KEY) ?? "",
    set: (key) => sessionStorage.setItem(KEY, key),
  };

  function headers(extra = {}) {
    const key = keys.get();
    return key ? { ...extra, "X-API-Key": key } : extra;
  }

  /** Sends a body as JSON. */
  function send(path, body, signal = undefined) {
    return fetch(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), signal, body: JSON.stringify(body) });
  }

  /** Asks for recommendations: the status, the content, and how long it took. */
  async function asked(body, signal = undefined) {
    const startedAt = performance.now();
    const response = await send(PATH, body, signal);
    const content = await response.json().catch(() => ({}));
    return { status: response.status, content, ms: performance.now() - startedAt };
  }

  /** What the address says. */
  function read() {
    const query = new URLSearchParams(location.search);
    const found = { where: Object.create(null), certified: query.get("certified") === "1" };
    for (const name of TEXTS) found[name] = query.get(name) ?? "";
    for (const name of LISTS) found[name] = query.getAll(name);
    for (const [name, value] of query) {
      if (name.startsWith("where.")) (found.where[name.slice(6)] ??= []).push(value);
    }
    return found;
  }

  /** Whether a state names all that an answer depends on; filters have to be read as the columns' values first. */
  function isComplete(state) {
    return Boolean(state.domain && state.history.length && !Object.keys(state.where).length && (!about.needs_key || keys.get()));
  }

  /** The body of the request for recommendations; `where` is the filter as the API takes it. */
  function bodyOf(state, history, where = {}) {
    const body = { domain: state.domain, history, k: Number(state.k) || 10 };
    if (state.user) body.user_id = state.user;
    if (state.name) body.user_name = state.name;
    if (state.beams) body.num_beams = Math.max(Number(state.beams), body.k);
    if (state.template) body.template = state.template;
    if (state.certified) body.exactness = "certified";
    if (Object.keys(where).length) body.where = where;
    if (state.compare === "canary") body.role = "stable";
    return { ...body, timings: true };
  }

  /** The request that was sent first, until somebody takes its answer. */
  let begun = null;

  function begin(state) {
    const body = bodyOf(state, state.history);
    const answer = asked(body);
    answer.catch(() => {}); // whoever takes it sees the error
    return { body, answer };
  }

  /** The answer to the first request, if that has this body and nobody has taken it. */
  function take(body) {
    const taken = begun;
    begun = null;
    return taken && JSON.stringify(taken.body) === JSON.stringify(body) ? taken.answer : null;
  }

  if (about) {
    // Below a prefix the address may lack the slash that relative ones need.
    if (!location.pathname.endsWith("/")) history.replaceState(null, "", `${location.pathname}/${location.search}`);
    const state = read();
    if (isComplete(state)) begun = begin(state);
  }

  return { LISTS, PATH, TEXTS, about, asked, bodyOf, headers, isComplete, keys, read, send, take, waiting: () => begun };
})();
