// The review page: its buttons and keys. The parts: frames.js shows, editor.js changes, saving.js saves, seat.js keeps
// other browsers apart, zoom.js and pointers.js are the stage, status.js talks, mask.js knows labels.

import { element } from "/common.js";
import { chooseNext, eraseChosen, hasChosen, redo, restoreOriginal, undo } from "/editor.js";
import { decide, go } from "/frames.js";
import "/pointers.js";
import { open } from "/seat.js";
import { layers, stage, state } from "/state.js";
import { fit, refresh, zoomMiddle } from "/zoom.js";

const tools = document.querySelectorAll("button[data-tool]");

function setTool(name) {
  state.tool = stage.dataset.tool = name;
  element("brush").hidden = true;
  for (const button of tools) button.setAttribute("aria-pressed", button.dataset.tool === name);
}

function resizeBrush(factor) {
  const size = element("size");
  size.value = Math.max(Number(size.value) + Math.sign(factor - 1), Math.round(size.value * factor));
  refresh();
}

const move = { arrowleft: () => go(state.position - 1), arrowright: () => go(state.position + 1) };
const actions = { // of a frame that is shown
  a: () => decide("accept"), x: () => decide("reject"), u: () => decide("reopen"), z: undo, y: redo, o: restoreOriginal,
  r: () => setTool("region"), e: () => setTool("erase"), b: () => setTool("restore"), d: () => setTool("add"),
  k: () => (hasChosen() ? eraseChosen(true) : setTool("keep")), ".": () => chooseNext(1), ",": () => chooseNext(-1),
  delete: () => eraseChosen(false), backspace: () => eraseChosen(false), "[": () => resizeBrush(0.8),
  "]": () => resizeBrush(1.25), "+": () => zoomMiddle(1.25), "=": () => zoomMiddle(1.25), "-": () => zoomMiddle(0.8),
  0: fit, h: () => layers.classList.toggle("is-hidden"), "?": () => element("help").showModal(),
};

/** Does what a key stands for; says whether there is such a key now. */
function act(key) {
  const action = move[key] ?? (state.shown && Object.hasOwn(actions, key) ? actions[key] : null);
  action?.();
  return Boolean(action);
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.altKey) return;
  if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
  let key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    if (key === "z" && event.shiftKey) key = "y";
  }
  if (act(key)) event.preventDefault();
});

for (const button of tools) button.addEventListener("click", () => setTool(button.dataset.tool));
const keys = { undo: "z", redo: "y", accept: "a", reject: "x", reopen: "u", previous: "arrowleft", next: "arrowright",
  "help-open": "?" };
for (const [id, key] of Object.entries(keys)) element(id).addEventListener("click", () => act(key));
element("size").addEventListener("input", refresh);
element("place").addEventListener("input", (event) => go(Number(event.target.value)));
new ResizeObserver(refresh).observe(stage);
setTool("region");
open(false);
