// Frames: loads them ahead, shows one, decides on it and moves on.

import { ask, element, Refusal } from "/common.js";
import { choose, paint } from "/editor.js";
import { unpack } from "/mask.js";
import { saving } from "/seat.js";
import { state } from "/state.js";
import { describe, endBadNews, noteDecision, say } from "/status.js";
import { refresh } from "/zoom.js";

const KEPT = 4; // on either side of the one shown
const RETRY_MS = 5000;
const views = new Map(); // number -> promise of its view

/** A frame's view; what was changed here stays until it is saved. */
function load(index) {
  if (!views.has(index)) {
    const view = fetchView(index);
    views.set(index, view);
    view.catch(() => views.delete(index));
  }
  return views.get(index);
}

async function fetchView(index) {
  const [image, answer] = await Promise.all([
    ask(`/api/frames/${index}/image`).then((response) => response.blob()).then(createImageBitmap),
    ask(`/api/frames/${index}/label`),
  ]);
  const [height, width] = answer.headers.get("X-Size").split("x").map(Number);
  if (image.width !== width || image.height !== height) {
    throw new Refusal(`The frame is ${image.height}x${image.width}, its label ${height}x${width}.`, "input", 400);
  }
  const bytes = new Uint8Array(await answer.arrayBuffer()), half = bytes.length / 2, count = width * height;
  saving.versions.set(index, answer.headers.get("X-Version"));
  const [label, original] = [unpack(bytes.subarray(0, half), count), unpack(bytes.subarray(half), count)];
  return { image, width, height, label, original, undo: [], redo: [] };
}

/** Forgets a frame that has changed on the disk, or all of them that need not be saved. */
export function forget(index) {
  if (index !== undefined) views.delete(index);
  else for (const other of views.keys()) if (!saving.isPending(other)) views.delete(other);
}

export async function show(index) {
  state.position = index;
  state.shown = null; // so that no key acts on the frame before while this one loads
  document.body.dataset.shown = "";
  history.replaceState(null, "", `#${index}`);
  describe();
  let view;
  try {
    view = await load(index);
  } catch (error) {
    if (state.position === index) fail(index, error);
    return;
  }
  if (state.position !== index) return;
  endBadNews();
  state.shown = view;
  choose(null);
  for (const id of ["frame", "overlay"]) Object.assign(element(id), { width: view.width, height: view.height });
  element("frame").getContext("2d").drawImage(view.image, 0, 0);
  refresh();
  paint();
  describe();
  document.body.dataset.shown = index;
  for (const other of views.keys()) {
    if (Math.abs(other - index) > KEPT && !saving.isPending(other)) views.delete(other);
  }
  for (const ahead of [index + 1, index + 2, index - 1]) if (state.frames[ahead]) load(ahead).catch(() => {});
}

function fail(index, error) {
  for (const id of ["frame", "overlay"]) Object.assign(element(id), { width: 1, height: 1 });
  say(error instanceof Refusal ? error.message : "The server does not answer.", true);
  if (error instanceof Refusal) return;
  setTimeout(() => state.position === index && !state.shown && show(index), RETRY_MS);
}

export function go(index) {
  if (index >= 0 && index < state.frames.length && index !== state.position) show(index);
}

/** Accepts or rejects and goes to the next open frame, or takes the decision back ("reopen"). */
export function decide(decision) {
  const { frames, position } = state, frame = frames[position];
  if (frame.decision !== decision) {
    frame.decision = decision;
    saving.addDecision(position, decision);
    noteDecision();
  }
  const isOpen = (other) => other.decision === "reopen";
  const after = frames.findIndex((other, index) => index > position && isOpen(other));
  const open = after >= 0 ? after : frames.findIndex(isOpen);
  if (decision !== "reopen" && open >= 0) return show(open);
  describe();
  if (open < 0) say(`All ${frames.length} labels are decided. They are in ${state.title}.`);
}
