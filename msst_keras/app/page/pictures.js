// The frames and maps of a job, and how a map is laid over its frame.

import { ask } from "/common.js";

const KEPT = 90;
const AHEAD = 8;
// As the overlay video: the frame is dimmed where nothing is salient, and tinted from dark blue to yellow (cividis).
const HEAT_OPACITY = 0.55, BACKGROUND_BRIGHTNESS = 0.6, DARK = [0, 32, 77], BRIGHT = [255, 234, 70];

export class Pictures {
  constructor(job) {
    this.number = job.number;
    [this.height, this.width] = job.size;
    this.pairs = new Map();
  }

  /** {frame, map} of a frame, as bitmaps. */
  load(index) {
    if (!this.pairs.has(index)) {
      const pair = this.fetch(index);
      this.pairs.set(index, pair);
      pair.catch(() => this.pairs.delete(index));
      if (this.pairs.size > KEPT) this.pairs.delete(this.pairs.keys().next().value);
    }
    return this.pairs.get(index);
  }

  loadAhead(index, last) {
    for (let ahead = index; ahead <= Math.min(index + AHEAD, last); ahead++) this.load(ahead).catch(() => {});
  }

  async fetch(index) {
    const read = async (kind) => createImageBitmap(await (await ask(`/api/${kind}/${this.number}/${index}`)).blob());
    const [frame, map] = await Promise.all([read("frames"), read("maps")]);
    return { frame, map };
  }
}

/** Draws the frame on `source` with its map laid over to `target`, and the outline of map >= threshold. */
export function drawOverlay(target, source, map, threshold) {
  const { width, height } = source;
  Object.assign(target, { width, height });
  const context = target.getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0, width, height);
  const levels = context.getImageData(0, 0, width, height).data;
  const image = source.getContext("2d").getImageData(0, 0, width, height), pixels = image.data;
  const limit = Math.max(threshold * 255, 0.5);
  for (let i = 0; i < pixels.length; i += 4) {
    const saliency = levels[i] / 255, opacity = HEAT_OPACITY * saliency;
    const brightness = BACKGROUND_BRIGHTNESS + (1 - BACKGROUND_BRIGHTNESS) * saliency;
    for (let c = 0; c < 3; c++) {
      const heat = DARK[c] + saliency * (BRIGHT[c] - DARK[c]);
      pixels[i + c] = (1 - opacity) * brightness * pixels[i + c] + opacity * heat;
    }
  }
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const i = 4 * (y * width + x);
      if (levels[i] < limit) continue;
      const isEdge = levels[i - 4] < limit || levels[i + 4] < limit || levels[i - 4 * width] < limit ||
        levels[i + 4 * width] < limit;
      if (isEdge) pixels[i] = pixels[i + 1] = pixels[i + 2] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}
