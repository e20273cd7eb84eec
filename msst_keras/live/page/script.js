// The live page: the picture streams by itself; this asks for the numbers beside it.

import { ask, element } from "/common.js";

const POLL_MS = 1000;

async function follow() {
  try {
    const state = await (await ask("/api/state")).json();
    element("title").textContent = state.title;
    element("numbers").textContent =
      `${state.rate.toFixed(1)} maps a second, ${state.lag.toFixed(2)} s behind, ${state.dropped} of ${state.frames} frames dropped`;
    element("message").textContent = state.over ? state.error || "The source has ended." : "";
    document.body.dataset.maps = state.maps;
    if (state.over) return;
  } catch {
    element("message").textContent = "The program has ended.";
    return;
  }
  setTimeout(follow, POLL_MS);
}
follow();
