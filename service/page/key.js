// Asks for an API key where the service needs one.

const { keys } = first;
const KEY = /^[!-~]+$/; // what a header can carry

/** Shows the form instead of the page, and calls `then` once a key was given. */
export function askForKey(then) {
  const form = document.getElementById("key");
  const value = document.getElementById("key-value");
  const show = (isAsked) => {
    form.hidden = !isAsked;
    document.getElementById("main").hidden = isAsked;
  };
  show(true);
  form.onsubmit = (event) => {
    event.preventDefault();
    const key = value.value.trim();
    if (!KEY.test(key)) return alertOf("This is no API key: keys have letters, digits and signs, and no spaces. Paste it whole.");
    keys.set(key);
    show(false);
    alertOf("");
    then();
  };
  value.focus();
}

export function alertOf(words) {
  const place = document.getElementById("alert");
  place.hidden = !words;
  place.textContent = words;
}
