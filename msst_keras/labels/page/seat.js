// One browser reviews at a time: takes the seat, keeps it, asks for it; and the saving, which needs it.

import { ask, element, Refusal } from "/common.js";
import { forget, show } from "/frames.js";
import { Saving } from "/saving.js";
import { state } from "/state.js";
import { reportSaving, say } from "/status.js";

const ALIVE_MS = 5000;
let seat = "";

export const saving = new Saving(() => seat, reportSaving, (change, refusal) => {
  if (refusal.kind === "seat") return regain(refusal.message);
  forget(change.index);
  if (change.index === state.position) show(change.index);
});

async function take(byForce) {
  const previous = seat || sessionStorage.getItem("seat") || "";
  const answer = await ask(`/api/seat${byForce ? "?force" : ""}`, { method: "POST", body: previous });
  seat = (await answer.json()).seat;
  sessionStorage.setItem("seat", seat);
}

/** Takes the seat and shows the frame where the review stopped, or the one that this page was at. */
export async function open(byForce) {
  try {
    await take(byForce);
    const review = await (await ask("/api/review")).json();
    state.title = review.title;
    state.frames = review.frames.map(([sequence, frame, decision]) => ({ sequence, frame, decision }));
    forget();
    element("place").max = state.frames.length - 1;
    element("seat").close();
    saving.resume();
    const wanted = Number(location.hash.slice(1));
    await show(location.hash && state.frames[wanted] ? wanted : review.position);
  } catch (error) {
    if (error.kind === "seat") return askPerson(error.message);
    say(error instanceof Refusal ? error.message : "The server does not answer.", true);
    setTimeout(open, ALIVE_MS, byForce);
  }
}

function askPerson(sentence) {
  saving.pause();
  const waiting = saving.changes.length;
  element("seat-title").textContent = `${sentence[0].toUpperCase()}${sentence.slice(1)}`;
  element("seat-text").textContent = waiting
    ? `Changes of this page that are not saved yet: ${waiting}. They are saved when you go on here.`
    : "What was changed there is saved. You can go on from there in this browser.";
  if (!element("seat").open) element("seat").showModal();
}

/** Takes the seat again when nobody else has: a server that was started again does not know who had it. */
async function regain(sentence) {
  try {
    await take(false);
    saving.resume();
  } catch (error) {
    if (error.kind === "seat") askPerson(sentence);
    else setTimeout(regain, ALIVE_MS, sentence);
  }
}

/** Tells the server that this browser is still there. */
async function stay() {
  if (!seat || saving.isPaused) return;
  try {
    await ask("/api/seat/alive", { method: "POST", headers: { "X-Seat": seat } });
  } catch (error) {
    if (error.kind === "seat") regain(error.message);
  }
}

element("seat").addEventListener("cancel", (event) => event.preventDefault());
element("seat-take").addEventListener("click", () => open(true));
window.addEventListener("pagehide", () => seat && navigator.sendBeacon("/api/seat/leave", seat));
window.addEventListener("pageshow", (event) => event.persisted && location.reload());
window.addEventListener("beforeunload", (event) => saving.changes.length && event.preventDefault());
setInterval(stay, ALIVE_MS);
