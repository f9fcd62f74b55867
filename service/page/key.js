// Asks for an API key where the service needs one.

const { keys } = first;

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
    keys.set(value.value.trim());
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
