// Differences between two lists of items.

/** Marks by item id for the first and the second list, and a sentence about both. */
export function differences(first, second) {
  const places = (items) => new Map(items.map((item, place) => [item.item_id, place]));
  const [inFirst, inSecond] = [places(first), places(second)];
  const marks = (own, other, kind, words) => {
    const found = new Map();
    for (const [id, place] of own) {
      if (!other.has(id)) found.set(id, { kind, words });
      else if (other.get(id) !== place) found.set(id, moved(place, other.get(id), kind));
    }
    return found;
  };
  const numShared = [...inFirst.keys()].filter((id) => inSecond.has(id)).length;
  const isSame = first.length === second.length && first.every((item, place) => item.item_id === second[place].item_id);
  return {
    first: marks(inFirst, inSecond, "gone", "only here"),
    second: marks(inSecond, inFirst, "new", "only here"),
    words: isSame ? "Both lists are the same." : `${numShared} of ${first.length} items are in both lists.`,
  };
}

/** In the first list, where the item goes; in the second, where it comes from. */
function moved(own, other, kind) {
  const by = kind === "gone" ? own - other : other - own;
  return { kind: by > 0 ? "up" : "down", words: `${by > 0 ? "▲" : "▼"} ${Math.abs(by)}` };
}
