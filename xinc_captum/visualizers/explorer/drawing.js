// Format numbers, and draw maps on canvases.

const byId = (id) => document.getElementById(id);

function percent(share) {
  const value = 100 * share;
  return `${value.toFixed(value >= 9.95 ? 0 : value >= 0.095 ? 1 : 2)} %`;
}

// Blue is negative, white is zero, red is positive, as in the figures.
const STOPS = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
const COLOURS = Array.from({ length: 255 }, (_, i) => {
  const place = (i / 254) * 4;
  const low = Math.min(3, Math.floor(place));
  return STOPS[low].map((from, c) => Math.round(from + (place - low) * (STOPS[low + 1][c] - from)));
});

// Return a small canvas with the map of a neuron, one pixel per value.
function painted(units, unit, frame, limit = units.limit(unit)) {
  const canvas = document.createElement("canvas");
  canvas.width = units.mapWidth;
  canvas.height = units.mapHeight;
  const image = new ImageData(canvas.width, canvas.height);
  units.map(unit, frame).forEach((value, i) => {
    const step = Math.round(127 * Math.max(-1, Math.min(1, value / limit)));
    image.data.set(COLOURS[127 + step], 4 * i);
    image.data[4 * i + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Return a button for a neuron with its map, its name and, if given, its share.
function unitButton(units, unit, frame, share, choose) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.unit = unit;
  const name = document.createElement("span");
  name.textContent = units.name(unit);
  button.append(painted(units, unit, frame), name);
  if (share !== null) {
    const bar = document.createElement("i");
    bar.style.setProperty("--share", share);
    const said = document.createElement("b");
    said.textContent = percent(share);
    button.append(bar, said);
  }
  button.addEventListener("click", () => choose(unit));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// Resize a canvas to its width on the page and return its context in CSS pixels.
function fitted(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 300;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
