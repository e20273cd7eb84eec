// Mouse, pen and fingers on the stage: one draws, clicks or pans; two zoom.

import { element } from "/common.js";
import { brush, cancelChange, clickRegion, endChange, startChange } from "/editor.js";
import { stage, state } from "/state.js";
import { current, moveTo, pointOf, zoomAt } from "/zoom.js";

const TOUCH_PIXELS = 14, MOUSE_PIXELS = 2; // of the screen, by which a region may be missed
const DRAG_PIXELS = 6;
const pointers = new Map(); // those that are down: id -> where
let stroke = null;

function isBrush() {
  return ["erase", "restore", "add"].includes(state.tool);
}

function showBrush(point) {
  element("brush").hidden = !isBrush();
  const size = element("size").value * current().scale;
  element("brush").style.transform = `translate(${point.stageX - size / 2}px, ${point.stageY - size / 2}px)`;
}

stage.addEventListener("pointerdown", (event) => {
  if (!state.shown || (event.button !== 0 && event.button !== 1)) return;
  event.preventDefault();
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  const point = pointOf(event);
  pointers.set(event.pointerId, point);
  if (pointers.size > 1) {
    if (stroke?.before) cancelChange(stroke.before);
    stroke = null;
    return;
  }
  const isMouse = event.pointerType === "mouse";
  stroke = { view: state.shown, start: point, last: point, from: current(), isPan: event.button === 1, isMouse };
  if (isBrush() && !stroke.isPan) {
    stroke.before = startChange();
    brush(point, point);
  }
});

stage.addEventListener("pointermove", (event) => {
  const point = pointOf(event);
  if (event.pointerType === "mouse" || pointers.has(event.pointerId)) showBrush(point);
  if (!pointers.has(event.pointerId) || !state.shown) return;
  if (pointers.size === 2) pinch(event.pointerId, point);
  else if (stroke?.before && stroke.view === state.shown) {
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const next = pointOf(each);
      brush(stroke.last, next);
      stroke.last = next;
    }
  } else if (stroke && !stroke.before) pan(point);
  pointers.set(event.pointerId, point);
});

for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => {
    if (!pointers.delete(event.pointerId)) return;
    const ended = stroke;
    stroke = null;
    if (event.pointerType !== "mouse") element("brush").hidden = true;
    if (!ended || ended.view !== state.shown) return; // a key has gone on to another frame meanwhile
    if (ended.before) endChange(ended.before);
    else if (kind === "pointerup" && !ended.isPan) {
      const reach = (ended.isMouse ? MOUSE_PIXELS : TOUCH_PIXELS) / current().scale;
      clickRegion(pointOf(event), reach, state.tool === "keep" || event.shiftKey);
    }
  });
}

stage.addEventListener("pointerleave", () => (element("brush").hidden = true));
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { stageX, stageY } = pointOf(event);
  zoomAt(Math.exp(-event.deltaY / (event.deltaMode ? 20 : 400)), stageX, stageY);
}, { passive: false });

function pan(point) {
  const [dx, dy] = [point.stageX - stroke.start.stageX, point.stageY - stroke.start.stageY];
  if (!stroke.isPan && Math.hypot(dx, dy) < DRAG_PIXELS) return;
  stroke.isPan = true;
  moveTo({ x: stroke.from.x + dx, y: stroke.from.y + dy });
}

function pinch(moved, point) {
  const other = [...pointers].find(([id]) => id !== moved)[1], before = pointers.get(moved);
  const spread = (p) => Math.hypot(p.stageX - other.stageX, p.stageY - other.stageY);
  const middle = (p) => ({ x: (p.stageX + other.stageX) / 2, y: (p.stageY + other.stageY) / 2 });
  zoomAt(spread(point) / Math.max(spread(before), 1), middle(point).x, middle(point).y);
  const { x, y } = current();
  moveTo({ x: x + middle(point).x - middle(before).x, y: y + middle(point).y - middle(before).y });
}
