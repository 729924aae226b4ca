// Sounds with a playhead, images that open large, explained words, filters, and interactive maps. All other content works without this script.
"use strict";

// --- Sounds: one plays at a time; its playhead moves over the image above the button. ---------------------------
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let playing = null; // the box whose sound plays

function partsOf(box) {
  return { audio: box.querySelector("audio"), button: box.querySelector("button"), head: box.querySelector(".playhead") };
}

function follow(box) {
  const { audio, head } = partsOf(box);
  if (head && audio.duration) head.style.left = `${(100 * audio.currentTime) / audio.duration}%`;
  if (!calm.matches && playing === box && !audio.paused) requestAnimationFrame(() => follow(box));
}

function setPlaying(box, on) {
  const { button, head } = partsOf(box);
  button.classList.toggle("on", on);
  button.querySelector(".verb").textContent = on ? "Pause" : "Play";
  if (head && on) head.hidden = false;
}

function prepare(box) {
  const { audio, button, head } = partsOf(box);
  if (box.dataset.ready) return audio;
  box.dataset.ready = "yes";
  audio.addEventListener("play", () => {
    if (playing && playing !== box) partsOf(playing).audio.pause();
    playing = box;
    setPlaying(box, true);
    follow(box);
  });
  audio.addEventListener("pause", () => setPlaying(box, false));
  audio.addEventListener("timeupdate", () => follow(box)); // the only update with reduced motion: a few per second
  audio.addEventListener("ended", () => { if (head) head.hidden = true; });
  audio.addEventListener("error", () => {
    button.classList.add("broken");
    button.querySelector(".verb").textContent = "Cannot play";
  });
  return audio;
}

function toggle(box) {
  const audio = prepare(box);
  if (audio.paused) audio.play().catch(() => {}); // the error event reports it
  else audio.pause();
}

document.addEventListener("click", (event) => {
  const box = event.target.closest(".sound");
  if (!box || !box.querySelector("audio")) return;
  if (event.target.closest(".play")) return toggle(box);
  const graph = event.target.closest(".graph");
  if (!graph) return;
  const audio = prepare(box);
  const place = graph.getBoundingClientRect();
  const share = (event.clientX - place.left) / place.width;
  const seek = () => { audio.currentTime = share * audio.duration; };
  if (audio.duration) seek();
  else audio.addEventListener("loadedmetadata", seek, { once: true });
  audio.play().catch(() => {});
});

// --- Images that open large, and lead to the next ones by the arrow keys. ---------------------------------------
const large = document.createElement("dialog");
large.className = "large";
large.setAttribute("aria-label", "Image");
let displayed = null; // the link whose image is large

function open(link) {
  const inside = link.querySelector("img");
  const image = new Image();
  image.src = link.href;
  image.alt = inside.alt;
  image.style.aspectRatio = `${inside.width} / ${inside.height}`;
  const caption = document.createElement("p");
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => large.close());
  caption.textContent = `${inside.alt} (← and → lead to the other images)`;
  large.replaceChildren(image, caption, close);
  displayed = link;
  if (!large.open) large.showModal();
  close.focus();
}

large.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const links = [...document.querySelectorAll("a.zoom")];
  open(links[(links.indexOf(displayed) + step + links.length) % links.length]);
});
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
large.addEventListener("close", () => displayed.focus());
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.zoom");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (!large.isConnected) document.body.append(large);
  open(link);
});

// --- Words of the glossary: explained while the mouse or the focus is on them. -----------------------------------
const note = document.createElement("div");
note.className = "note";
note.setAttribute("role", "tooltip");
note.id = "note";
let explained = null; // the word whose explanation is displayed

function explain(word) {
  hush();
  explained = word;
  note.textContent = word.dataset.explanation;
  document.body.append(note);
  word.setAttribute("aria-describedby", "note");
  const place = word.getBoundingClientRect();
  const room = document.documentElement.clientWidth - note.offsetWidth - 8;
  note.style.left = `${Math.max(8, Math.min(place.left, room))}px`;
  const below = place.bottom + 6;
  note.style.top = `${below + note.offsetHeight > innerHeight ? Math.max(place.top - note.offsetHeight - 6, 0) : below}px`;
}

function hush() {
  explained?.removeAttribute("aria-describedby");
  explained = null;
  note.remove();
}

for (const [name, act] of [["mouseover", explain], ["focusin", explain], ["mouseout", hush], ["focusout", hush]]) {
  document.addEventListener(name, (event) => { const word = event.target.closest?.(".term"); if (word) act(word); });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
// The browser itself scrolls to a word that gets the focus, so scrolling moves the explanation and does not remove it.
document.addEventListener("scroll", () => { if (explained) explain(explained); }, { capture: true, passive: true });

// --- Lists of units and clusters: filters and sort order. ----------------------------------------------------------
// A select or a checkbox filters by the data of its name; "order" names the data to sort by, falling unless the option
// has data-rising; "frames" displays the first five squares of a strip.
function addFilters(form, list) {
  const items = [...list.children];
  const output = form.querySelector("output");
  const update = () => {
    const { order, frames, ...filters } = Object.fromEntries(new FormData(form));
    const keep = (item) => Object.entries(filters).every(([name, value]) =>
      form.elements[name].type === "checkbox" ? name in item.dataset : !value || item.dataset[name] === value);
    const number = (item) => { const value = Number(item.dataset[order]); return Number.isNaN(value) ? -1 : value; };
    const rising = "rising" in form.elements.order.selectedOptions[0].dataset;
    const kept = items.filter(keep).map((item) => [number(item), item]);
    kept.sort((one, other) => (rising ? one[0] - other[0] : other[0] - one[0]));
    list.replaceChildren(...kept.map((pair) => pair[1]));
    list.classList.toggle("top5", frames === "5");
    output.textContent = `${kept.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} ${form.dataset.list}`;
  };
  form.hidden = false;
  if (form.elements.frames && matchMedia("(max-width: 40rem)").matches) {
    form.elements.frames.value = "5"; // nine would be too small
    list.classList.add("top5");
  }
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
}

// --- Maps: points display their moment on hover, touch, or arrow keys. -----------------------------------------------
const ROOM = 0.03; // of the side, around the points

function mark(context, shape, x, y, size) {
  context.beginPath();
  if (shape === "o") context.arc(x, y, size, 0, 2 * Math.PI);
  else if (shape === ".") context.arc(x, y, size * 0.6, 0, 2 * Math.PI);
  else if (shape === "s") context.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
  else {
    const corners = { "^": [[0, -1.15], [1.05, 0.8], [-1.05, 0.8]], v: [[0, 1.15], [1.05, -0.8], [-1.05, -0.8]], D: [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]] }[shape];
    for (const [right, down] of corners) context.lineTo(x + right * size, y + down * size);
    context.closePath();
  }
  context.fill();
}

function sharp(canvas, side) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}

class PointMap {
  constructor(holder, points, data, selected) {
    Object.assign(this, { points, data, selected, at: -1, size: 3.4 });
    this.order = points.map((_, number) => number).sort((one, other) => points[one][0] - points[other][0]);
    const figure = holder.querySelector("figure");
    const picture = figure.querySelector("picture");
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", `${picture.querySelector("img").alt}. Left and right arrow keys move between points.`);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.tip.setAttribute("role", "status");
    this.plot.append(this.canvas, this.tip);
    picture.replaceWith(this.plot);
    this.canvas.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    this.canvas.addEventListener("pointerdown", (event) => this.point(this.nearest(event)));
    this.canvas.addEventListener("pointerleave", () => this.point(-1));
    this.canvas.addEventListener("blur", () => this.point(-1));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }
  place(point) {
    const side = this.side * (1 - 2 * ROOM);
    return [this.side * ROOM + point[0] * side, this.side * ROOM + (1 - point[1]) * side];
  }
  draw() {
    this.side = this.canvas.clientWidth;
    if (!this.side) return;
    const context = sharp(this.canvas, this.side);
    const look = (point) => this.data.moments[point[2]][1];
    const rest = [], lit = [];
    for (const point of this.points) (this.selected.size && !this.selected.has(look(point)) ? rest : lit).push(point);
    for (const [points, alpha] of [[rest, 0.12], [lit, 0.9]]) {
      context.globalAlpha = alpha;
      for (const point of points) {
        const [, color, shape] = this.data.looks[look(point)];
        context.fillStyle = color;
        mark(context, shape, ...this.place(point), this.size);
      }
    }
    if (this.at < 0) return;
    const [x, y] = this.place(this.points[this.at]);
    context.globalAlpha = 1;
    context.strokeStyle = getComputedStyle(document.body).color;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.stroke();
  }
  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    let best = -1, least = 20 ** 2;
    this.points.forEach((point, number) => {
      const [x, y] = this.place(point);
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < least) [best, least] = [number, distance];
    });
    return best;
  }
  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") return this.point(-1);
    if (!step) return;
    event.preventDefault();
    const place = this.order.indexOf(this.at);
    const next = this.at < 0 ? (step > 0 ? 0 : this.order.length - 1) : (place + step + this.order.length) % this.order.length;
    this.point(this.order[next]);
  }
  point(number) {
    if (number === this.at) return;
    this.at = number;
    this.draw();
    this.tip.hidden = number < 0;
    if (number < 0) return;
    const [file, , annotation, clip] = this.data.moments[this.points[number][2]];
    const image = new Image(64);
    image.src = file;
    image.alt = "";
    const words = [annotation, clip].map((text) => { const line = document.createElement("bdi"); line.textContent = text.length > 60 ? `${text.slice(0, 59)}…` : text; line.style.display = "block"; return line; });
    this.tip.replaceChildren(image, ...words);
    const [x, y] = this.place(this.points[number]);
    this.tip.style.left = `${Math.min(Math.max(x - 76, 0), Math.max(this.side - 152, 0))}px`;
    this.tip.style.top = y > this.side / 2 ? "" : `${y + 14}px`;
    this.tip.style.bottom = y > this.side / 2 ? `${this.side - y + 14}px` : "";
  }
}

function legend(data, selected, redraw) {
  const list = document.createElement("ul");
  list.className = "legend";
  list.setAttribute("aria-label", "Annotations; select some to highlight them");
  const used = new Set(data.moments.map((moment) => moment[1]));
  data.looks.forEach(([name, color, shape], number) => {
    if (!used.has(number)) return;
    const button = document.createElement("button");
    const key = document.createElement("canvas");
    const label = document.createElement("bdi");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    label.textContent = name;
    const context = sharp(key, 14);
    context.fillStyle = color;
    mark(context, shape, 7, 7, 5);
    button.append(key, label);
    button.addEventListener("click", () => {
      if (!selected.delete(number)) selected.add(number);
      button.setAttribute("aria-pressed", selected.has(number));
      redraw();
    });
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  });
  return list;
}

for (const run of document.querySelectorAll(".run")) {
  const form = run.querySelector(".filters");
  if (form) addFilters(form, run.querySelector(`.${form.dataset.list}`));
  const script = run.querySelector("script.points");
  if (!script) continue;
  const data = JSON.parse(script.textContent);
  const selected = new Set();
  const holders = [...run.querySelectorAll("[data-map]")];
  const maps = holders.map((holder) => new PointMap(holder, data.maps[holder.dataset.map], data, selected));
  run.querySelector(".maps").before(legend(data, selected, () => maps.forEach((map) => map.draw())));
}
