// The page: first the recommendations that its address stands for, then all around them. Before the first pictures are on the
// screen nothing is loaded that they do not need.

import { listOf, painted } from "./cards.js";

const ANSWER_MS = 400; // for which all else waits

/** The list that the address stands for, once it is on the screen; null if there is none, or if it needs more. */
async function firstList() {
  const begun = first.waiting();
  if (!begun || first.read().compare) return null;
  const { body, answer } = begun;
  const { status, content, ms } = await answer;
  if (status !== 200 || !first.take(body)) return null;
  const list = listOf({ ...content, roundtrip_ms: ms }, body);
  document.getElementById("answers").replaceChildren(list.element);
  await painted(list.element);
  return list;
}

async function start() {
  const list = firstList().catch(() => null);
  await Promise.race([list, new Promise((resolve) => setTimeout(resolve, ANSWER_MS))]);
  document.head.append(document.getElementById("later").content);
  const { open } = await import("./shop.js");
  open(list);
}

start();
