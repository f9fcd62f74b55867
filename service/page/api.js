// Requests to the service. URLs are relative, so the page works below any prefix.

const KEY = "vip5-key";

/** An error that the service explains. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `the service answered with status ${status}`);
    this.status = status;
    this.code = body.code ?? "";
  }
}

export const keys = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => sessionStorage.setItem(KEY, key),
};

function headers(extra = {}) {
  const key = keys.get();
  return key ? { ...extra, "X-API-Key": key } : extra;
}

async function checked(response) {
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

export async function get(path, query = {}, signal = undefined) {
  const filled = Object.entries(query).filter(([, value]) => value !== "");
  const search = new URLSearchParams(filled).toString();
  const url = search ? `${path}?${search}` : path;
  return (await checked(await fetch(url, { headers: headers({ Accept: "application/json" }), signal }))).json();
}

export async function post(path, body, signal = undefined) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), signal };
  return checked(await fetch(path, { ...options, body: JSON.stringify(body) }));
}

/** The events of a stream, as {event, data}. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
      const { event, data } = Object.fromEntries(lines);
      yield { event, data: JSON.parse(data) };
    }
  }
}

const pictures = new Map();

/** The picture of an item as an <img>. With a key it is fetched, because an <img> cannot send one. */
export function picture(domain, item, attributes = {}) {
  const image = document.createElement("img");
  image.alt = attributes.alt ?? "";
  image.width = image.height = 128;
  image.loading = attributes.loading ?? "lazy";
  image.decoding = "async";
  image.addEventListener("error", () => image.classList.add("missing"));
  if (!item.image) {
    image.classList.add("missing");
    return image;
  }
  const url = `domains/${encodeURIComponent(domain)}/items/${encodeURIComponent(item.item_id)}/image`;
  if (!keys.get()) {
    image.src = url;
    return image;
  }
  if (!pictures.has(url)) {
    pictures.set(url, fetch(url, { headers: headers() }).then(checked).then((response) => response.blob()).then(URL.createObjectURL));
  }
  pictures.get(url).then((address) => (image.src = address)).catch(() => image.classList.add("missing"));
  return image;
}
