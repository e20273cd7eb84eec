// Changes on their way to the server, in order, one at a time. While it does not answer or cannot save, as when its disk
// is full, they wait and are sent again.

import { ask, Refusal } from "/common.js";

const RETRY_MS = 1500;

export class Saving {
  /**
   * `seat()` names this browser. `report(state, text)` is told "saved", "saving", "waiting" or "refused".
   * `onRefusal(change, refusal)` is told of a change that was not taken.
   */
  constructor(seat, report, onRefusal) {
    this.changes = [];
    this.versions = new Map();
    Object.assign(this, { seat, report, onRefusal, isSending: false, isPaused: false });
  }

  isPending(index) {
    return this.changes.some((change) => change.index === index);
  }

  addLabel(index, bytes) {
    const last = this.changes.at(-1);
    const isWaiting = last && last.index === index && last.bytes && !(this.isSending && this.changes.length === 1);
    if (isWaiting) last.bytes = bytes;
    else this.changes.push({ index, bytes });
    this.send();
  }

  addDecision(index, decision) {
    this.changes.push({ index, decision });
    this.send();
  }

  pause() {
    this.isPaused = true;
  }

  resume() {
    this.isPaused = false;
    this.send();
  }

  async send() {
    if (this.isSending || this.isPaused) return;
    this.isSending = true;
    while (this.changes.length && !this.isPaused) {
      this.report("saving");
      const change = this.changes[0];
      try {
        await this.put(change);
        this.changes.shift();
      } catch (error) {
        if (error instanceof Refusal && error.status < 500) {
          if (error.kind !== "seat") this.changes.shift();
          else this.isPaused = true;
          this.report("refused", error.message);
          this.onRefusal(change, error);
        } else {
          const reason = error instanceof Refusal ? error.message : "the server does not answer";
          this.report("waiting", `Not saved yet: ${reason}. Keep this page open.`);
          await new Promise((done) => setTimeout(done, RETRY_MS));
        }
      }
    }
    this.isSending = false;
    if (!this.changes.length) this.report("saved");
  }

  async put({ index, bytes, decision }) {
    const headers = { "X-Seat": this.seat() };
    if (decision) {
      await ask(`/api/frames/${index}/decision`, { method: "PUT", headers, body: decision });
      return;
    }
    if (this.versions.has(index)) headers["X-Version"] = this.versions.get(index);
    const response = await ask(`/api/frames/${index}/label`, { method: "PUT", headers, body: bytes });
    this.versions.set(index, (await response.json()).version);
  }
}
