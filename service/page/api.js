// Requests to the service. URLs are relative, so the page works below any prefix.

const { headers, keys, send } = first;

/** An error that the service explains. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `the service answered with status ${status}`);
    this.status = status;
    this.code = body.code ?? "";
  }
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
  return checked(await send(path, body, signal));
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
