// Meshes and point clouds, turned by WebGL 2.
import { canvas, turning } from "./viewers.js";

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

export function show(at, data) {
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
