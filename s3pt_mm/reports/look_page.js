'use strict';
// The page of s3pt-look. All that it shows lies in the JSON beside it; nothing is fetched.
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const OPACITY = { similarity: 0.6, components: 0.8, attention: 0.6, clusters: 0.55 };
const NEIGHBOURS = 8;
const THUMB = 160;
// Where the first patch is chosen: in the middle, below the horizon of most street photos.
const state = { image: 0, view: 'similarity', head: -1, x: 0.5, y: 0.6, cluster: [] };

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const element = (tag, parent, values = {}) => {
  const made = Object.assign(document.createElement(tag), values);
  parent.append(made);
  return made;
};

// --- colours ---------------------------------------------------------------------------------
// Stops of a ramp of rising lightness (dark violet to pale yellow), read in grey, too.
const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const ramp = (share) => {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((v, i) => v + (at - low) * (STOPS[low + 1][i] - v));
};
const RAMP = `linear-gradient(90deg, ${STOPS.map((c) => `rgb(${c})`).join(', ')})`;
const clusterColour = (number) => { // neighbouring numbers get far hues
  const hue = (number * 137.508) % 360, light = 0.45 + 0.15 * (number % 3);
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return 255 * (light - 0.75 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
  };
  return [part(0), part(8), part(4)];
};

// --- networks --------------------------------------------------------------------------------
const networks = data.networks.map((given) => {
  const [rows, columns] = given.grid, tokens = given.side ** 2; // of a view
  const clusters = given.clusters.map((text) => new Uint16Array(bytes(text).buffer));
  const features = given.features.map((text) => new Int8Array(bytes(text).buffer));
  const norms = features.map((values) => Float32Array.from({ length: rows * columns }, (_, p) => {
    const own = values.subarray(p * given.dims, (p + 1) * given.dims);
    return Math.sqrt(own.reduce((sum, v) => sum + v * v, 0)) || 1;
  }));
  return {
    ...given, rows, columns, features, norms, clusters,
    components: given.components.map(bytes),
    attention: given.attention.map(bytes),
    both: clusters.map((labels) => { // clusters that both views have
      const second = new Set(labels.subarray(tokens));
      return new Set(labels.subarray(0, tokens).filter((label) => second.has(label)));
    }),
  };
});
const patchOf = (net) => Math.min(net.rows - 1, Math.floor(state.y * net.rows)) * net.columns
  + Math.min(net.columns - 1, Math.floor(state.x * net.columns));

function similarities(net) { // cosine of the chosen patch with all patches of all images
  const { dims } = net, patch = patchOf(net);
  const query = net.features[state.image].subarray(patch * dims, (patch + 1) * dims);
  const length = net.norms[state.image][patch];
  return net.features.map((values, image) => Float32Array.from(net.norms[image], (norm, p) => {
    let sum = 0;
    for (let j = 0, at = p * dims; j < dims; j++, at++) sum += query[j] * values[at];
    return sum / (norm * length);
  }));
}

function neighbours(net) {
  const found = net.cosines.flatMap((values, image) => {
    if (image === state.image) return [];
    const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
    return order.slice(0, $('one').checked ? 1 : NEIGHBOURS).map((patch) => ({ image, patch, cosine: values[patch] }));
  });
  return found.sort((a, b) => b.cosine - a.cosine).slice(0, NEIGHBOURS);
}

// --- drawing ---------------------------------------------------------------------------------
const kept = new Map();
function picture(address) { // decoded images, the last 60
  if (!kept.has(address)) {
    const image = new Image();
    image.src = address;
    kept.set(address, image.decode().then(() => image));
    if (kept.size > 60) kept.delete(kept.keys().next().value);
  }
  return kept.get(address);
}

function grid(rows, columns, colour) { // colour(p) -> [r, g, b, alpha] of each patch, as a canvas
  const canvas = Object.assign(document.createElement('canvas'), { width: columns, height: rows });
  const context = canvas.getContext('2d'), pixels = context.createImageData(columns, rows);
  for (let p = 0; p < rows * columns; p++) {
    const [r, g, b, a = 255] = colour(p);
    pixels.data.set([r, g, b, a], 4 * p);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function overlay(net, image) { // {layer, low, high} of the present view
  if (state.view === 'components') {
    const rgb = net.components[image];
    return { layer: grid(net.rows, net.columns, (p) => rgb.subarray(3 * p, 3 * p + 3)) };
  }
  const count = net.rows * net.columns;
  let values = net.cosines[image];
  let [low, high] = net.range;
  if (state.view === 'attention') {
    const head = Math.min(state.head, net.heads - 1);
    const chosen = head < 0 ? [...Array(net.heads).keys()] : [head];
    values = new Float32Array(count);
    for (const h of chosen) {
      for (let p = 0; p < count; p++) values[p] += net.attention[image][h * count + p] / 255 * net.peaks[image][h] / chosen.length;
    }
    [low, high] = [0, values.reduce((a, b) => Math.max(a, b), 0)];
  }
  const layer = grid(net.rows, net.columns, (p) => ramp((values[p] - low) / (high - low || 1)));
  return { layer, low, high };
}

function clusterLayer(net, image, view) {
  const count = net.side ** 2, labels = net.clusters[image], chosen = state.cluster[networks.indexOf(net)];
  const both = net.both[image];
  return grid(net.side, net.side, (p) => {
    const label = labels[view * count + p];
    if (chosen !== undefined && label !== chosen) return [0, 0, 0, 190];
    return both.has(label) ? clusterColour(label) : [110, 110, 110];
  });
}
function paint(canvas, photo, layer, width) {
  canvas.width = width;
  canvas.height = Math.round(width * photo.height / photo.width);
  const context = canvas.getContext('2d');
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = OPACITY[state.view];
  if (layer) context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  return context;
}

function mark(context, x, y, w, h) { // white in black: seen on any ground
  for (const [strokeStyle, lineWidth] of [['#000', 4], ['#fff', 2]]) {
    Object.assign(context, { strokeStyle, lineWidth }).strokeRect(x, y, w, h);
  }
}

function legend(net, low, high) {
  const place = net.dom.legend;
  place.replaceChildren();
  if (state.view === 'components') {
    place.textContent = `red, green, blue: components 1 to 3 of all ${data.images.length} images together; `
      + `${Math.round(100 * net.explained)} % of the variance${net.foreground ? '; black: background' : ''}`;
  } else if (state.view === 'clusters') {
    const labels = new Set(net.clusters[state.image]).size, both = net.both[state.image].size;
    place.textContent = `${labels} clusters, ${both} of them in both views (equal colour); grey: in one view alone. Click one to see it alone.`;
  } else {
    const attention = state.view === 'attention';
    element('span', place, { textContent: attention ? 'share of attention: 0' : `cosine: ${low.toFixed(2)} or less (half of the image)` });
    element('span', place, { className: 'ramp' }).style.background = RAMP;
    element('span', place, { textContent: high.toFixed(attention ? 4 : 2) });
  }
}

async function drawNetwork(net, turn) {
  const { dom } = net, image = data.images[state.image], clusters = state.view === 'clusters';
  dom.second.hidden = !clusters;
  dom.near.hidden = clusters;
  if (clusters) {
    for (const [view, canvas] of [dom.first, dom.second].entries()) {
      const photo = await picture(data.views[state.image][view]);
      if (turn !== drawn) return;
      paint(canvas, photo, clusterLayer(net, state.image, view), 2 * photo.width);
    }
    return legend(net);
  }
  const photo = await picture(image.photo);
  if (turn !== drawn) return;
  const { layer, low, high } = overlay(net, state.image);
  const context = paint(dom.first, photo, layer, photo.width);
  const patch = patchOf(net), w = photo.width / net.columns, h = photo.height / net.rows;
  mark(context, (patch % net.columns) * w, Math.floor(patch / net.columns) * h, w, h);
  legend(net, low, high);
}

async function drawNear(net, turn) {
  if (state.view === 'clusters') return;
  const found = neighbours(net);
  const tiles = found.map((near) => {
    const name = data.images[near.image].name;
    const button = Object.assign(document.createElement('button'), { className: 'neighbour', title: name });
    element('canvas', button, { width: 112, height: 112 });
    element('span', button, { textContent: `${near.cosine.toFixed(2)}  ${name}` });
    const x = (near.patch % net.columns + 0.5) / net.columns, y = (Math.floor(near.patch / net.columns) + 0.5) / net.rows;
    button.onclick = () => update({ image: near.image, x, y });
    return { ...near, button, x, y };
  });
  net.dom.tiles.replaceChildren(...tiles.map((tile) => tile.button));
  for (const { image, x, y, button } of tiles) {
    const photo = await picture(data.images[image].photo);
    if (turn !== drawn) return;
    const side = Math.min(photo.width, photo.height, 6 * photo.width / net.columns);
    const left = Math.min(Math.max(x * photo.width - side / 2, 0), photo.width - side);
    const top = Math.min(Math.max(y * photo.height - side / 2, 0), photo.height - side);
    const context = button.firstChild.getContext('2d'), scale = 112 / side;
    context.drawImage(photo, left, top, side, side, 0, 0, 112, 112);
    const w = photo.width / net.columns, h = photo.height / net.rows;
    mark(context, (x * photo.width - w / 2 - left) * scale, (y * photo.height - h / 2 - top) * scale, w * scale, h * scale);
  }
}

function drawStrip(net) {
  const clusters = state.view === 'clusters';
  net.dom.strip.childNodes.forEach((button, image) => {
    button.setAttribute('aria-current', image === state.image);
    const small = clusters ? viewThumbs[image] : thumbs[image];
    if (small) paint(button.firstChild, small, clusters ? clusterLayer(net, image, 0) : overlay(net, image).layer, THUMB);
  });
}

let drawn = 0; // the update that is being drawn
function update(change = {}) {
  Object.assign(state, change);
  if ('image' in change || 'view' in change) state.cluster = [];
  const turn = ++drawn;
  document.querySelectorAll('[data-view]').forEach((b) => b.setAttribute('aria-pressed', b.dataset.view === state.view));
  $('name').textContent = `${state.image + 1} / ${data.images.length}  ${data.images[state.image].name}`;
  $('opacity').value = OPACITY[state.view];
  $('heads').hidden = state.view !== 'attention';
  $('single').hidden = state.view === 'clusters';
  for (const net of networks) {
    net.cosines = similarities(net);
    const here = net.cosines[state.image].slice().sort();
    net.range = [here[here.length >> 1], 1]; // half of the image is dark
    drawNetwork(net, turn);
    drawNear(net, turn);
    drawStrip(net);
  }
}

$('title').textContent = data.title;
networks.forEach((net, index) => {
  const section = element('section', $('networks'));
  element('h2', section, { textContent: net.name });
  const [left, near, all] = ['left', 'near', 'all'].map((className) => element('div', section, { className }));
  const stage = element('div', left, { className: 'stage' });
  const [first, second] = [element('canvas', stage), element('canvas', stage)];
  element('h3', near, { textContent: 'Nearest patches in other images' });
  element('h3', all, { textContent: 'All images' });
  const strip = element('div', all, { className: 'tiles strip' });
  net.dom = { first, second, near, strip };
  net.dom.legend = element('div', left, { className: 'legend' });
  net.dom.tiles = element('div', near, { className: 'tiles' });
  data.images.forEach((image, number) => {
    const button = element('button', strip, { title: image.name, onclick: () => update({ image: number }) });
    element('canvas', button, { width: THUMB, height: 90 });
    element('span', button, { textContent: image.name });
  });
  [first, second].forEach((canvas, view) => canvas.addEventListener('click', (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    if (state.view !== 'clusters') return update({ x, y });
    const at = Math.min(net.side - 1, Math.floor(y * net.side)) * net.side + Math.min(net.side - 1, Math.floor(x * net.side));
    const label = net.clusters[state.image][view * net.side ** 2 + at];
    state.cluster[index] = state.cluster[index] === label ? undefined : label;
    update();
  }));
});
if (networks.length === 1) $('networks').classList.add('only');
element('option', $('head'), { value: -1, textContent: 'mean of all' });
for (let head = 0; head < Math.max(...networks.map((net) => net.heads)); head++) element('option', $('head'), { value: head, textContent: head + 1 });
$('head').onchange = () => update({ head: Number($('head').value) });
$('one').onchange = () => update();
$('opacity').oninput = () => { OPACITY[state.view] = Number($('opacity').value); update(); };
document.querySelectorAll('[data-view]').forEach((b) => { b.onclick = () => update({ view: b.dataset.view }); });
const step = (by) => update({ image: (state.image + by + data.images.length) % data.images.length });
$('before').onclick = () => step(-1);
$('after').onclick = () => step(1);
document.addEventListener('keydown', ({ key, target }) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (by && !['INPUT', 'SELECT'].includes(target.tagName)) step(by);
});
data.notes.forEach((note) => element('p', $('notes'), { textContent: note }));

const thumbs = [], viewThumbs = [];
async function makeThumbs() { // one by one: no more than one photo is decoded at a time
  for (const [index, image] of data.images.entries()) {
    for (const [list, address] of [[thumbs, image.photo], [viewThumbs, data.views[index][0]]]) {
      const photo = Object.assign(new Image(), { src: address });
      await photo.decode();
      list[index] = document.createElement('canvas');
      paint(list[index], photo, null, THUMB);
    }
  }
  networks.forEach(drawStrip);
  document.body.dataset.ready = 'true';
}
update();
makeThumbs();
