// The review page: shows a frame with its label, changes the label, and moves on.

import { ask, element, Refusal } from "/common.js";
import { alongLine, colour, pack, regionAt, regionsOf, unpack } from "/mask.js";
import { Saving } from "/saving.js";

const KEPT_FRAMES = 4; // on either side of the one shown
const MAX_UNDO = 100;
const ALIVE_MS = 5000;
const TOUCH_PIXELS = 14; // of the screen, by which a finger may miss a region
const DRAG_PIXELS = 6;

const stage = element("stage"), layers = element("layers"), message = element("message");
const canvases = { frame: element("frame"), overlay: element("overlay") };

let frames = [], position = 0, shown = null, seat = "", tool = "region";
let zoom = { scale: 1, x: 0, y: 0, isFitted: true };
let chosen = null, chosenRank = null; // the region that the keyboard is at
const views = new Map(), pointers = new Map(), decidedAt = [];
let stroke = null, messageTimer = 0;

const saving = new Saving(() => seat, reportSaving, (change, refusal) => {
  if (refusal.kind === "seat") regainSeat(refusal.message);
  else {
    views.delete(change.index);
    if (change.index === position) show(position);
  }
});

// ---- frames

/** The frame, its label and its original; what was changed here stays until it is saved. */
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

async function show(index) {
  position = index;
  shown = null; // so that no key acts on the frame before while this one loads
  document.body.dataset.shown = "";
  history.replaceState(null, "", `#${index}`);
  describe();
  let view;
  try {
    view = await load(index);
  } catch (error) {
    if (position !== index) return;
    shown = null;
    for (const canvas of Object.values(canvases)) canvas.width = canvas.height = 1;
    say(error instanceof Refusal ? error.message : "The server does not answer.", true);
    if (!(error instanceof Refusal)) setTimeout(() => position === index && !shown && show(index), ALIVE_MS);
    return;
  }
  if (position !== index) return;
  if (message.classList.contains("is-bad")) say("");
  shown = view;
  choose(null);
  for (const canvas of Object.values(canvases)) Object.assign(canvas, { width: view.width, height: view.height });
  canvases.frame.getContext("2d").drawImage(view.image, 0, 0);
  view.pixels ??= new ImageData(view.width, view.height);
  if (zoom.isFitted) fit();
  paint();
  describe();
  document.body.dataset.shown = index;
  for (const other of views.keys()) {
    if (Math.abs(other - index) > KEPT_FRAMES && !saving.isPending(other)) views.delete(other);
  }
  for (const ahead of [index + 1, index + 2, index - 1]) if (frames[ahead]) load(ahead).catch(() => {});
}

function wholeBox() {
  return { left: 0, top: 0, right: shown.width - 1, bottom: shown.height - 1 };
}

function paint(box = wholeBox()) {
  box = { left: Math.max(0, box.left - 1), top: Math.max(0, box.top - 1),
    right: Math.min(shown.width - 1, box.right + 1), bottom: Math.min(shown.height - 1, box.bottom + 1) };
  if (box.left > box.right || box.top > box.bottom) return;
  colour(new Uint32Array(shown.pixels.data.buffer), shown, chosen, box);
  const size = [box.right - box.left + 1, box.bottom - box.top + 1];
  canvases.overlay.getContext("2d").putImageData(shown.pixels, 0, 0, box.left, box.top, ...size);
}

// ---- changes

function startChange() {
  return pack(shown.label);
}

function endChange(before) {
  const after = pack(shown.label);
  if (before.every((byte, i) => byte === after[i])) return;
  shown.undo.push(before);
  if (shown.undo.length > MAX_UNDO) shown.undo.shift();
  shown.redo = [];
  store(after);
}

function store(bytes) {
  choose(null);
  saving.addLabel(position, bytes);
  paint();
  describe();
}

function step(from, to) {
  if (!shown || !from.length) return;
  to.push(pack(shown.label));
  const bytes = from.pop();
  shown.label.set(unpack(bytes, shown.label.length));
  store(bytes);
}

/** Erases the region at a point or brings an erased one back; or erases all regions but this one. */
function clickRegion(point, reach, keepsIt) {
  const { label, original, width, height } = shown;
  const wasErased = (i) => original[i] === 1 && label[i] === 0;
  const isLabelled = (i) => label[i] === 1;
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
  let best, least = Infinity;
  alongLine(point, point, Math.max(reach, 0.75), shown.width, shown.height, (i) => {
    const y = Math.floor(i / shown.width), distance = Math.hypot((i % shown.width) + 0.5 - point.x, y + 0.5 - point.y);
    if (distance < least && inside(i)) [best, least] = [i, distance];
  });
  return best;
}

function brushTo(point) {
  const { label, original, width, height } = shown, radius = element("size").value / 2;
  const box = alongLine(stroke.last, point, radius, width, height, (i) => {
    label[i] = tool === "erase" ? 0 : tool === "restore" ? label[i] | original[i] : 1;
  });
  stroke.last = point;
  paint(box);
}

function choose(rank) {
  [chosenRank, chosen] = [null, null];
  if (rank === null) return;
  const regions = regionsOf(shown.label, shown.width, shown.height);
  if (!regions.length) return say("The label has no region.");
  chosenRank = (rank + regions.length) % regions.length; // -1 is the last
  chosen = new Uint8Array(shown.label.length);
  for (const i of regions[chosenRank]) chosen[i] = 1;
  say(`Region ${chosenRank + 1} of ${regions.length}: Delete erases it, K erases all others.`);
  paint();
}

/** Erases the region that the keyboard is at, or with `keepsIt` all others. */
function eraseChosen(keepsIt) {
  if (!chosen) return say("Choose a region with . and , first.");
  const before = startChange();
  for (let i = 0; i < chosen.length; i++) if (Boolean(chosen[i]) !== keepsIt) shown.label[i] = 0;
  endChange(before);
}

function restoreOriginal() {
  const before = startChange();
  shown.label.set(shown.original);
  endChange(before);
}

// ---- decisions

function decide(decision) {
  if (!shown) return;
  const frame = frames[position];
  if (frame.decision !== decision) {
    frame.decision = decision;
    saving.addDecision(position, decision);
    decidedAt.push(Date.now());
  }
  const after = frames.findIndex((other, index) => index > position && other.decision === "reopen");
  const open = after >= 0 ? after : frames.findIndex((other) => other.decision === "reopen");
  if (decision !== "reopen" && open >= 0) show(open);
  else describe();
}

function go(index) {
  if (index >= 0 && index < frames.length && index !== position) show(index);
}

// ---- what the page says

function describe() {
  const { sequence, frame, decision } = frames[position];
  const counts = { accept: 0, reject: 0, reopen: 0 };
  for (const other of frames) counts[other.decision]++;
  const done = frames.length - counts.reopen;
  element("name").textContent = `${sequence} / ${frame}`;
  const state = { accept: "accepted", reject: "rejected", reopen: "open" }[decision];
  const isEdited = shown && views.has(position) && shown.label.some((value, i) => value !== shown.original[i]);
  element("facts").textContent = [`${position + 1} of ${frames.length}`, state, isEdited && "changed", savingText]
    .filter(Boolean).join(" · ");
  element("progress").value = done / frames.length;
  element("progress-text").textContent = counts.reopen
    ? `${done} of ${frames.length} decided, ${counts.reject} rejected${remaining(counts.reopen)}`
    : `All ${frames.length} are decided, ${counts.reject} rejected.`;
  element("reopen").hidden = decision === "reopen";
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
  const recent = decidedAt.slice(-30), gaps = recent.slice(1).map((time, i) => time - recent[i]).sort((a, b) => a - b);
  if (gaps.length < 3) return "";
  const minutes = (gaps[gaps.length >> 1] * numOpen) / 60000;
  return minutes < 1 ? ", less than a minute left" : `, about ${Math.round(minutes)} min left`;
}

let savingText = "";
function reportSaving(state, text = "") {
  savingText = { saved: "saved", saving: "saving", waiting: "not saved", refused: "not saved" }[state];
  document.body.dataset.saving = state;
  if (text) say(text, true);
  else if (state === "saved" && message.classList.contains("is-bad")) say("");
  if (frames.length) describe();
}

function say(text, isBad = false) {
  clearTimeout(messageTimer);
  message.textContent = text;
  message.hidden = !text;
  message.classList.toggle("is-bad", isBad);
  if (text && !isBad) messageTimer = setTimeout(() => (message.hidden = true), 2500);
}

// ---- zoom

function fit() {
  const { clientWidth, clientHeight } = stage;
  const scale = Math.min(clientWidth / shown.width, clientHeight / shown.height);
  const [x, y] = [(clientWidth - scale * shown.width) / 2, (clientHeight - scale * shown.height) / 2];
  zoom = { scale, x, y, isFitted: true };
  place();
}

function zoomAt(factor, x, y) {
  if (!shown) return;
  const scale = Math.max(0.05, Math.min(40, zoom.scale * factor)), ratio = scale / zoom.scale;
  zoom = { scale, x: x - ratio * (x - zoom.x), y: y - ratio * (y - zoom.y), isFitted: false };
  place();
}

function place() {
  layers.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
  layers.style.imageRendering = zoom.scale > 3 ? "pixelated" : "auto";
  const size = element("size").value * zoom.scale;
  element("brush").style.width = element("brush").style.height = `${size}px`;
}

function isBrush() {
  return tool !== "region" && tool !== "keep";
}

function pointOf(event) {
  const box = stage.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  return { x: (x - zoom.x) / zoom.scale, y: (y - zoom.y) / zoom.scale, stageX: x, stageY: y };
}

function moveBrush(point) {
  element("brush").hidden = !isBrush();
  const size = element("size").value * zoom.scale;
  element("brush").style.transform = `translate(${point.stageX - size / 2}px, ${point.stageY - size / 2}px)`;
}

// ---- pointers: one draws, clicks or pans; two zoom

stage.addEventListener("pointerdown", (event) => {
  if (!shown || (event.button !== 0 && event.button !== 1)) return;
  event.preventDefault();
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  const point = pointOf(event);
  pointers.set(event.pointerId, point);
  if (pointers.size > 1) return cancelStroke();
  stroke = { start: point, last: point, from: { ...zoom }, isPan: event.button === 1, isTouch: event.pointerType !== "mouse" };
  if (isBrush() && !stroke.isPan) {
    stroke.before = startChange();
    brushTo(point);
  }
});

stage.addEventListener("pointermove", (event) => {
  const point = pointOf(event);
  if (event.pointerType === "mouse" || pointers.has(event.pointerId)) moveBrush(point);
  if (!pointers.has(event.pointerId) || !shown) return;
  if (pointers.size === 2) pinch(event.pointerId, point);
  else if (stroke?.before) for (const each of event.getCoalescedEvents?.() ?? [event]) brushTo(pointOf(each));
  else if (stroke) pan(point);
  pointers.set(event.pointerId, point);
});

for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    const ended = stroke;
    stroke = null;
    if (event.pointerType !== "mouse") element("brush").hidden = true;
    if (!ended || !shown) return;
    if (ended.before) endChange(ended.before);
    else if (kind === "pointerup" && !ended.isPan) {
      const reach = (ended.isTouch ? TOUCH_PIXELS : 2) / zoom.scale;
      clickRegion(pointOf(event), reach, tool === "keep" || event.shiftKey);
    }
  });
}
stage.addEventListener("pointerleave", () => (element("brush").hidden = true));
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { stageX, stageY } = pointOf(event);
  zoomAt(Math.exp(-event.deltaY / (event.deltaMode ? 20 : 400)), stageX, stageY);
}, { passive: false });

function cancelStroke() {
  if (stroke?.before) {
    shown.label.set(unpack(stroke.before, shown.label.length));
    paint();
  }
  stroke = null;
}

function pan(point) {
  const [dx, dy] = [point.stageX - stroke.start.stageX, point.stageY - stroke.start.stageY];
  if (!stroke.isPan && Math.hypot(dx, dy) < DRAG_PIXELS) return;
  stroke.isPan = true;
  zoom = { ...zoom, x: stroke.from.x + dx, y: stroke.from.y + dy, isFitted: false };
  place();
}

function pinch(moved, point) {
  const other = [...pointers].find(([id]) => id !== moved)[1], before = pointers.get(moved);
  const spread = (p) => Math.hypot(p.stageX - other.stageX, p.stageY - other.stageY);
  const middle = (p) => ({ x: (p.stageX + other.stageX) / 2, y: (p.stageY + other.stageY) / 2 });
  zoomAt(spread(point) / Math.max(spread(before), 1), middle(point).x, middle(point).y);
  zoom.x += middle(point).x - middle(before).x;
  zoom.y += middle(point).y - middle(before).y;
  place();
}

// ---- buttons and keys

function setTool(name) {
  tool = stage.dataset.tool = name;
  element("brush").hidden = true;
  for (const button of document.querySelectorAll("[data-tool]")) {
    if (button !== stage) button.setAttribute("aria-pressed", button.dataset.tool === name);
  }
}

function resizeBrush(factor) {
  const size = element("size");
  size.value = Math.max(Number(size.value) + Math.sign(factor - 1), Math.round(size.value * factor));
  place();
}

function middle(factor) {
  zoomAt(factor, stage.clientWidth / 2, stage.clientHeight / 2);
}

const actions = {
  a: () => decide("accept"), x: () => decide("reject"), u: () => decide("reopen"), arrowleft: () => go(position - 1),
  arrowright: () => go(position + 1), r: () => setTool("region"), e: () => setTool("erase"), b: () => setTool("restore"),
  d: () => setTool("add"), "[": () => resizeBrush(0.8), "]": () => resizeBrush(1.25), z: () => step(shown.undo, shown.redo),
  y: () => step(shown.redo, shown.undo), o: restoreOriginal, h: () => layers.classList.toggle("is-hidden"),
  ".": () => choose(chosenRank === null ? 0 : chosenRank + 1), ",": () => choose((chosenRank ?? 0) - 1),
  k: () => (chosen ? eraseChosen(true) : setTool("keep")), delete: () => eraseChosen(false),
  backspace: () => eraseChosen(false), "+": () => middle(1.25), "=": () => middle(1.25), "-": () => middle(0.8),
  0: () => fit(), "?": () => element("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.altKey) return;
  if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
  let key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    if (key === "z" && event.shiftKey) key = "y";
  }
  if (!Object.hasOwn(actions, key) || (!shown && !key.startsWith("arrow"))) return;
  event.preventDefault();
  actions[key]();
});

for (const button of document.querySelectorAll("button[data-tool]")) {
  button.addEventListener("click", () => setTool(button.dataset.tool));
}
for (const [id, key] of [["undo", "z"], ["redo", "y"], ["accept", "a"], ["reject", "x"], ["reopen", "u"], ["previous", "arrowleft"],
  ["next", "arrowright"], ["help-open", "?"]]) {
  element(id).addEventListener("click", () => (shown || key.startsWith("arrow")) && actions[key]());
}
element("size").addEventListener("input", place);
element("place").addEventListener("input", (event) => go(Number(event.target.value)));
new ResizeObserver(() => shown && (zoom.isFitted ? fit() : place())).observe(stage);

// ---- one browser at a time

function askForSeat(sentence) {
  saving.pause();
  const waiting = saving.changes.length;
  element("seat-title").textContent = `${sentence[0].toUpperCase()}${sentence.slice(1)}`;
  element("seat-text").textContent = waiting
    ? `Changes of this page that are not saved yet: ${waiting}. They are saved when you go on here.`
    : "What was changed there is saved. You can go on from there in this browser.";
  if (!element("seat").open) element("seat").showModal();
}

async function takeSeat(byForce) {
  const previous = seat || sessionStorage.getItem("seat") || "";
  const answer = await ask(`/api/seat${byForce ? "?force" : ""}`, { method: "POST", body: previous });
  seat = (await answer.json()).seat;
  sessionStorage.setItem("seat", seat);
}

async function open(byForce) {
  try {
    await takeSeat(byForce);
    const review = await (await ask("/api/review")).json();
    frames = review.frames.map(([sequence, frame, decision]) => ({ sequence, frame, decision }));
    for (const index of views.keys()) if (!saving.isPending(index)) views.delete(index);
    element("place").max = frames.length - 1;
    element("seat").close();
    saving.resume();
    const wanted = Number(location.hash.slice(1));
    await show(location.hash && frames[wanted] ? wanted : review.position);
  } catch (error) {
    if (error.kind === "seat") askForSeat(error.message);
    else {
      say(error instanceof Refusal ? error.message : "The server does not answer.", true);
      setTimeout(() => open(byForce), ALIVE_MS);
    }
  }
}

/** Takes the seat again when nobody else has: a server that was started again does not know who had it. */
async function regainSeat(sentence) {
  try {
    await takeSeat(false);
    saving.resume();
  } catch (error) {
    if (error.kind === "seat") askForSeat(sentence);
    else setTimeout(regainSeat, ALIVE_MS, sentence);
  }
}

/** Tells the server that this browser is still there. */
async function stay() {
  if (!seat || saving.isPaused) return;
  try {
    await ask("/api/seat/alive", { method: "POST", headers: { "X-Seat": seat } });
  } catch (error) {
    if (error.kind === "seat") regainSeat(error.message);
  }
}

element("seat").addEventListener("cancel", (event) => event.preventDefault());
element("seat-take").addEventListener("click", () => open(true));
window.addEventListener("pagehide", () => seat && navigator.sendBeacon("/api/seat/leave", seat));
window.addEventListener("pageshow", (event) => event.persisted && location.reload());
window.addEventListener("beforeunload", (event) => saving.changes.length && event.preventDefault());
setInterval(stay, ALIVE_MS);
setTool("region");
open(false);
