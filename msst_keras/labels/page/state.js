// What the page's parts share.

import { element } from "/common.js";

export const stage = element("stage"), layers = element("layers");

/**
 * title: the folder of the labels; frames: {sequence, frame, decision} in the order of review; position: of the frame that is shown or being loaded;
 * shown: its view, null while it loads; tool: "region", "keep", or a brush: "erase", "restore", "add".
 * A view is {image, width, height, label, original, undo, redo}; label and original have a byte a pixel, 0 or 1.
 */
export const state = { title: "", frames: [], position: 0, shown: null, tool: "region" };
