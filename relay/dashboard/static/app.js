// What pages do beyond plain HTML: local times, liveness, copying, the theme. Every page works without it.
import { morph } from "./morph.js";

// Times. The server writes UTC; here it becomes the reader's zone, and "in 4 min" where distance is what counts.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const distance = new Intl.RelativeTimeFormat(undefined, { style: "short" });

function distanceTo(at) {
  const seconds = (at - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return distance.format(Math.round(seconds / size), unit);
  }
  return distance.format(Math.round(seconds), "second");
}

const isToday = (at) => at.toDateString() === new Date().toDateString();
const forms = {
  moment: (at) => `${isToday(at) ? "" : `${day.format(at)}, `}${clock.format(at)}`,
  minute: (at) => minute.format(at),
  day: (at) => day.format(at),
  relative: distanceTo,
};

function writeTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const text = forms[time.dataset.form](at);
    if (time.textContent !== text) time.textContent = text;
    time.title = full.format(at);
  }
}

// Liveness. Something changed: ask for this page again, and change what is different.

const main = document.querySelector("main");
const toggle = document.querySelector("[data-live-toggle]");
const subject = main.dataset.live; // "all", the id of a job or batch, or nothing
const every = Number(main.dataset.every || 0) * 1000;
const GATHER_MS = 250;
const AT_MOST_EVERY_MS = Number(main.dataset.atMost || 1) * 1000;
let paused = false;
let source = null;
let timer = 0;
let refreshedAt = 0;
let asking = false;

function say(state) {
  toggle.dataset.state = state;
  toggle.querySelector("[data-live-text]").textContent = { live: "Live", paused: "Paused", lost: "Reconnecting…" }[state];
}

function busy() {
  // What somebody has selected, or is typing into, is left alone.
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && main.contains(selection.anchorNode);
}

async function refresh() {
  if (asking || busy()) return again();
  asking = true;
  refreshedAt = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) return location.reload();
    // A page that is gone, or a relay that is: what is shown stays.
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    writeTimes(fresh);
    for (const region of fresh.querySelectorAll("[data-region]")) {
      const shown = document.getElementById(region.id);
      if (shown) morph(shown, document.importNode(region, true));
    }
  } catch {
    // No connection: the event stream says so.
  } finally {
    asking = false;
  }
}

function again() {
  clearTimeout(timer);
  timer = setTimeout(refresh, Math.max(GATHER_MS, refreshedAt + AT_MOST_EVERY_MS - Date.now()));
}

function heard(event) {
  const change = JSON.parse(event.data);
  if (subject === "all" || change.id === subject || change.batch_id === subject) again();
}

function connect() {
  if (source !== null || paused || document.hidden) return;
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("open", () => {
    say("live");
    again(); // for what happened meanwhile
  });
  for (const kind of ["job", "batch", "reset"]) source.addEventListener(kind, heard);
  source.addEventListener("error", () => {
    say("lost");
    if (source?.readyState !== EventSource.CLOSED) return; // the browser tries by itself
    disconnect();
    setTimeout(connect, 5000);
  });
}

function disconnect() {
  source?.close();
  source = null;
}

if (subject && toggle) {
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.setAttribute("aria-pressed", String(!paused));
    if (paused) {
      disconnect();
      clearTimeout(timer);
      say("paused");
    } else {
      connect();
    }
  });
  // A browser has six connections to a host, and a page that nobody looks at needs none.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", connect);
  connect();
  if (every) setInterval(() => paused || document.hidden || again(), every);
}

writeTimes(document);
setInterval(() => writeTimes(document), 1000);

// Charts: what the pointer is on is said in words.

document.addEventListener("pointermove", (event) => {
  const slot = event.target.closest?.("[data-read]");
  for (const reading of document.querySelectorAll(".reading:not([hidden])")) {
    if (!slot || !slot.closest(".plane").contains(reading)) reading.hidden = true;
  }
  if (!slot) return;
  const plane = slot.closest(".plane");
  const reading = plane.querySelector(".reading");
  reading.textContent = `${forms.moment(new Date(Number(slot.dataset.at)))}: ${slot.dataset.read}`;
  reading.hidden = false;
});

// Copying.

const status = document.querySelector("[data-status]");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.dataset.copied = "";
  status.textContent = "Copied";
  setTimeout(() => {
    delete button.dataset.copied;
    status.textContent = "";
  }, 1500);
});
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;

// The theme: what the system says, until somebody chooses.

const root = document.documentElement;
const themes = document.querySelector("[data-theme-toggle]");
if (themes) {
  themes.hidden = false;
  themes.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // Storage is off: it lasts for this page.
    }
  });
}

// What is chosen is applied at once, and asked about where it cannot be taken back.

for (const select of document.querySelectorAll("select[data-submits]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
