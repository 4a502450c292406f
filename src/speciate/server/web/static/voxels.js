// A volume as datasets/inspect/viewer.py sends it.
export function read(data) {
  const [dz, dy, dx, low, high, centre, width] = new Float32Array(data, 12, 7);
  return { size: new Uint32Array(data, 0, 3), mm: [dz, dy, dx], low, high, centre, width, voxels: new Uint16Array(data, 40) };
}

// One plane in grey: from a voxel on, `across` and `down` to the next one. `level` and `span` of the window: shares of all values.
export function paint(image, voxels, from, across, down, level, span) {
  const dark = 65535 * (level - span / 2), scale = 255 / (65535 * span || 1);
  for (let y = 0, o = 0; y < image.height; y++) for (let x = 0; x < image.width; x++, o += 4) {
    image.data[o] = image.data[o + 1] = image.data[o + 2] = (voxels[from + x * across + y * down] - dark) * scale;
    image.data[o + 3] = 255;
  }
}
