// Options of the request, and what to compare.

import { el, field, fill } from "./dom.js";
import { change, state } from "./state.js";

const YES_OR_NO = ["A-7", "A-8"];
const form = document.getElementById("options");
const compare = document.getElementById("compare");

function input(name, attributes) {
  const element = el("input", { ...attributes, "data-key": `option-${name}`, onchange: () => change({ [name]: element.value.trim() }) });
  element.value = state[name];
  return element;
}

export function showOptions(domain) {
  const templates = domain.templates.sequential.filter((name) => !YES_OR_NO.includes(name));
  const template = el("select", { "data-key": "option-template", onchange: () => change({ template: template.value }) }, el("option", { value: "" }, `${domain.default_templates.sequential} (the domain’s)`), templates.map((name) => el("option", { value: name }, name)));
  template.value = state.template;
  const certified = el("input", { type: "checkbox", "data-key": "option-certified", onchange: () => change({ certified: certified.checked }) });
  certified.checked = state.certified;
  fill(
    form,
    field("How many (k)", input("k", { type: "number", min: 1, max: 100, placeholder: "10" })),
    field("Beams", input("beams", { type: "number", min: 1, max: 256, placeholder: "20" })),
    field("Template", template),
    field("Customer id", input("user", { type: "text", maxlength: 256, autocomplete: "off" })),
    field("Customer name", input("name", { type: "text", maxlength: 256, autocomplete: "off" })),
    el("label", { class: "field check" }, certified, el("span", {}, "certified: search until all are proven")),
  );
  showCompare(domain);
}

function showCompare(domain) {
  const choices = [["", "nothing"], ["pictures", "without pictures"], ["history", "another history"]];
  if (domain.roles.canary) choices.push(["canary", "the canary"]);
  const select = el("select", { "data-key": "compare", onchange: () => choose(select.value) }, choices.map(([value, words]) => el("option", { value }, words)));
  select.value = state.compare;
  fill(compare, field("Compare with", select));
}

function choose(value) {
  const isHistory = value === "history";
  change({ compare: value, editing: isHistory ? "other" : "history", other: isHistory ? [...state.history] : [] });
}

form.addEventListener("submit", (event) => event.preventDefault());
