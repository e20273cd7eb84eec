// Labels as arrays of a byte a pixel, 0 or 1, row by row: bits on the wire, regions, brushes, and colours.

/** Bytes of eight pixels, the first in the highest bit, to `count` pixels. */
export function unpack(bytes, count) {
  const pixels = new Uint8Array(count);
  for (let i = 0; i < count; i++) pixels[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1;
  return pixels;
}

export function pack(pixels) {
  const bytes = new Uint8Array((pixels.length + 7) >> 3);
  for (let i = 0; i < pixels.length; i++) if (pixels[i]) bytes[i >> 3] |= 128 >> (i & 7);
  return bytes;
}

/** The pixels of the region around `start` where `inside(i)` holds; eight neighbours. */
export function regionAt(start, width, height, inside, seen = new Uint8Array(width * height)) {
  if (!inside(start) || seen[start]) return [];
  const region = [start];
  seen[start] = 1;
  for (let next = 0; next < region.length; next++) {
    const y = Math.floor(region[next] / width), x = region[next] - y * width;
    const [top, bottom] = [Math.max(y - 1, 0), Math.min(y + 1, height - 1)];
    const [left, right] = [Math.max(x - 1, 0), Math.min(x + 1, width - 1)];
    for (let v = top; v <= bottom; v++) {
      for (let i = v * width + left; i <= v * width + right; i++) {
        if (!seen[i] && inside(i)) {
          seen[i] = 1;
          region.push(i);
        }
      }
    }
  }
  return region;
}

/** All regions of a label, the largest first. */
export function regionsOf(label, width, height) {
  const seen = new Uint8Array(label.length), regions = [];
  for (let i = 0; i < label.length; i++) {
    if (label[i] && !seen[i]) regions.push(regionAt(i, width, height, (j) => label[j] === 1, seen));
  }
  return regions.sort((a, b) => b.length - a.length);
}

/** Calls `visit(i)` for each pixel within `radius` of the line between two points, and returns the box around them. */
export function alongLine(from, to, radius, width, height, visit) {
  const box = {
    left: Math.max(0, Math.floor(Math.min(from.x, to.x) - radius)),
    top: Math.max(0, Math.floor(Math.min(from.y, to.y) - radius)),
    right: Math.min(width - 1, Math.ceil(Math.max(from.x, to.x) + radius)),
    bottom: Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + radius)),
  };
  const [dx, dy] = [to.x - from.x, to.y - from.y], length = dx * dx + dy * dy;
  for (let y = box.top; y <= box.bottom; y++) {
    for (let x = box.left; x <= box.right; x++) {
      const along = length ? Math.max(0, Math.min(1, ((x + 0.5 - from.x) * dx + (y + 0.5 - from.y) * dy) / length)) : 0;
      const [ex, ey] = [from.x + along * dx - x - 0.5, from.y + along * dy - y - 0.5];
      if (ex * ex + ey * ey <= radius * radius) visit(y * width + x);
    }
  }
  return box;
}

// Yellow and blue differ for every eye. 32 bits as canvas has them in memory: alpha, blue, green, red.
const INSIDE = 0x6600d6ff, EDGE = 0xff00d6ff, ERASED = 0x59ff8c3c, CHOSEN = 0xb31478ff;

/** Colours a box of the overlay: the label and its outline, what was erased, and the chosen region. */
export function colour(pixels, view, chosen, box) {
  const { label, original, width, height } = view;
  for (let y = box.top; y <= box.bottom; y++) {
    for (let x = box.left; x <= box.right; x++) {
      const i = y * width + x;
      if (label[i]) {
        const isInner = x > 0 && label[i - 1] && x < width - 1 && label[i + 1] &&
          y > 0 && label[i - width] && y < height - 1 && label[i + width];
        pixels[i] = !isInner ? EDGE : chosen?.[i] ? CHOSEN : INSIDE;
      } else pixels[i] = original[i] ? ERASED : 0;
    }
  }
}
