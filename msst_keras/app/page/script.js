// The app's page: sends a video, follows its progress, and plays it beside its saliency.

import { ask, element, Refusal } from "/common.js";
import { drawOverlay, Pictures } from "/pictures.js";

const POLL_MS = 400;

let job = { state: "idle" }, pictures = null, playing = 0, upload = null, shownError = "";
let isChoosing = false; // another video, while the last one is still there

function show(state) {
  const isBusy = state === "receiving" || state === "working";
  element("take").hidden = isBusy || state === "done";
  element("back").hidden = !isChoosing;
  element("title").hidden = !isBusy && state !== "done";
  element("work").hidden = !isBusy;
  element("view").hidden = !(pictures && (state === "working" || state === "done"));
  element("results").hidden = state !== "done";
  document.body.dataset.state = state;
}

function fail(sentence) {
  shownError = sentence;
  // The server's sentences begin small, as they stand behind a program's name in a terminal, or with the video's name.
  const isName = job.title && sentence.startsWith(job.title);
  element("error").textContent = isName ? sentence : `${sentence.slice(0, 1).toUpperCase()}${sentence.slice(1)}`;
  element("error").hidden = !sentence;
}

// ---- sending

async function send(file) {
  fail("");
  if (file.size > job.max_megabytes * 2 ** 20) {
    return fail(`A video may have ${job.max_megabytes} MB at most; ${file.name} is larger.`);
  }
  stop();
  [pictures, isChoosing] = [null, false];
  upload = new XMLHttpRequest(); // fetch does not tell how far an upload is
  upload.open("POST", `/api/video?name=${encodeURIComponent(file.name)}${element("refine").checked ? "&refine" : ""}`);
  upload.upload.onprogress = ({ loaded, total }) => describeWork("The video is being sent", loaded / total);
  upload.onerror = () => endUpload("The server does not answer.");
  upload.onload = () => {
    if (upload.status === 200) return endUpload("");
    let answer = {};
    try {
      answer = JSON.parse(upload.responseText);
    } catch { /* no sentence of ours */ }
    endUpload(answer.error ?? `The server failed (${upload.status}); its terminal says why.`);
  };
  element("title").textContent = file.name;
  describeWork("The video is being sent", 0);
  show("receiving");
  upload.send(file);
}

function endUpload(sentence) {
  upload = null;
  if (sentence) {
    fail(sentence);
    show("idle");
  }
  follow();
}

function describeWork(text, share) {
  element("work-text").textContent = text;
  if (share > 0) element("progress").value = share;
  else element("progress").removeAttribute("value");
}

// ---- following

let timer = 0;
async function follow() {
  clearTimeout(timer);
  try {
    const before = job;
    job = await (await ask("/api/job")).json();
    element("model").textContent = `Model: ${job.model}`;
    element("file").accept = `video/*,${job.suffixes}`;
    element("limits").textContent = `At most ${job.max_megabytes} MB and ${job.max_frames} frames. It stays on this machine.`;
    if (!upload) await update(before);
  } catch (error) {
    if (!(error instanceof Refusal)) describeWork("The server does not answer.", 0);
  }
  timer = setTimeout(follow, document.hidden ? 5 * POLL_MS : POLL_MS);
}

async function update(before) {
  const isNew = before.number !== job.number || before.state !== job.state;
  if (isNew) fail(job.state === "failed" ? job.error : shownError);
  if (job.state === "working" || job.state === "done") {
    if (!pictures || pictures.number !== job.number) pictures = job.size && job.num_done ? new Pictures(job) : null;
    element("title").textContent = job.title;
    describeWork(
      job.num_done ? `${job.num_done} of ${job.num_frames || "?"} frames` : "The model is being loaded",
      job.num_frames ? job.num_done / job.num_frames : 0,
    );
    const count = job.state === "done" ? job.num_frames : Math.max(job.num_done - 1, 0);
    element("place").max = Math.max(count - 1, 0);
    show(isChoosing ? "idle" : job.state);
    if (job.state === "working" && !playing && count) await draw(count - 1); // the newest
    else if (isNew && count) await draw(0);
  } else {
    stop();
    pictures = null;
    show(job.state);
  }
}

// ---- looking

async function draw(index) {
  if (!pictures) return;
  const pair = await pictures.load(index).catch(() => null);
  if (!pair || !pictures) return;
  element("place").value = index;
  element("place-text").textContent = `${index + 1} / ${Number(element("place").max) + 1}`;
  const canvas = element("video");
  Object.assign(canvas, { width: pictures.width, height: pictures.height });
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(pair.frame, 0, 0, canvas.width, canvas.height);
  drawOverlay(element("overlay"), canvas, pair.map, Number(element("threshold").value));
  document.body.dataset.frame = index;
}

async function play() {
  const mine = ++playing;
  element("play").textContent = "\u23f8";
  element("play").setAttribute("aria-label", "Pause");
  let index = Number(element("place").value);
  if (index >= Number(element("place").max)) index = -1;
  let due = performance.now();
  while (playing === mine && pictures && index < Number(element("place").max)) {
    index += 1;
    pictures.loadAhead(index, Number(element("place").max));
    await draw(index);
    due = Math.max(due + 1000 / (job.frame_rate || 24), performance.now());
    await new Promise((done) => setTimeout(done, due - performance.now()));
  }
  if (playing === mine) stop();
}

function stop() {
  playing = 0;
  element("play").textContent = "\u25b6";
  element("play").setAttribute("aria-label", "Play");
}

element("play").addEventListener("click", () => (playing ? stop() : play()));
element("place").addEventListener("input", (event) => {
  stop();
  draw(Number(event.target.value));
});
element("threshold").addEventListener("input", (event) => {
  element("threshold-text").textContent = Number(event.target.value).toFixed(2);
  draw(Number(element("place").value));
});
element("file").addEventListener("change", (event) => {
  if (event.target.files[0]) send(event.target.files[0]);
  event.target.value = "";
});
element("another").addEventListener("click", () => {
  stop();
  isChoosing = true;
  show("idle");
  element("file").focus();
});
element("back").addEventListener("click", () => {
  isChoosing = false;
  fail("");
  show(job.state);
  draw(Number(element("place").value));
});
element("cancel").addEventListener("click", async () => {
  if (upload) upload.abort();
  upload = null;
  await ask("/api/cancel", { method: "POST" }).catch(() => {});
  fail("Cancelled.");
  follow();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("is-over", kind === "dragover");
    const file = kind === "drop" && !element("take").hidden && event.dataTransfer.files[0];
    if (file) send(file);
  });
}
document.addEventListener("keydown", (event) => {
  const isFree = event.target === document.body || event.target.tagName === "CANVAS";
  if (event.key === " " && isFree && !element("view").hidden) {
    event.preventDefault();
    element("play").click();
  }
});
follow();
