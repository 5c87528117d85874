// Text beside the picture: the neurons at a pixel, and one neuron.

function showPixel(state, choose) {
  const { units, frame, x, y } = state;
  const here = units.at(frame, x, y).filter((one) => one.share > 0);
  const [height, width] = units.grid;
  const whole = height === state.size[0] && width === state.size[1];
  const where = whole ? `pixel ${x}, ${y}` : `the cell around pixel ${Math.floor(((x + 0.5) * state.size[1]) / width)}, ${Math.floor(((y + 0.5) * state.size[0]) / height)}`;
  const held = state.held ? " (fixed)" : "";
  byId("pixel").textContent = here.length
    ? `At ${where}${held}: share of each neuron in all contributions.`
    : `At ${where}${held}: no contributions.`;
  byId("top").replaceChildren(...here.map((one) => unitButton(units, one.unit, frame, one.share, choose)));
  const rest = 1 - here.reduce((sum, one) => sum + one.share, 0);
  const others = units.units - here.length;
  byId("others").textContent = others > 0 && here.length ? `The other ${others.toLocaleString("en")} together: ${percent(Math.max(0, rest))}.` : "";
  for (const button of byId("top").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.unit) === state.unit));
  }
  return here;
}

function showUnit(state, choose) {
  const { units, unit, frame } = state;
  byId("unit").hidden = unit === null;
  byId("unit-hint").hidden = unit !== null;
  byId("unit-title").textContent = unit === null ? "A neuron" : units.name(unit).replace(/^./, (first) => first.toUpperCase());
  byId("number").max = units.units - 1;
  byId("number").value = unit === null ? "" : unit;
  if (unit === null) return;
  const [low, high] = [units.extremes[2 * unit], units.extremes[2 * unit + 1]];
  const most = [high > 0 ? `brightens a pixel by ${high.toFixed(2)}` : "", low < 0 ? `darkens ${high > 0 ? "one" : "a pixel"} by ${(-low).toFixed(2)}` : ""].filter(Boolean);
  byId("unit-said").textContent =
    `Its share of the contributions of layer ${units.layer} is ${percent(units.share(unit))}: rank ${units.rank[unit] + 1} of ${units.units.toLocaleString("en")}.` +
    (most.length ? ` At its most it ${most.join(" and ")}, where black is 0 and white is 1.` : "");
  const alike = Array.from({ length: units.near }, (_, i) => units.nearest[unit * units.near + i]);
  byId("near").replaceChildren(...alike.map((one) => unitButton(units, one, frame, null, choose)));
  if (byId("curve")) showCurve(units, unit, frame);
}

// Plot the share of the neuron in the layer by frame, from zero.
function showCurve(units, unit, frame) {
  const values = units.curve(unit);
  const { context, width, height } = fitted(byId("curve"), 90);
  const most = Math.max(...values) || 1;
  const place = (f) => [8 + (f / Math.max(1, values.length - 1)) * (width - 16), height - 16 - (values[f] / most) * (height - 34)];
  byId("curve").setAttribute("aria-label", `Share of the layer by frame: ${values.map(percent).join(", ")}`);
  context.strokeStyle = ink("--line");
  context.beginPath();
  context.moveTo(8, height - 16);
  context.lineTo(width - 8, height - 16);
  context.stroke();
  context.strokeStyle = ink("--accent");
  context.lineWidth = 2;
  context.beginPath();
  values.forEach((_, f) => context.lineTo(...place(f)));
  context.stroke();
  context.fillStyle = ink("--chosen");
  context.beginPath();
  context.arc(...place(frame), 4.5, 0, 7);
  context.fill();
  context.fillStyle = ink("--ink");
  context.font = "12px system-ui, sans-serif";
  const said = percent(values[frame]);
  const wide = context.measureText(said).width;
  context.fillText(said, Math.min(Math.max(8, place(frame)[0] - wide / 2), width - wide - 8), 12);
  context.fillStyle = ink("--quiet");
  context.fillText("0", 8, height - 3);
  context.fillText(String(values.length - 1), width - 8 - context.measureText(String(values.length - 1)).width, height - 3);
}
