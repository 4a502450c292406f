// Viewers for what an image cannot show. They parse no foreign format: the sandboxed process has decoded it, and sends plain
// arrays (datasets/inspect/viewer.py has their layouts). Each says in data-drawn what it shows.
function canvas(at, label) {
  const made = document.createElement("canvas"), scale = devicePixelRatio || 1;
  made.tabIndex = 0; made.setAttribute("role", "img"); made.setAttribute("aria-label", label);
  at.replaceChildren(made);
  made.width = at.clientWidth * scale; made.height = at.clientHeight * scale;
  return made;
}

// Drag, arrow keys and the wheel turn and zoom; it is drawn only when something changed.
function turning(at, made, draw) {
  const view = { a: .5, b: .35, zoom: 1 };
  let asked = false;
  const ask = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(view); at.dataset.drawn = `${view.a.toFixed(2)},${view.b.toFixed(2)},${view.zoom.toFixed(2)}`; }); } };
  const turn = (a, b) => { view.a += a; view.b = Math.max(-1.5, Math.min(1.5, view.b + b)); ask(); };
  made.onpointerdown = (event) => made.setPointerCapture(event.pointerId);
  made.onpointermove = (event) => { if (event.buttons) turn(event.movementX / 120, event.movementY / 120); };
  made.addEventListener("wheel", (event) => { event.preventDefault(); view.zoom = Math.max(.4, Math.min(8, view.zoom * Math.exp(-event.deltaY / 600))); ask(); }, { passive: false });
  made.onkeydown = (event) => {
    const step = { ArrowLeft: [-.15, 0], ArrowRight: [.15, 0], ArrowUp: [0, -.15], ArrowDown: [0, .15] }[event.key];
    if (step) { event.preventDefault(); turn(...step); }
  };
  ask();
}

const VERTEX = `#version 300 es
in vec3 p; in vec3 n; in vec3 rgb; uniform vec4 turn; uniform float zoom, ratio, size; out vec3 normal, tint; out float deep;
vec3 about(vec3 v) { v = vec3(v.x*turn.y + v.z*turn.x, v.y, v.z*turn.y - v.x*turn.x); return vec3(v.x, v.y*turn.w - v.z*turn.z, v.z*turn.w + v.y*turn.z); }
void main() { vec3 q = about(p); normal = about(n); tint = rgb; deep = q.z; float near = 3.2 - q.z; gl_Position = vec4(q.x*zoom*2.7/ratio, q.y*zoom*2.7, -q.z*.5, near); gl_PointSize = size*zoom/near; }`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec3 normal, tint; in float deep; out vec4 colour; uniform float lit;
void main() { float light = lit > 0. ? .35 + .65*abs(dot(normalize(normal), normalize(vec3(.4, .6, .8)))) : .65 + .35*deep; colour = vec4(tint*light, 1.); }`;

function normalsOf(xyz, corners) { // the area-weighted mean of the faces around each corner
  const normals = new Float32Array(xyz.length);
  for (let t = 0; t < corners.length; t += 3) {
    const [i, j, k] = [3 * corners[t], 3 * corners[t + 1], 3 * corners[t + 2]];
    const u = [0, 1, 2].map((d) => xyz[j + d] - xyz[i + d]), w = [0, 1, 2].map((d) => xyz[k + d] - xyz[i + d]);
    const n = [u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]];
    for (const corner of [i, j, k]) for (let d = 0; d < 3; d++) normals[corner + d] += n[d];
  }
  return normals;
}

function mesh(at, data) {
  const [vertices, triangles] = new Uint32Array(data, 0, 2), xyz = new Float32Array(data, 8, vertices * 3);
  const corners = new Uint32Array(data.slice(8 + vertices * 12, 8 + vertices * 12 + triangles * 12)), tints = new Float32Array(vertices * 3).fill(.72);
  if (!triangles) new Uint8Array(data, 8 + vertices * 12, vertices * 3).forEach((each, i) => { tints[i] = each / 255; });
  const made = canvas(at, triangles ? `Mesh of ${triangles} triangles; drag or arrow keys turn it` : `Point cloud of ${vertices} points; drag or arrow keys turn it`);
  const gl = made.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true }); // kept, so that it can be printed and tested
  if (!gl) throw new Error("this browser has no WebGL 2");
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) { const shader = gl.createShader(kind); gl.shaderSource(shader, text); gl.compileShader(shader); gl.attachShader(program, shader); }
  gl.linkProgram(program); gl.useProgram(program);
  for (const [name, values] of [["p", xyz], ["n", normalsOf(xyz, corners)], ["rgb", tints]]) {
    const where = gl.getAttribLocation(program, name);
    if (where < 0) continue;
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(where); gl.vertexAttribPointer(where, 3, gl.FLOAT, false, 0, 0);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW); gl.enable(gl.DEPTH_TEST);
  const set = (name, ...values) => gl[`uniform${values.length}f`](gl.getUniformLocation(program, name), ...values);
  turning(at, made, (view) => {
    gl.viewport(0, 0, made.width, made.height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    set("turn", Math.sin(view.a), Math.cos(view.a), Math.sin(view.b), Math.cos(view.b)); set("zoom", view.zoom);
    set("ratio", made.width / made.height); set("size", 9 * (devicePixelRatio || 1)); set("lit", triangles ? 1 : 0);
    if (triangles) gl.drawElements(gl.TRIANGLES, triangles * 3, gl.UNSIGNED_INT, 0); else gl.drawArrays(gl.POINTS, 0, vertices);
  });
}

function volume(at, data) { // axial, coronal and sagittal side by side; the plane under the pointer scrolls; a drag sets window and level
  const size = new Uint32Array(data, 0, 3), [dz, dy, dx, low, high, centre, width] = new Float32Array(data, 12, 7), voxels = new Uint16Array(data, 40);
  const mm = [dz, dy, dx], [D, H, W] = size, stride = [H * W, W, 1], now = [D >> 1, H >> 1, W >> 1];
  const planes = [[2, 1, 0, false], [2, 0, 1, true], [1, 0, 2, true]]; // across, down, through, and whether down is turned: the head is up
  const made = canvas(at, `Volume of ${D} by ${H} by ${W} voxels; the wheel or arrow keys scroll, a drag sets window and level`), g = made.getContext("2d");
  const names = ["axial", "coronal", "sagittal"], seen = { centre, width };
  let under = 0;
  const draw = () => {
    g.clearRect(0, 0, made.width, made.height); g.font = `${12 * (devicePixelRatio || 1)}px system-ui`;
    const scale = (high - low) / 65535 || 1, dark = (seen.centre - seen.width / 2 - low) / scale, span = seen.width / scale || 1;
    planes.forEach(([a, b, through, turned], place) => {
      const w = size[a], h = size[b], image = new ImageData(w, h), from = now[through] * stride[through];
      for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
        const value = voxels[from + x * stride[a] + (turned ? h - 1 - y : y) * stride[b]], level = Math.max(0, Math.min(255, 255 * (value - dark) / span)), o = (y * w + x) * 4;
        image.data[o] = image.data[o + 1] = image.data[o + 2] = level; image.data[o + 3] = 255;
      }
      const off = new OffscreenCanvas(w, h); off.getContext("2d").putImageData(image, 0, 0);
      const wide = made.width / 3 - 4, k = Math.min(wide / (w * mm[a]), made.height / (h * mm[b])), left = place * (wide + 6);
      g.drawImage(off, left + (wide - w * mm[a] * k) / 2, (made.height - h * mm[b] * k) / 2, w * mm[a] * k, h * mm[b] * k);
      g.fillStyle = place === under ? "#8ba6ff" : "#9aa2b1"; g.fillText(`${names[place]} ${now[through] + 1}/${size[through]}`, left + 8, 18 * (devicePixelRatio || 1));
    });
    g.fillStyle = "#9aa2b1"; g.fillText(`window ${seen.width.toPrecision(4)}  level ${seen.centre.toPrecision(4)}`, 8, made.height - 10);
    at.dataset.drawn = [...now, seen.width.toPrecision(4), seen.centre.toPrecision(4)].join();
  };
  const scroll = (by) => { const through = planes[under][2]; now[through] = Math.max(0, Math.min(size[through] - 1, now[through] + by)); draw(); };
  const point = (event) => { const place = Math.min(2, Math.max(0, Math.floor(3 * event.offsetX / made.clientWidth))); if (place !== under) { under = place; draw(); } };
  made.onpointerdown = (event) => { point(event); made.setPointerCapture(event.pointerId); };
  made.onpointermove = (event) => {
    if (!event.buttons) return point(event);
    seen.width = Math.max((high - low) / 1000, seen.width + event.movementX * (high - low) / 400); seen.centre -= event.movementY * (high - low) / 400; draw();
  };
  made.addEventListener("wheel", (event) => { event.preventDefault(); scroll(Math.sign(event.deltaY)); }, { passive: false });
  made.onkeydown = (event) => {
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (by) { event.preventDefault(); scroll(by); } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") { under = (under + (event.key === "ArrowRight" ? 1 : 2)) % 3; draw(); }
  };
  draw();
}

function structure(at, data) { // the trace of alpha carbons as a tube, from blue to red; the far end first
  const [count] = new Uint32Array(data, 0, 1), xyz = new Float32Array(data, 4, count * 3), chain = new Uint8Array(data, 4 + count * 12, count);
  const made = canvas(at, `Structure of ${count} residues; drag or arrow keys turn it`), g = made.getContext("2d");
  turning(at, made, (view) => {
    g.clearRect(0, 0, made.width, made.height); g.lineCap = "round";
    const s = Math.min(made.width, made.height) * .42 * view.zoom, [sa, ca, sb, cb] = [Math.sin(view.a), Math.cos(view.a), Math.sin(view.b), Math.cos(view.b)];
    const place = (i) => { const [x, y, z] = xyz.subarray(3 * i, 3 * i + 3), q = x * ca + z * sa, r = z * ca - x * sa; return [made.width / 2 + s * q, made.height / 2 - s * (y * cb - r * sb), r * cb + y * sb]; };
    const pieces = [];
    for (let i = 0; i + 1 < count; i++) if (chain[i] === chain[i + 1]) pieces.push([place(i), place(i + 1), i / count]);
    pieces.sort((p, q) => p[0][2] - q[0][2]);
    for (const [p, q, share] of pieces) { g.strokeStyle = `hsl(${230 - 220 * share} 70% ${48 + 18 * p[2]}%)`; g.beginPath(); g.lineWidth = s / 24 * (1 + .3 * p[2]); g.moveTo(p[0], p[1]); g.lineTo(q[0], q[1]); g.stroke(); }
  });
}

const kinds = { mesh, volume, structure };
const shown = new IntersectionObserver((found) => found.filter((each) => each.isIntersecting).forEach(async ({ target }) => {
  shown.unobserve(target);
  try {
    const answer = await fetch(target.dataset.src);
    if (!answer.ok) throw new Error(await answer.text());
    kinds[target.dataset.view](target, await answer.arrayBuffer());
  } catch (error) { target.textContent = `Not shown: ${error.message}`; }
}));
document.querySelectorAll("[data-view]").forEach((each) => shown.observe(each));

// Sound: a click on the spectrogram goes there.
const spectrum = document.getElementById("spectrum"), player = document.querySelector(".viewer audio");
spectrum?.addEventListener("click", (event) => { if (player.duration) player.currentTime = player.duration * event.offsetX / spectrum.clientWidth; });
