// What somebody on call sees first. It asks again every few seconds, while the tab is visible.

import { get } from "./api.js";
import { el, fill } from "./dom.js";
import { alertOf, askForKey } from "./key.js";

const { keys } = first;
const REFRESH_MS = 5000;
const main = document.getElementById("main");

async function refresh() {
  try {
    show(await get("status"));
    alertOf("");
  } catch (error) {
    if (error.status === 401) {
      keys.set("");
      askForKey(refresh);
    }
    alertOf(error.status ? error.message : "The service does not answer.");
    if (error.status === 401) return;
  }
  setTimeout(again, REFRESH_MS);
}

function again() {
  if (document.hidden) document.addEventListener("visibilitychange", again, { once: true });
  else refresh();
}

function show(status) {
  const engine = status.engine;
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  const facts = {
    Waiting: engine.num_waiting,
    Running: engine.num_running,
    "Wait, p95": ms(engine.queue_p95_ms),
    ...Object.fromEntries(Object.entries(engine.busy).map(([lane, share]) => [`Engine, ${lane}`, `${percent(share)} busy`])),
    "Proven items": status.mean_exact_prefix === null ? "no rankings" : `${status.mean_exact_prefix} of a ranking`,
    Redis: status.redis,
    Journal: status.journal,
  };
  fill(
    main,
    el("div", { class: "panel" }, el("p", { class: status.status === "ready" ? "state" : "state bad", role: "status" }, status.status.replace("_", " ")), list([...status.reasons, ...status.faults])),
    el("div", { class: "panel" }, el("dl", { class: "facts" }, Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))))),
    table("Versions", ["domain", "role", "version", "bundle", "catalog revision", "share"], status.domains.flatMap(versions)),
    table(`Requests of the last ${Math.round(status.window_s)} s`, ["route", "#requests", "#failed", "#rejected", "#p50", "#p95"], status.routes.map(route)),
    table(`Degraded answers of the last ${Math.round(status.window_s)} s`, ["kind", "#answers"], Object.entries(status.degraded)),
    table("Failures of background tasks since the start", ["task", "#failures"], Object.entries(status.task_failures)),
    el("p", { class: "quiet small" }, `Of this process, at ${new Date().toLocaleTimeString()}. As text: `, el("code", {}, `curl ${location.href}`)),
  );
}

function list(faults) {
  return faults.length ? el("ul", {}, faults.map((fault) => el("li", { class: "notice" }, fault))) : el("p", { class: "quiet" }, "Nothing is known to be wrong.");
}

function versions(domain) {
  return domain.versions.map((each) => [domain.name, each.role, each.version, each.bundle.slice(0, 12), each.catalog_revision, each.share === null ? "" : `${Number((100 * each.share).toPrecision(6))} %`]);
}

function route(each) {
  return [each.route, each.num_requests, alarm(each.num_errors), alarm(each.num_rejected), ms(each.p50_ms), ms(each.p95_ms)];
}

function alarm(number) {
  return number ? { alarm: number } : 0;
}

function ms(duration) {
  return duration === null ? "–" : `${duration.toFixed(0)} ms`;
}

/** A table; names that begin with # are of numbers. Empty without rows. */
function table(caption, names, rows) {
  const classOf = (number) => (names[number].startsWith("#") ? "number" : "");
  const cell = (value, number) => el("td", { class: value?.alarm ? "number alarm" : classOf(number) }, String(value?.alarm ?? value));
  const body = rows.length ? rows.map((row) => el("tr", {}, row.map(cell))) : el("tr", {}, el("td", { colspan: names.length, class: "quiet" }, "none"));
  return el("div", { class: "panel wide", tabindex: 0, role: "region", "aria-label": caption }, el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, names.map((name, number) => el("th", { scope: "col", class: classOf(number) }, name.replace("#", ""))))), el("tbody", {}, body)));
}

refresh();
