/**
 * Asks a running service for recommendations: one, many at once, from stored events, and an explanation by tokens.
 *
 *     node client.ts http://127.0.0.1:8000      (from Node.js 23.6 on; before, --experimental-strip-types or tsc)
 *
 * The items are those of the demonstration (`make run`). Where API keys are required, set API_KEY. `client.py` does
 * the same in Python. Types of all bodies come from /openapi.json by openapi-typescript; these few are written by hand.
 * Events need a service that keeps histories, such as with VIP5_HISTORY_STORE=embedded.
 */

const MAX_ATTEMPTS = 5;
const PATIENCE_S = 60;
/** Statuses after which the same request may succeed, as long after as Retry-After says. */
const BUSY = [429, 503];

type Item = { item_id: string; score: number };
type Answer = { items: Item[]; request_id: string };
type Problem = { status: number; code: string; detail: string; request_id: string };

const USER = { domain: "toys", user_id: "user-30001" };
const ASK = { ...USER, k: 2 };
const HISTORY = ["toy-0152", "toy-0098", "toy-0025"];

const url = process.argv[2] ?? "http://127.0.0.1:8000";
const key = process.env.API_KEY;

function send(path: string, body: object): Promise<Response> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (key !== undefined) headers.Authorization = `Bearer ${key}`;
  const signal = AbortSignal.timeout(PATIENCE_S * 1000);
  return fetch(url + path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** The answer. A busy service is asked again when it says. Throws an Error with the problem document. */
async function post<T>(path: string, body: object): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const response = await send(path, body);
    if (response.ok) return (await response.json()) as T;
    if (BUSY.includes(response.status) && attempt < MAX_ATTEMPTS && (await wait(response))) continue;
    const problem = (await response.json()) as Problem;
    throw new Error(`${problem.code}: ${problem.detail} (request ${problem.request_id})`);
  }
}

/** Wait as long as the service asks for; false if it does not say, or for longer than we have patience. */
async function wait(response: Response): Promise<boolean> {
  const afterS = Number(response.headers.get("Retry-After") ?? Infinity);
  if (!(afterS <= PATIENCE_S)) return false;
  await response.body?.cancel();
  console.log(JSON.stringify({ retry_after_s: afterS }));
  await new Promise((resolve) => setTimeout(resolve, afterS * 1000));
  return true;
}

const idsOf = (answer: Answer): string[] => answer.items.map((item) => item.item_id);

/** The next items for one history, best first. */
async function recommend(): Promise<string[]> {
  return idsOf(await post<Answer>("/recommend/sequential", { ...ASK, history: HISTORY }));
}

/** For each history its items, or the code of its problem: one that cannot be answered does not hold up the rest. */
async function recommendMany(histories: string[][]): Promise<(string[] | string)[]> {
  const requests = histories.map((history) => ({ ...ASK, history }));
  const { answers } = await post<{ answers: (Answer | Problem)[] }>("/recommend/sequential:batch", { requests });
  return answers.map((answer) => ("status" in answer ? answer.code : idsOf(answer)));
}

/**
 * The next items after what the service was told: send events as they happen, then no request needs a history.
 * An event that is sent again with its event_id is kept once, so a lost answer may be retried.
 */
async function recommendFromEvents(): Promise<string[]> {
  const events = HISTORY.map((itemId) => ({ ...USER, item_id: itemId, event_id: `order-17-${itemId}` }));
  await post("/events", events);
  return idsOf(await post<Answer>("/recommend/sequential", ASK));
}

/** An explanation, as it is generated. Throws an Error. */
async function* explain(itemId: string): AsyncGenerator<string> {
  const response = await send("/explain", { ...USER, item_id: itemId, stream: true });
  if (!response.ok || response.body === null) throw new Error(await response.text());
  let unread = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    unread += decoder.decode(chunk, { stream: true }).replaceAll("\r\n", "\n");
    const events = unread.split("\n\n");
    unread = events.pop() ?? "";
    for (const event of events) {
      const field = (name: string): string =>
        event.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
      if (field("event") === "token") yield (JSON.parse(field("data")) as { text: string }).text;
      if (field("event") === "error") throw new Error((JSON.parse(field("data")) as Problem).detail);
    }
  }
}

const items = await recommend();
console.log(JSON.stringify({ items }));
console.log(JSON.stringify({ many: await recommendMany([HISTORY, HISTORY.slice(0, 1), ["no such toy"]]) }));
const fromEvents = await recommendFromEvents().catch((error: Error) => {
  if (!error.message.startsWith("histories_disabled")) throw error;
  return "histories_disabled";
});
console.log(JSON.stringify({ from_events: fromEvents }));
let text = "";
for await (const part of explain(items[0])) text += part;
console.log(JSON.stringify({ text }));

export {};
