// Changes of the label that is shown: regions, brushes, undo and redo; each is painted and sent to be saved.

import { element } from "/common.js";
import { alongLine, colour, pack, regionAt, regionsOf, unpack } from "/mask.js";
import { saving } from "/seat.js";
import { state } from "/state.js";
import { describe, say } from "/status.js";

const MAX_UNDO = 100;
let chosen = null, chosenRank = null; // the region that the keyboard is at, a byte a pixel, and its place by size

/** Draws a box of the label, or all of it. */
export function paint(box = { left: 0, top: 0, right: Infinity, bottom: Infinity }) {
  const { shown } = state;
  const [left, top] = [Math.max(0, box.left - 1), Math.max(0, box.top - 1)]; // an outline is of its neighbours
  const [right, bottom] = [Math.min(shown.width - 1, box.right + 1), Math.min(shown.height - 1, box.bottom + 1)];
  if (left > right || top > bottom) return;
  shown.pixels ??= new ImageData(shown.width, shown.height);
  colour(new Uint32Array(shown.pixels.data.buffer), shown, chosen, { left, top, right, bottom });
  const context = element("overlay").getContext("2d");
  context.putImageData(shown.pixels, 0, 0, left, top, right - left + 1, bottom - top + 1);
}

/** What `endChange` wants: the label before. */
export function startChange() {
  return pack(state.shown.label);
}

export function endChange(before) {
  const { shown } = state, after = pack(shown.label);
  if (before.every((byte, i) => byte === after[i])) return;
  shown.undo.push(before);
  if (shown.undo.length > MAX_UNDO) shown.undo.shift();
  shown.redo = [];
  store(after);
}

export function cancelChange(before) {
  state.shown.label.set(unpack(before, state.shown.label.length));
  paint();
}

function store(bytes) {
  choose(null);
  saving.addLabel(state.position, bytes);
  paint();
  describe();
}

export function undo() {
  step(state.shown.undo, state.shown.redo);
}

export function redo() {
  step(state.shown.redo, state.shown.undo);
}

function step(from, to) {
  if (!from.length) return;
  const { label } = state.shown, bytes = from.pop();
  to.push(pack(label));
  label.set(unpack(bytes, label.length));
  store(bytes);
}

/** Erases the region at a point or brings an erased one back; or erases all regions but this one. */
export function clickRegion(point, reach, keepsIt) {
  const { label, original, width, height } = state.shown;
  const isLabelled = (i) => label[i] === 1, wasErased = (i) => original[i] === 1 && label[i] === 0;
  const start = nearest(point, reach, isLabelled) ?? (keepsIt ? undefined : nearest(point, reach, wasErased));
  if (start === undefined) return say("There is no region here.");
  const value = label[start] && !keepsIt ? 0 : 1;
  const region = regionAt(start, width, height, label[start] ? isLabelled : wasErased);
  const before = startChange();
  if (keepsIt) label.fill(0);
  for (const i of region) label[i] = value;
  endChange(before);
}

/** The pixel that satisfies `inside` and lies nearest to a point, no farther than `reach`. */
function nearest(point, reach, inside) {
  const { width, height } = state.shown;
  let best, least = Infinity;
  alongLine(point, point, Math.max(reach, 0.75), width, height, (i) => {
    const y = Math.floor(i / width), distance = Math.hypot((i % width) + 0.5 - point.x, y + 0.5 - point.y);
    if (distance < least && inside(i)) [best, least] = [i, distance];
  });
  return best;
}

/** Draws with the brush of the tool from one point to another. */
export function brush(from, to) {
  const { shown, tool } = state, { label, original, width, height } = shown;
  const box = alongLine(from, to, element("size").value / 2, width, height, (i) => {
    label[i] = tool === "erase" ? 0 : tool === "restore" ? label[i] | original[i] : 1;
  });
  paint(box);
}

/** Lets the keyboard go to the next (1) or previous (-1) region, the largest first. */
export function chooseNext(direction) {
  choose(chosenRank === null ? (direction > 0 ? 0 : -1) : chosenRank + direction);
}

export function hasChosen() {
  return chosen !== null;
}

/** Chooses a region by its place; null chooses none. */
export function choose(rank) {
  [chosenRank, chosen] = [null, null];
  if (rank === null) return;
  const { label, width, height } = state.shown, regions = regionsOf(label, width, height);
  if (!regions.length) return say("The label has no region.");
  chosenRank = (rank + regions.length) % regions.length; // -1 is the last
  chosen = new Uint8Array(label.length);
  for (const i of regions[chosenRank]) chosen[i] = 1;
  say(`Region ${chosenRank + 1} of ${regions.length}: Delete erases it, K erases all others.`);
  paint();
}

/** Erases the region that the keyboard is at, or with `keepsIt` all others. */
export function eraseChosen(keepsIt) {
  if (!chosen) return say("Choose a region with . and , first.");
  const before = startChange();
  for (let i = 0; i < chosen.length; i++) if (Boolean(chosen[i]) !== keepsIt) state.shown.label[i] = 0;
  endChange(before);
}

export function restoreOriginal() {
  const before = startChange();
  state.shown.label.set(state.shown.original);
  endChange(before);
}
