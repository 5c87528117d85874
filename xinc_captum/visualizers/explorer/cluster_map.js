// All neurons as points; similar neurons are close to each other.

const MARGIN = 12;

class ClusterMap {
  constructor(canvas, choose) {
    this.canvas = canvas;
    this.choose = choose;
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const unit = this.closest(event.clientX - box.left, event.clientY - box.top);
      if (unit !== null) choose(unit);
    });
    canvas.addEventListener("keydown", (event) => this._key(event));
  }

  place(unit) {
    return [
      MARGIN + this.units.places[2 * unit] * (this.width - 2 * MARGIN),
      MARGIN + (1 - this.units.places[2 * unit + 1]) * (this.height - 2 * MARGIN),
    ];
  }

  closest(x, y) {
    let best = null;
    let least = Infinity;
    for (let unit = 0; unit < this.units.units; unit++) {
      const [ux, uy] = this.place(unit);
      const far = (ux - x) ** 2 + (uy - y) ** 2;
      if (far < least) [best, least] = [unit, far];
    }
    return best;
  }

  // Arrow keys choose the nearest neuron in that direction.
  _key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    if (this.unit === null) {
      this.choose(this.units.order[0]);
      return;
    }
    const [x, y] = this.place(this.unit);
    let best = null;
    let least = Infinity;
    for (let unit = 0; unit < this.units.units; unit++) {
      const [ux, uy] = this.place(unit);
      const along = (ux - x) * step[0] + (uy - y) * step[1];
      const aside = Math.abs((ux - x) * step[1]) + Math.abs((uy - y) * step[0]);
      if (along > 0.01 && along >= aside && along + 2 * aside < least) [best, least] = [unit, along + 2 * aside];
    }
    if (best !== null) this.choose(best);
  }

  draw(units, unit, here) {
    Object.assign(this, { units, unit });
    const { context, width, height } = fitted(this.canvas, Math.max(180, Math.round(this.canvas.clientWidth * 0.5)));
    Object.assign(this, { width, height });
    const most = Math.sqrt(units.totals[units.order[0]]) || 1;
    const dot = (one, colour, extra) => {
      const [x, y] = this.place(one);
      context.fillStyle = colour;
      context.beginPath();
      context.arc(x, y, (units.units > 2000 ? 1 : 1.6) + (3.2 * Math.sqrt(units.totals[one])) / most + extra, 0, 7);
      context.fill();
    };
    context.globalAlpha = units.units > 2000 ? 0.35 : 0.55;
    for (let one = 0; one < units.units; one++) dot(one, ink("--quiet"), 0);
    context.globalAlpha = 1;
    for (const { unit: one } of here) dot(one, ink("--accent"), 0.6);
    if (unit === null) return;
    const [x, y] = this.place(unit);
    context.strokeStyle = ink("--accent");
    context.lineWidth = 1;
    for (let i = 0; i < units.near; i++) {
      const [nx, ny] = this.place(units.nearest[unit * units.near + i]);
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(nx, ny);
      context.stroke();
    }
    dot(unit, ink("--chosen"), 1.5);
    context.strokeStyle = ink("--chosen");
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, 9, 0, 7);
    context.stroke();
  }
}
