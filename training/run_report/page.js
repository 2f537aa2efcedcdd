"use strict";
// Draws the curves of a report and moves through its images. Text enters the page as text, never as markup.

const NAMESPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 200, TOP = 10, BOTTOM = 26, RIGHT = 12; // px of a chart and its margins
const LOG_FROM = 20; // a logarithmic axis is used where the largest value is so many times the smallest

const report = JSON.parse(document.getElementById("data").textContent);
let shownKimg = null; // of the image on display; the charts mark it

function svg(parent, name, attributes, text) {
  const node = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function html(parent, name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function format(value) {
  if (value === null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power, ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const decades = Math.log10(high / low), ticks = [];
  const every = Math.ceil(decades / 5), factors = decades < 2 ? [1, 2, 5] : [1];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    if (power % every) continue;
    for (const factor of factors) ticks.push(Number((factor * 10 ** power).toPrecision(3)));
  }
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

// The vertical axis of a chart: its ends, its ticks, and where a value lies between the ends, 0..1.
function verticalAxis(chart) {
  const values = chart.curves.flatMap((curve) => curve.y).filter((value) => value !== null);
  if (chart.floor !== null) values.push(chart.floor);
  let low = Math.min(...values), high = Math.max(...values);
  if (chart.is_log && low > 0 && high / low > LOG_FROM) {
    [low, high] = [low / 1.15, high * 1.15];
    return { ticks: logTicks(low, high), place: (value) => Math.log(value / low) / Math.log(high / low) };
  }
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const startsAtZero = low >= 0 && (chart.from_zero || low - margin < 0);
  [low, high] = [startsAtZero ? 0 : low - margin, high + margin];
  return { ticks: linearTicks(low, high, 7), place: (value) => (value - low) / (high - low) };
}

function pathOf(chart, curve, x, y) {
  let path = "", isPenUp = true;
  curve.y.forEach((value, index) => {
    if (value !== null) path += `${isPenUp ? "M" : "L"}${x(chart.x[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    isPenUp = value === null;
  });
  return path;
}

// Whether a point has no neighbour to be joined with.
function isAlone(values, index) {
  return values[index] !== null && (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null;
}

function describe(chart) {
  const parts = chart.curves.map((curve) => {
    const values = curve.y.filter((value) => value !== null);
    return `${curve.label}: lowest ${format(Math.min(...values))}, highest ${format(Math.max(...values))}, last ${format(values.at(-1))}`;
  });
  return `${chart.title} over thousands of images. ${parts.join("; ")}.`;
}

function makeLegend(figure, chart) {
  const legend = html(figure, "p", "legend");
  const values = chart.curves.map((curve, index) => {
    const entry = html(legend, "span");
    html(entry, "i", `key-${index}`);
    entry.append(`${curve.label} `);
    return html(entry, "b");
  });
  if (chart.best !== null) {
    html(legend, "span", "", `best ${format(chart.curves[0].y[chart.best])} at ${format(chart.x[chart.best])}`);
  }
  if (chart.floor !== null) {
    const entry = html(legend, "span");
    html(entry, "i", "key-floor");
    entry.append(`real images ${format(chart.floor)}`);
  }
  const at = html(legend, "span", "at");
  return (index) => {
    values.forEach((node, curve) => { node.textContent = format(chart.curves[curve].y[index]) + (chart.unit ? ` ${chart.unit}` : ""); });
    at.textContent = `at ${format(chart.x[index])} kimg`;
  };
}

class ChartView {
  constructor(figure, chart) {
    this.chart = chart;
    this.tell = makeLegend(figure, chart);
    this.drawing = svg(figure, "svg", { role: "img", tabindex: 0, "aria-label": describe(chart), height: HEIGHT });
    this.last = chart.x.length - 1;
    this.index = this.last;
    this.drawing.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    this.drawing.addEventListener("pointerdown", (event) => this.point(this.nearest(event)));
    this.drawing.addEventListener("pointerleave", () => this.point(null));
    this.drawing.addEventListener("blur", () => this.point(null));
    this.drawing.addEventListener("click", (event) => showNear(chart.x[this.nearest(event)]));
    this.drawing.addEventListener("keydown", (event) => this.press(event));
    this.tell(this.last);
  }

  draw() {
    const { chart, drawing } = this, width = drawing.clientWidth;
    if (width === this.width || width === 0) return;
    this.width = width;
    drawing.replaceChildren();
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const axis = verticalAxis(chart);
    const left = 10 + 7.2 * Math.max(...axis.ticks.map((tick) => format(tick).length), 2);
    const end = Math.max(chart.x.at(-1), shownKimg ?? 0) || 1;
    this.x = (kimg) => left + (kimg / end) * (width - left - RIGHT);
    this.y = (value) => HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM);
    this.drawAxes(axis.ticks, left, width, end);
    if (chart.floor !== null) {
      svg(drawing, "line", { class: "floor", x1: left, x2: width - RIGHT, y1: this.y(chart.floor), y2: this.y(chart.floor) });
    }
    this.shown = svg(drawing, "line", { class: "shown", y1: TOP, y2: HEIGHT - BOTTOM });
    chart.curves.forEach((curve, number) => this.drawCurve(curve, number));
    if (chart.best !== null) {
      svg(drawing, "circle", { class: "best", r: 6, cx: this.x(chart.x[chart.best]), cy: this.y(chart.curves[0].y[chart.best]) });
    }
    this.cursor = svg(drawing, "g", { visibility: "hidden" });
    this.mark();
  }

  drawAxes(ticks, left, width, end) {
    const bottom = HEIGHT - BOTTOM;
    for (const tick of ticks) {
      svg(this.drawing, "line", { class: "grid", x1: left, x2: width - RIGHT, y1: this.y(tick), y2: this.y(tick) });
      svg(this.drawing, "text", { x: left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, format(tick));
    }
    svg(this.drawing, "line", { class: "axis", x1: left, x2: width - RIGHT, y1: bottom, y2: bottom });
    for (const tick of linearTicks(0, end, Math.max(width / 75, 2))) {
      const label = tick ? format(tick) : "0 kimg", half = 3.6 * (tick ? label.length : 1), x = this.x(tick);
      const isLast = x + half > width - 2, y = HEIGHT - 7;
      svg(this.drawing, "line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 });
      if (isLast) svg(this.drawing, "text", { x: width - 2, y, "text-anchor": "end" }, label);
      else svg(this.drawing, "text", { x: x - half, y }, label);
    }
  }

  drawCurve(curve, number) {
    svg(this.drawing, "path", { class: `curve curve-${number}`, d: pathOf(this.chart, curve, this.x, this.y) });
    const isSparse = this.chart.x.length <= 30;
    curve.y.forEach((value, index) => {
      if (value !== null && (isSparse || isAlone(curve.y, index))) {
        svg(this.drawing, "circle", { class: `dot-${number}`, r: 2.5, cx: this.x(this.chart.x[index]), cy: this.y(value) });
      }
    });
  }

  nearest(event) {
    const x = event.clientX - this.drawing.getBoundingClientRect().left;
    const distances = this.chart.x.map((kimg) => Math.abs(this.x(kimg) - x));
    return distances.indexOf(Math.min(...distances));
  }

  press(event) {
    const targets = { ArrowLeft: this.index - 1, ArrowRight: this.index + 1, Home: 0, End: this.last };
    if (!(event.key in targets)) return;
    event.preventDefault();
    this.point(Math.min(Math.max(targets[event.key], 0), this.last));
  }

  // Show the values at a point; null = those of the last one, without a mark.
  point(index) {
    this.index = index ?? this.last;
    this.tell(this.index);
    this.cursor.replaceChildren();
    this.cursor.setAttribute("visibility", index === null ? "hidden" : "visible");
    const x = this.x(this.chart.x[this.index]);
    svg(this.cursor, "line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM });
    this.chart.curves.forEach((curve, number) => {
      const value = curve.y[this.index];
      if (value !== null) svg(this.cursor, "circle", { class: `dot-${number}`, r: 4, cx: x, cy: this.y(value) });
    });
  }

  // Mark where the image on display was made.
  mark() {
    this.shown.setAttribute("visibility", shownKimg === null ? "hidden" : "visible");
    for (const end of ["x1", "x2"]) this.shown.setAttribute(end, this.x(shownKimg ?? 0));
  }
}

const charts = report.charts.map((chart, index) => new ChartView(document.getElementById(`chart-${index}`), chart));
const slider = document.getElementById("slider");
const grids = [...document.querySelectorAll(".grids img")], fakes = grids.filter((image) => "kimg" in image.dataset);

function show(index) {
  fakes.forEach((image, other) => { image.hidden = other !== index; });
  const text = `${format(Number(fakes[index].dataset.kimg))} kimg`;
  shownKimg = Number(fakes[index].dataset.kimg);
  slider.value = index;
  slider.setAttribute("aria-valuetext", text);
  document.getElementById("shown").textContent = `${text} (image ${index + 1} of ${fakes.length})`;
  for (const chart of charts) if (chart.width) chart.mark();
}

function showNear(kimg) {
  if (!slider) return;
  const distances = fakes.map((image) => Math.abs(Number(image.dataset.kimg) - kimg));
  show(distances.indexOf(Math.min(...distances)));
}

// Small images are enlarged by a whole number with sharp edges where there is room for that, others fill it smoothly.
function fit(image) {
  const width = Number(image.getAttribute("width")), times = Math.floor(image.closest("figure").clientWidth / width);
  image.classList.toggle("crisp", times >= 2);
  image.style.width = times >= 2 ? `${times * width}px` : "";
}

function fitAll() {
  for (const image of grids) fit(image);
  for (const chart of charts) chart.draw();
}

function startPlayer() {
  const play = document.getElementById("play");
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const move = (by) => show(Math.min(Math.max(Number(slider.value) + by, 0), fakes.length - 1));
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  document.getElementById("back").addEventListener("click", () => { stop(); move(-1); });
  document.getElementById("forth").addEventListener("click", () => { stop(); move(1); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === fakes.length - 1) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => { Number(slider.value) === fakes.length - 1 ? stop() : move(1); }, 400);
  });
  show(fakes.length - 1);
}

function tellAge() {
  const node = document.getElementById("age"), minutes = Math.round((Date.now() / 1000 - report.written) / 60);
  if (minutes < 1) node.textContent = "just now";
  else if (minutes < 90) node.textContent = `${minutes} min ago`;
  else if (minutes < 48 * 60) node.textContent = `${Math.round(minutes / 60)} hours ago`;
  else node.textContent = `${Math.round(minutes / 1440)} days ago`;
}

if (slider) startPlayer();
new ResizeObserver(fitAll).observe(document.body);
fitAll();
tellAge();
setInterval(tellAge, 30000);
