// How large the frame is shown and where: fitted to the stage until somebody zooms or pans.

import { element } from "/common.js";
import { layers, stage, state } from "/state.js";

const LIMITS = [0.05, 40], SHARP_FROM = 3;
let zoom = { scale: 1, x: 0, y: 0, isFitted: true };

export function current() {
  return { ...zoom };
}

export function fit() {
  const { clientWidth, clientHeight } = stage, { width, height } = state.shown;
  const scale = Math.min(clientWidth / width, clientHeight / height);
  zoom = { scale, x: (clientWidth - scale * width) / 2, y: (clientHeight - scale * height) / 2, isFitted: true };
  apply();
}

/** After the stage or the frame has another size. */
export function refresh() {
  if (!state.shown) return;
  if (zoom.isFitted) fit();
  else apply();
}

/** Zooms around a point of the stage. */
export function zoomAt(factor, x, y) {
  if (!state.shown) return;
  const scale = Math.max(LIMITS[0], Math.min(LIMITS[1], zoom.scale * factor)), ratio = scale / zoom.scale;
  moveTo({ scale, x: x - ratio * (x - zoom.x), y: y - ratio * (y - zoom.y) });
}

export function zoomMiddle(factor) {
  zoomAt(factor, stage.clientWidth / 2, stage.clientHeight / 2);
}

export function moveTo(place) {
  zoom = { ...zoom, ...place, isFitted: false };
  apply();
}

function apply() {
  layers.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
  layers.style.imageRendering = zoom.scale > SHARP_FROM ? "pixelated" : "auto";
  const brush = element("brush"), size = `${element("size").value * zoom.scale}px`;
  Object.assign(brush.style, { width: size, height: size });
}

/** Where a pointer is: x and y in pixels of the frame, stageX and stageY on the stage. */
export function pointOf(event) {
  const box = stage.getBoundingClientRect();
  const [stageX, stageY] = [event.clientX - box.left, event.clientY - box.top];
  return { x: (stageX - zoom.x) / zoom.scale, y: (stageY - zoom.y) / zoom.scale, stageX, stageY };
}
