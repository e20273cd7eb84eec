// What the page says: where one is, how far the review has come, what is saved, and what went wrong.

import { element } from "/common.js";
import { state } from "/state.js";

const MESSAGE_MS = 2500;
const MAX_GAPS = 30;

const message = element("message");
const decidedAt = [];
let savingText = "", timer = 0;

/** Shows a sentence: for a moment, or if something is bad until it is taken away by say(""). */
export function say(text, isBad = false) {
  clearTimeout(timer);
  message.textContent = text;
  message.hidden = !text;
  message.classList.toggle("is-bad", isBad);
  if (text && !isBad) timer = setTimeout(() => (message.hidden = true), MESSAGE_MS);
}

export function endBadNews() {
  if (message.classList.contains("is-bad")) say("");
}

/** Is told by the saving how it goes. */
export function reportSaving(condition, text = "") {
  savingText = { saved: "saved", saving: "saving", waiting: "not saved", refused: "not saved" }[condition];
  document.body.dataset.saving = condition;
  if (text) say(text, true);
  else if (condition === "saved") endBadNews();
  if (state.frames.length) describe();
}

export function noteDecision() {
  decidedAt.push(Date.now());
  if (decidedAt.length > MAX_GAPS) decidedAt.shift();
}

export function describe() {
  const { frames, position, shown } = state, { sequence, frame, decision } = frames[position];
  const counts = { accept: 0, reject: 0, reopen: 0 };
  for (const other of frames) counts[other.decision]++;
  const done = frames.length - counts.reopen;
  element("name").textContent = `${sequence} / ${frame}`;
  const decided = { accept: "accepted", reject: "rejected", reopen: "open" }[decision];
  const isChanged = shown?.label.some((value, i) => value !== shown.original[i]);
  element("facts").textContent = [`${position + 1} of ${frames.length}`, decided, isChanged && "changed", savingText]
    .filter(Boolean).join(" · ");
  element("progress").value = done / frames.length;
  element("progress-text").textContent = counts.reopen
    ? `${done} of ${frames.length} decided, ${counts.reject} rejected${remaining(counts.reopen)}`
    : `All ${frames.length} are decided, ${counts.reject} rejected.`;
  element("reopen").disabled = decision === "reopen";
  element("accept").setAttribute("aria-pressed", decision === "accept");
  element("reject").setAttribute("aria-pressed", decision === "reject");
  element("previous").disabled = position === 0;
  element("next").disabled = position === frames.length - 1;
  element("undo").disabled = !shown?.undo.length;
  element("redo").disabled = !shown?.redo.length;
  element("place").value = position;
}

/** The time that the open frames will take at the pace of the last decisions, pauses left out. */
function remaining(numOpen) {
  const gaps = decidedAt.slice(1).map((time, i) => time - decidedAt[i]).sort((a, b) => a - b);
  if (gaps.length < 3) return "";
  const minutes = (gaps[gaps.length >> 1] * numOpen) / 60000;
  return `, ${minutes < 1 ? "< 1" : `about ${Math.round(minutes)}`} min left`;
}
