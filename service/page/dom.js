// Elements from plain values. Texts become text nodes, so nothing in a catalog can become markup.

const pictures = new Map();

/** An element: `el("button", {class: "quiet", onclick: f}, "Add", icon)`. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replaces what an element contains, and keeps the focus on what has the same data-key. */
export function fill(element, ...children) {
  const key = element.contains(document.activeElement) && document.activeElement.dataset.key;
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** Calls `f` once nothing has asked for it for some time. */
export function delayed(f, ms) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...values), ms);
  };
}

/** A labelled field of a form. */
export function field(label, input) {
  return el("label", { class: "field" }, el("span", {}, label), input);
}

/** The picture of an item as an <img>. With a key it is fetched, because an <img> cannot send one. */
export function picture(domain, item, attributes = {}) {
  const image = document.createElement("img");
  image.alt = attributes.alt ?? "";
  image.width = image.height = 128;
  image.loading = attributes.loading ?? "lazy";
  image.fetchPriority = attributes.priority ?? "low";
  image.decoding = "async";
  image.addEventListener("error", () => image.classList.add("missing"));
  if (!item.image) {
    image.classList.add("missing");
    return image;
  }
  const url = `domains/${encodeURIComponent(domain)}/items/${encodeURIComponent(item.item_id)}/image`;
  if (!first.keys.get()) {
    image.src = url;
    return image;
  }
  if (!pictures.has(url)) {
    pictures.set(url, fetched(url));
  }
  pictures.get(url).then((address) => (image.src = address)).catch(() => {
    pictures.delete(url); // the next one asks again
    image.classList.add("missing");
  });
  return image;
}

async function fetched(url) {
  const response = await fetch(url, { headers: first.headers() });
  if (!response.ok) throw new Error(`the service answered with status ${response.status}`);
  return URL.createObjectURL(await response.blob());
}
