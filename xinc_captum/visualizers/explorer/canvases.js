// The page of canvases: one state object, from which everything is drawn.

const data = JSON.parse(byId("data").textContent);
const state = { size: data.size, units: null, frame: 0, x: 0, y: 0, held: false, unit: null };
const board = byId("picture");
const frames = data.frames.map((source) => Object.assign(new Image(), { src: source }));
const layers = new Map();
let asked = 0;
const clusters = new ClusterMap(byId("map"), choose);
let waiting = false;

function choose(unit) {
  state.unit = unit;
  draw();
}

// Draw at most once per screen refresh.
function draw() {
  if (waiting || !state.units) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawPicture();
    const focused = document.activeElement?.closest?.("ol, ul");
    const kept = focused && [focused.id, document.activeElement.dataset.unit];
    const here = showPixel(state, choose);
    showUnit(state, choose);
    clusters.draw(state.units, state.unit, here);
    if (kept) (document.querySelector(`#${kept[0]} [data-unit="${kept[1]}"]`) || board).focus({ preventScroll: true });
  });
}

function drawPicture() {
  const { units, frame, unit, x, y } = state;
  const scale = Math.max(1, Math.ceil(1000 / state.size[1]));
  board.width = state.size[1] * scale;
  board.height = state.size[0] * scale;
  const context = board.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(frames[frame], 0, 0, board.width, board.height);
  if (unit !== null) {
    context.globalAlpha = byId("opacity").value / 100;
    context.drawImage(painted(units, unit, frame), 0, 0, board.width, board.height);
    context.globalAlpha = 1;
  }
  const [wide, tall] = [board.width / units.grid[1], board.height / units.grid[0]];
  const [cx, cy] = [(x + 0.5) * wide, (y + 0.5) * tall];
  for (const [colour, width] of [["#000a", 7], ["#fff", 3]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(cx, cy, Math.max(14, wide), 0, 7);
    context.stroke();
    if (state.held) context.strokeRect(cx - 3, cy - 3, 6, 6);
  }
  byId("opacity").disabled = unit === null;
}

function pixelOf(event) {
  const box = board.getBoundingClientRect();
  const [height, width] = state.units.grid;
  const cell = (at, length, count) => Math.max(0, Math.min(count - 1, Math.floor((at / length) * count)));
  return [cell(event.clientX - box.left, box.width, width), cell(event.clientY - box.top, box.height, height)];
}

board.addEventListener("pointermove", (event) => {
  if (!state.units || state.held || event.pointerType === "touch") return;
  [state.x, state.y] = pixelOf(event);
  draw();
});

board.addEventListener("click", (event) => {
  if (!state.units) return;
  const touched = event.pointerType === "touch"; // touch has no hover, so a pixel need not be fixed
  state.held = !touched && !state.held;
  if (touched || state.held) [state.x, state.y] = pixelOf(event);
  draw();
});

board.addEventListener("keydown", (event) => {
  if (!state.units) return;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const [height, width] = state.units.grid;
  if (step) {
    const far = event.shiftKey ? 8 : 1;
    state.x = Math.max(0, Math.min(width - 1, state.x + far * step[0]));
    state.y = Math.max(0, Math.min(height - 1, state.y + far * step[1]));
  } else if (event.key === "Enter") {
    const [first] = state.units.at(state.frame, state.x, state.y);
    if (first.share > 0) state.unit = first.unit;
  } else {
    return;
  }
  event.preventDefault();
  draw();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  Object.assign(state, { unit: null, held: false });
  draw();
});

byId("opacity").addEventListener("input", draw);
byId("number").addEventListener("change", (event) => {
  const unit = Math.round(Number(event.target.value));
  if (event.target.value !== "" && unit >= 0 && unit < state.units.units) choose(unit);
  else event.target.value = state.unit ?? "";
});
for (const [id, way] of [["stronger", -1], ["weaker", 1]]) {
  byId(id).addEventListener("click", () => {
    const { units, unit } = state;
    const place = unit === null ? 0 : Math.max(0, Math.min(units.units - 1, units.rank[unit] + way));
    choose(units.order[place]);
  });
}
byId("frame")?.addEventListener("input", (event) => {
  state.frame = Number(event.target.value);
  byId("frame-said").textContent = event.target.value;
  draw();
});

async function show(number) {
  asked = number;
  if (!layers.has(number)) {
    const holder = byId(`blob-${number}`);
    layers.set(number, unpacked(holder.textContent).then((buffer) => new Units(data.layers[number], buffer)));
  }
  const units = await layers.get(number);
  if (asked !== number && state.units) return; // another layer was chosen while this one was unpacked
  const old = state.units?.grid || units.grid;
  state.x = Math.floor(((state.x + 0.5) * units.grid[1]) / old[1]);
  state.y = Math.floor(((state.y + 0.5) * units.grid[0]) / old[0]);
  if (!state.units) [state.x, state.y] = [Math.floor(units.grid[1] / 2), Math.floor(units.grid[0] / 2)];
  Object.assign(state, { units, unit: null });
  const [first, second] = data.layers[number].spread;
  byId("map-said").textContent =
    "Neurons with similar contributions are close to each other; larger points contribute more. Click one, or use the arrow keys. " +
    `Two principal components with ${percent(first)} and ${percent(second)} of the variance; coloured neurons contribute to the selected pixel.`;
  for (const button of document.querySelectorAll("[data-layer]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.layer) === number));
  }
  const told = document.querySelectorAll("p.verdict[data-of]");
  for (const line of told) line.hidden = line.dataset.of !== units.layer;
  draw();
}

for (const button of document.querySelectorAll("[data-layer]")) {
  button.addEventListener("click", () => show(Number(button.dataset.layer)));
}
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

Promise.all([show(0), ...frames.map((one) => one.decode())]).then(draw).then(() => {
  document.documentElement.dataset.ready = "yes";
}).catch((error) => {
  const old = typeof DecompressionStream === "undefined";
  byId("trouble").textContent = old
    ? "This browser cannot read the data; use a browser of 2023 or later."
    : `The data in this file cannot be read (${error}); it may be damaged.`;
  byId("trouble").hidden = false;
});
