// One layer, read from its bytes: the strongest neurons of each pixel, and small maps of all neurons.

async function unpacked(text) {
  const packed = atob(text.trim());
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}

class Units {
  // The order is that of blob() in pages.py: floats, shorts, differences of maps.
  constructor(note, buffer) {
    Object.assign(this, note);
    const [height, width] = note.grid;
    this.mapHeight = note.small[0];
    this.mapWidth = note.small[1];
    let at = 0;
    const take = (Kind, count) => {
      const part = new Kind(buffer, at, count);
      at += count * Kind.BYTES_PER_ELEMENT;
      return part;
    };
    this.amounts = take(Float32Array, note.units * note.frames);
    this.extremes = take(Float32Array, note.units * 2);
    this.scale = take(Float32Array, note.units);
    this.places = take(Float32Array, note.units * 2);
    this.top = take(Uint16Array, note.frames * height * width * note.k);
    this.shares = take(Uint16Array, note.frames * height * width * note.k);
    this.nearest = take(Uint16Array, note.units * note.near);
    this.maps = take(Int8Array, note.units * note.frames * this.mapHeight * this.mapWidth);
    for (let i = 0; i < this.maps.length; i++) {
      if (i % this.mapWidth) this.maps[i] += this.maps[i - 1]; // int8 overflow is intended: differences are modulo 256
    }
    this._rank();
  }

  _rank() {
    const { units, frames } = this;
    this.perFrame = new Float64Array(frames);
    this.totals = new Float64Array(units);
    for (let u = 0; u < units; u++) {
      for (let f = 0; f < frames; f++) {
        this.perFrame[f] += this.amounts[u * frames + f];
        this.totals[u] += this.amounts[u * frames + f];
      }
    }
    this.whole = this.totals.reduce((sum, one) => sum + one, 0) || 1;
    this.order = Array.from(this.totals.keys()).sort((a, b) => this.totals[b] - this.totals[a] || a - b);
    this.rank = new Uint16Array(units);
    this.order.forEach((unit, place) => { this.rank[unit] = place; });
  }

  name(unit) {
    return this.names ? this.names[unit] : `neuron ${unit}`;
  }

  // The strongest neurons of a cell, with their shares of all contributions.
  at(frame, x, y) {
    const first = ((frame * this.grid[0] + y) * this.grid[1] + x) * this.k;
    return Array.from({ length: this.k }, (_, i) => ({ unit: this.top[first + i], share: this.shares[first + i] / 65535 }));
  }

  map(unit, frame) {
    const size = this.mapHeight * this.mapWidth;
    const first = (unit * this.frames + frame) * size;
    return this.maps.subarray(first, first + size);
  }

  // The end of the colour scale: the 99.5 % quantile, so that no single pixel sets it.
  limit(unit) {
    const counts = new Uint32Array(129);
    const size = this.mapHeight * this.mapWidth * this.frames;
    for (let i = unit * size; i < (unit + 1) * size; i++) counts[Math.abs(this.maps[i])]++;
    let seen = 0;
    let level = 0;
    while (level < 127 && seen + counts[level] < 0.995 * size) seen += counts[level++];
    return Math.max(level, 1);
  }

  share(unit) {
    return this.totals[unit] / this.whole;
  }

  curve(unit) {
    return Array.from(this.perFrame, (whole, f) => this.amounts[unit * this.frames + f] / (whole || 1));
  }
}
