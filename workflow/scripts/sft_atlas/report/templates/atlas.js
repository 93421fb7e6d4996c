/* Interactive figures of the report: drawn as SVG from the data embedded in the page; nothing is fetched.

   A figure is {name, type, data, columns, …}; its data are columns, text columns as {levels, codes}. Filters that all
   figures share (base, dataset, method) drop rows of figures that have such a column; `choices` are a figure's own. The
   state of the filters stands in the address after #, so that a view can be linked and shared. */
"use strict";
(() => {
  const SHARED = ["base", "dataset", "method"];
  const COLOURS = ["#2f7fb8", "#e07b1a", "#3a9d57", "#a851c0", "#dd4477", "#18a5ad", "#b08a10", "#7466d6", "#8391a0",
    "#b0582c", "#79a93a", "#5b7fa8"];
  const DASHES = ["none", "6 4", "2 3", "9 3 2 3"];
  const atlas = JSON.parse(document.getElementById("atlas-data").textContent);
  const state = { base: null, dataset: null, method: null };
  const tip = document.getElementById("tip");
  const charts = [];

  /* ---- data ---- */
  function rowsOf(figure) {
    const names = Object.keys(figure.data);
    const first = figure.data[names[0]];
    const count = names.length ? (first.codes || first).length : 0;
    const get = Object.fromEntries(names.map((name) => {
      const column = figure.data[name];
      return [name, column.codes ? (i) => (column.codes[i] < 0 ? null : column.levels[column.codes[i]]) : (i) => column[i]];
    }));
    return Array.from({ length: count }, (_, i) => Object.fromEntries(names.map((name) => [name, get[name](i)])));
  }
  const levels = (rows, name, order) => {
    const found = new Set(rows.map((row) => row[name]).filter((value) => value !== null));
    const listed = (order || []).filter((value) => found.has(value));
    return [...listed, ...[...found].filter((value) => !listed.includes(value)).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))];
  };
  const orderOf = (name) => atlas.order[name === "other" ? "base" : name];
  function shown(chart) {
    return chart.rows.filter((row) => SHARED.every((name) => !(name in row) || !state[name] || row[name] === null
      || state[name].has(row[name])) && Object.entries(chart.chosen).every(([name, value]) => value === null || row[name] === value));
  }
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const extent = (values) => [Math.min(...values), Math.max(...values)];

  /* ---- numbers and text ---- */
  function number(value, format) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (typeof value === "string") return value;
    if (format === "plain") return String(Number(value.toPrecision(3)));
    if (format === "small") return value === 0 ? "0" : value.toExponential(1).replace("-", "−");
    const digits = format === "points" ? 1 : format === "count" ? 0 : 2;
    const scaled = format === "points" ? value * 100 : value;
    const text = Math.abs(scaled).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const zero = Number(text.replace(/,/g, "")) === 0;
    return (zero ? "" : scaled < 0 ? "−" : format === "points" ? "+" : "") + text;
  }
  const short = (text, most) => (text && text.length > most ? `${text.slice(0, most - 1)}…` : String(text ?? "all"));

  /* ---- drawing ---- */
  const NS = "http://www.w3.org/2000/svg";
  function element(tag, attributes, parent, text) {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  function mark(chart, node, lines) {
    node.classList.add("mark");
    node.__lines = lines;
    chart.marks.push(node);
    node.addEventListener("pointerenter", (event) => show(node, event.clientX, event.clientY));
    node.addEventListener("pointerleave", hide);
  }
  function show(node, x, y) {
    tip.textContent = "";
    node.__lines.forEach((line, i) => {
      const part = document.createElement(i ? "div" : "strong");
      part.textContent = line;
      tip.appendChild(part);
    });
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 4))}px`;
    tip.style.top = `${y + height + 24 > window.innerHeight ? Math.max(4, y - height - 12) : y + 14}px`;
  }
  const hide = () => { tip.hidden = true; };
  const niceStep = (span, count) => {
    const raw = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
    return power * [1, 2, 5, 10].find((m) => m * power >= raw - 1e-12);
  };
  function ticks(low, high, count) {
    const step = niceStep(high - low || 1, count), found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(Math.abs(v) < step / 1e6 ? 0 : v);
    return found;
  }
  const decades = (low, high) => [1, 1.5, 2, 3, 5, 7].flatMap((m) => [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5].map((p) => m * 10 ** p)).filter((v) => v >= low && v <= high);
  // of ticks on a log axis, round ones first, those whose labels have room
  const apart = (values, x, room) => [1, 3, 2, 5, 7, 1.5].flatMap((m) => values.filter((v) => Math.abs(v / 10 ** Math.floor(Math.log10(v) + 1e-9) - m) < 1e-6))
    .reduce((kept, v) => (kept.every((other) => Math.abs(x(other) - x(v)) >= room) ? [...kept, v] : kept), []);
  const tickText = (value, format) => number(value, format).replace(/\.0+$/, "").replace(/(\.\d*?)0+$/, "$1").replace(/^\+/, "");
  function scale(low, high, from, to, log) {
    const f = log ? Math.log : (v) => v, a = f(low), b = f(high);
    return (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
  }
  const diverging = (t) => `var(--${t < 0 ? "loss" : "gain"}-${Math.min(9, Math.round(Math.abs(t) * 9))})`;

  function frame(chart, width, height) {
    chart.plot.querySelectorAll("svg, .absent").forEach((node) => node.remove());
    chart.marks = [];
    chart.at = -1;
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, xmlns: NS, "aria-hidden": "true" }, chart.plot);
    return svg;
  }
  function axes(svg, box, x, y, chart, xticks, yticks) {
    const spec = chart.spec;
    for (const v of yticks) {
      element("line", { x1: box.left, x2: box.right, y1: y(v), y2: y(v), class: v === 0 ? "zero" : "grid" }, svg);
      element("text", { x: box.left - 7, y: y(v) + 4, "text-anchor": "end" }, svg, tickText(v, spec.format_y || spec.format));
    }
    for (const v of xticks) {
      element("line", { x1: x(v), x2: x(v), y1: box.top, y2: box.bottom, class: v === 0 ? "zero" : "grid" }, svg);
      element("text", { x: x(v), y: box.bottom + 17, "text-anchor": "middle" }, svg, tickText(v, spec.format_x));
    }
    if (spec.x_title) element("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle", class: "axis" }, svg, spec.x_title);
    if (spec.y_title) {
      const at = `rotate(-90 13 ${(box.top + box.bottom) / 2})`;
      element("text", { x: 13, y: (box.top + box.bottom) / 2, "text-anchor": "middle", transform: at, class: "axis" }, svg, spec.y_title);
    }
  }
  function details(chart, row) {
    return (chart.spec.hover || []).filter(([name]) => row[name] !== null && row[name] !== undefined)
      .map(([name, label, format]) => `${label}: ${number(row[name], format)}`);
  }
  const colourOf = (chart, value) => {
    // a base or dataset keeps its colour in all figures
    const order = orderOf(chart.spec.colour) || [];
    const all = chart.colours || (chart.colours = [...order, ...levels(chart.rows, chart.spec.colour).filter((v) => !order.includes(v))]);
    return COLOURS[Math.max(0, all.indexOf(value)) % COLOURS.length];
  };
  function legend(chart, rows) {
    chart.key.textContent = "";
    if (!chart.spec.colour) return;
    for (const value of levels(rows, chart.spec.colour, orderOf(chart.spec.colour))) {
      const item = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = colourOf(chart, value);
      item.append(dot, document.createTextNode(value));
      chart.key.appendChild(item);
    }
    const dashed = chart.spec.dash ? levels(chart.rows, chart.spec.dash, []) : [];
    for (const [i, value] of dashed.length > 1 ? dashed.entries() : []) {
      const item = document.createElement("span");
      const sample = element("svg", { width: 28, height: 8, viewBox: "0 0 28 8", "aria-hidden": "true" }, item);
      element("line", { x1: 0, x2: 28, y1: 4, y2: 4, "stroke-dasharray": DASHES[i % DASHES.length], class: "sample" }, sample);
      item.append(document.createTextNode(` ${value}`));
      chart.key.appendChild(item);
    }
  }

  const draw = {
    heat(chart, rows, room) {
      const spec = chart.spec, ys = levels(rows, spec.y, orderOf(spec.y)), xs = levels(rows, spec.x, orderOf(spec.x));
      const left = Math.min(170, 14 + 6.6 * Math.max(...ys.map((v) => short(v, 24).length))), top = 8;
      const tilt = 12 + 4.9 * Math.max(...xs.map((v) => short(v, 24).length));
      const cell = Math.max(30, Math.min(52, (room - left - 12) / xs.length)), tall = spec.square ? Math.max(24, cell * 0.62) : 26;
      const svg = frame(chart, left + cell * xs.length + 40, top + tall * ys.length + tilt);
      const groups = new Map();
      for (const row of rows) {
        const key = `${row[spec.y]}\u0000${row[spec.x]}`;
        if (row[spec.value] !== null) groups.set(key, [...(groups.get(key) || []), row]);
      }
      const values = [...groups.values()].map((part) => mean(part.map((row) => row[spec.value])));
      const sorted = values.map(Math.abs).sort((a, b) => a - b);
      const limit = spec.limit || Math.max(0.01, sorted[Math.floor(0.97 * (sorted.length - 1))] || 0);
      ys.forEach((v, i) => element("text", { x: left - 6, y: top + tall * (i + 0.5) + 4, "text-anchor": "end" }, svg, short(v, 24)));
      xs.forEach((v, j) => {
        const x = left + cell * (j + 0.5), y = top + tall * ys.length + 14;
        element("text", { x, y, "text-anchor": "end", transform: `rotate(-42 ${x} ${y})` }, svg, short(v, 24));
      });
      ys.forEach((yv, i) => xs.forEach((xv, j) => {
        const part = groups.get(`${yv}\u0000${xv}`);
        if (!part) return;
        const value = mean(part.map((row) => row[spec.value])), t = Math.max(-1, Math.min(1, value / limit));
        const cellNode = element("g", {}, svg);
        element("rect", { x: left + cell * j + 0.5, y: top + tall * i + 0.5, width: cell - 1, height: tall - 1, rx: 2, style: `fill:${diverging(t)}` }, cellNode);
        const ink = Math.abs(t) > 0.6 ? "heavy" : "light";
        element("text", { x: left + cell * (j + 0.5), y: top + tall * (i + 0.5) + 4, "text-anchor": "middle", class: ink }, cellNode, spec.format === "points" ? number(value * 100, "count") : number(value));
        if (part.some((row) => row.matched)) element("rect", { x: left + cell * j + 2, y: top + tall * i + 2, width: cell - 4, height: tall - 4, rx: 2, class: "outline" }, cellNode);
        const extra = part.length === 1 ? details(chart, part[0]) : [`mean of ${part.length} (${extent(part.map((row) => row[spec.value])).map((v) => number(v, spec.format)).join(" to ")})`];
        mark(chart, cellNode, [`${yv} · ${xv}`, `${spec.value_title}: ${number(value, spec.format)}`, ...extra]);
      }));
    },
    scatter(chart, rows, room) {
      const spec = chart.spec, width = Math.min(Math.max(room, 320), 980), height = Math.min(520, Math.max(320, width * 0.6));
      const box = { left: 58, right: width - 12, top: 10, bottom: height - 46 };
      const points = rows.filter((row) => row[spec.x] !== null && row[spec.y] !== null);
      // what has a ring is drawn last, over the others
      if (spec.ring) points.sort((a, b) => (a[spec.ring] === null) - (b[spec.ring] === null));
      const svg = frame(chart, width, height);
      const pad = ([a, b]) => [a - (b - a || 1) * 0.04, b + (b - a || 1) * 0.04];
      const [x0, x1] = spec.log ? extent(points.map((r) => r[spec.x])) : pad(extent(points.map((r) => r[spec.x])));
      const [y0, y1] = pad(extent(points.map((r) => r[spec.y])));
      const x = scale(x0, x1, box.left + 6, box.right - 6, spec.log), y = scale(y0, y1, box.bottom, box.top);
      const xt = spec.log ? decades(x0, x1) : ticks(x0, x1, width / 110);
      axes(svg, box, x, y, chart, spec.log ? apart(xt, x, 40) : xt, ticks(y0, y1, 6));
      if (spec.diagonal) {
        const a = Math.max(x0, y0), b = Math.min(x1, y1);
        if (b > a) element("line", { x1: x(a), y1: y(a), x2: x(b), y2: y(b), class: "zero" }, svg);
      }
      for (const row of points) {
        const ring = spec.ring && row[spec.ring] === null;
        const node = element("circle", { cx: x(row[spec.x]), cy: y(row[spec.y]), r: ring ? 7 : points.length > 400 ? 3.4 : 4.6, style: `fill:${colourOf(chart, row[spec.colour])}`, class: ring ? "ring" : "dot" }, svg);
        mark(chart, node, [spec.label.map((name) => row[name]).filter((v) => v !== null && v !== undefined).join(" · "), ...details(chart, row)]);
      }
    },
    lines(chart, rows, room) {
      const spec = chart.spec, width = Math.min(Math.max(room, 320), 980), height = Math.min(460, Math.max(300, width * 0.5));
      const box = { left: 58, right: width - 14, top: 10, bottom: height - 46 }, svg = frame(chart, width, height);
      const used = rows.filter((row) => row[spec.y] !== null && (!spec.log_y || row[spec.y] > 0));
      const [x0, x1] = extent(used.map((row) => row[spec.x]));
      const all = used.flatMap((row) => [row[spec.y], ...(spec.low && row[spec.low] !== null ? [row[spec.low], row[spec.high]] : [])]);
      let [y0, y1] = extent(spec.zero === false || spec.log_y ? all : [...all, 0]);
      const gap = (y1 - y0 || 1) * 0.05;
      [y0, y1] = spec.log_y ? [y0 / 1.1, y1 * 1.1] : [y0 - gap, y1 + gap];
      const x = scale(x0, x1, box.left + 8, box.right - 8), y = scale(y0, y1, box.bottom, box.top, spec.log_y);
      axes(svg, box, x, y, chart, ticks(x0, x1, Math.min(10, width / 70)), spec.log_y ? apart(decades(y0, y1), y, 22) : ticks(y0, y1, 6));
      const series = new Map();
      for (const row of used) {
        const key = spec.series.map((name) => row[name]).join("\u0000");
        series.set(key, [...(series.get(key) || []), row]);
      }
      const kinds = levels(chart.rows, spec.dash || "", []);
      for (const part of series.values()) {
        part.sort((a, b) => a[spec.x] - b[spec.x]);
        const ink = colourOf(chart, part[0][spec.colour]);
        if (spec.low && series.size <= 4 && part.every((row) => row[spec.low] !== null)) {
          const edge = [...part.map((r) => `${x(r[spec.x])},${y(r[spec.high])}`), ...[...part].reverse().map((r) => `${x(r[spec.x])},${y(r[spec.low])}`)];
          element("polygon", { points: edge.join(" "), style: `fill:${ink}`, class: "band" }, svg);
        }
        const line = part.map((row) => `${x(row[spec.x])},${y(row[spec.y])}`).join(" ");
        element("polyline", { points: line, style: `stroke:${ink}`, class: spec.fine ? "line fine" : "line", "stroke-dasharray": DASHES[Math.max(0, kinds.indexOf(part[0][spec.dash])) % DASHES.length] }, svg);
        for (const row of part) {
          const node = element("circle", { cx: x(row[spec.x]), cy: y(row[spec.y]), r: spec.fine ? 1.8 : 3.4, style: `fill:${ink}`, class: "dot" }, svg);
          mark(chart, node, [spec.series.map((name) => row[name]).filter((v) => v !== null).join(" · "), ...details(chart, row)]);
        }
      }
    },
    dots(chart, rows, room) {
      const spec = chart.spec, used = rows.filter((row) => row[spec.x] !== null).slice(0, 80);
      const names = used.map((row) => spec.label.map((name) => row[name]).filter((v) => v !== null && v !== undefined && v !== "").join(" · "));
      const width = Math.min(Math.max(room, 320), 980), left = Math.min(0.46 * width, 20 + 7 * Math.max(...names.map((n) => n.length)));
      const tall = 23, height = 12 + tall * used.length + 46;
      const box = { left, right: width - 14, top: 8, bottom: 12 + tall * used.length }, svg = frame(chart, width, height);
      const ends = used.flatMap((row) => [row[spec.x], row[spec.low], row[spec.high]].filter((v) => v !== null && v !== undefined));
      let [x0, x1] = extent(spec.zero === false ? ends : [...ends, 0]);
      const gap = (x1 - x0 || 1) * 0.05;
      [x0, x1] = [x0 - gap, x1 + gap];
      const x = scale(x0, x1, box.left, box.right);
      axes(svg, box, x, () => 0, chart, ticks(x0, x1, Math.max(2, (box.right - box.left) / 80)), []);
      used.forEach((row, i) => {
        const y = 12 + tall * (i + 0.5), node = element("g", {}, svg);
        element("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, node, short(names[i], Math.floor((left - 14) / 7)));
        const sure = row[spec.low] !== null && row[spec.low] !== undefined;
        const ink = spec.colour ? colourOf(chart, row[spec.colour]) : sure && (row[spec.low] > 0 || row[spec.high] < 0) ? COLOURS[0] : "var(--soft)";
        element("rect", { x: box.left, y: y - tall / 2, width: box.right - box.left, height: tall, class: "hit" }, node);
        if (sure) element("line", { x1: x(row[spec.low]), x2: x(row[spec.high]), y1: y, y2: y, style: `stroke:${ink}`, class: "interval" }, node);
        element("circle", { cx: x(row[spec.x]), cy: y, r: 5, style: `fill:${ink}`, class: "dot" }, node);
        mark(chart, node, [names[i], ...details(chart, row)]);
      });
    },
    stack(chart, rows, room) {
      const spec = chart.spec, names = levels(rows, spec.y, orderOf(spec.y)), parts = spec.parts;
      const width = Math.min(Math.max(room, 320), 980), left = Math.min(0.4 * width, 20 + 7 * Math.max(...names.map((n) => n.length)));
      const tall = 24, box = { left, right: width - 14, top: 8, bottom: 12 + tall * names.length }, svg = frame(chart, width, box.bottom + 46);
      const x = scale(0, 1, box.left, box.right);
      axes(svg, box, x, () => 0, chart, [0, 0.25, 0.5, 0.75, 1], []);
      names.forEach((name, i) => {
        const own = Object.fromEntries(rows.filter((row) => row[spec.y] === name).map((row) => [row[spec.colour], row]));
        let from = 0;
        element("text", { x: left - 8, y: 12 + tall * (i + 0.5) + 4, "text-anchor": "end" }, svg, short(name, 30));
        for (const part of parts) {
          const share = Math.max(0, own[part] ? own[part][spec.value] : 0);
          if (!share) continue;
          const to = Math.min(1, from + share);
          const node = element("rect", { x: x(from), y: 14 + tall * i, width: Math.max(0, x(to) - x(from) - 1), height: tall - 5, style: `fill:${colourOf(chart, part)}` }, svg);
          mark(chart, node, [`${name} · ${part}`, ...details(chart, own[part])]);
          from = to;
        }
      });
    },
  };

  /* ---- a figure with its controls ---- */
  function render(chart) {
    const rows = shown(chart), usable = rows.filter((row) => row[chart.spec.value || chart.spec.y || chart.spec.x] !== null);
    hide();
    if (usable.length) draw[chart.spec.type](chart, rows, chart.plot.clientWidth - 2);
    else {
      frame(chart, 10, 10).remove();
      const none = document.createElement("p");
      none.className = "absent";
      none.textContent = "No rows are left by the filters.";
      chart.plot.appendChild(none);
    }
    legend(chart, usable);
    chart.count.textContent = `${usable.length.toLocaleString("en")} of ${chart.rows.length.toLocaleString("en")} rows`;
    chart.plot.dataset.rows = usable.length;
    chart.plot.setAttribute("aria-label", `${chart.spec.title}: ${chart.marks.length} marks; use the arrow keys to read them`);
  }
  function step(chart, by) {
    if (!chart.marks.length) return;
    chart.marks[chart.at]?.classList.remove("at");
    chart.at = (chart.at + by + chart.marks.length) % chart.marks.length;
    const node = chart.marks[chart.at], place = node.getBoundingClientRect();
    node.classList.add("at");
    node.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(node, place.right, place.bottom);
    chart.live.textContent = node.__lines.join("; ");
  }
  function save(name, type, content) {
    const link = document.createElement("a");
    link.href = content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    if (!content.startsWith("data:")) setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const csv = (rows) => {
    const names = Object.keys(rows[0] || {});
    const quote = (v) => (v === null || v === undefined ? "" : /[",\n]/.test(String(v)) ? `"${String(v).replace(/"/g, '""')}"` : String(v));
    return [names.join(","), ...rows.map((row) => names.map((name) => quote(row[name])).join(","))].join("\n") + "\n";
  };
  function standalone(chart) {
    // styles that the page gives by rules are written into the copy
    const source = chart.plot.querySelector("svg");
    if (!source) return null;
    const copy = source.cloneNode(true), from = source.querySelectorAll("*"), to = copy.querySelectorAll("*");
    from.forEach((node, i) => {
      const css = getComputedStyle(node);
      to[i].setAttribute("style", ["fill", "stroke", "stroke-width", "opacity", "fill-opacity", "font-size", "font-weight"].map((p) => `${p}:${css.getPropertyValue(p)}`).join(";"));
    });
    copy.setAttribute("style", `background:${getComputedStyle(document.querySelector("figure")).backgroundColor};font-family:system-ui,sans-serif`);
    copy.removeAttribute("aria-hidden");
    return new XMLSerializer().serializeToString(copy);
  }
  function png(chart) {
    const text = standalone(chart), svg = chart.plot.querySelector("svg");
    if (!text) return;
    const image = new Image(), canvas = document.createElement("canvas");
    canvas.width = 2 * svg.getAttribute("width");
    canvas.height = 2 * svg.getAttribute("height");
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      save(`${chart.spec.name}.png`, "image/png", canvas.toDataURL("image/png"));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  }
  const button = (text, title, act) => {
    const node = document.createElement("button");
    node.type = "button";
    node.textContent = text;
    node.title = title;
    node.addEventListener("click", act);
    return node;
  };
  function build(spec) {
    const host = document.querySelector(`[data-figure="${spec.name}"]`);
    if (!host) return;
    const chart = { spec, rows: rowsOf(spec), chosen: {}, marks: [], at: -1 };
    const controls = document.createElement("div");
    controls.className = "controls";
    if (spec.colours) {
      const label = document.createElement("label"), select = document.createElement("select");
      label.append("colour ", select);
      spec.colours.forEach((name) => select.add(new Option(name, name)));
      select.addEventListener("change", () => {
        spec.colour = select.value;
        chart.colours = null;
        render(chart);
      });
      controls.appendChild(label);
    }
    for (const choice of spec.choices || []) {
      const label = document.createElement("label"), select = document.createElement("select");
      label.append(`${choice.label} `, select);
      const values = levels(chart.rows, choice.name, choice.order || orderOf(choice.name));
      if (choice.all) select.add(new Option("all", ""));
      values.forEach((value) => select.add(new Option(String(value), String(value))));
      const first = choice.start !== undefined && values.includes(choice.start) ? choice.start : choice.all ? null : values[0];
      chart.chosen[choice.name] = first ?? null;
      select.value = first === null || first === undefined ? "" : String(first);
      select.addEventListener("change", () => {
        chart.chosen[choice.name] = values.find((value) => String(value) === select.value) ?? null;
        render(chart);
      });
      controls.appendChild(label);
    }
    chart.count = document.createElement("span");
    chart.count.className = "count";
    const exports = document.createElement("span");
    exports.className = "exports";
    exports.append(
      button("CSV", "Save the rows shown", () => save(`${spec.name}.csv`, "text/csv", csv(shown(chart)))),
      button("SVG", "Save the figure as shown", () => { const text = standalone(chart); if (text) save(`${spec.name}.svg`, "image/svg+xml", text); }),
      button("PNG", "Save the figure as shown", () => png(chart)),
    );
    controls.append(chart.count, exports);
    chart.plot = document.createElement("div");
    chart.plot.className = "canvas";
    chart.plot.tabIndex = 0;
    chart.plot.setAttribute("role", "group");
    chart.key = document.createElement("div");
    chart.key.className = "key";
    chart.live = document.createElement("div");
    chart.live.className = "unseen";
    chart.live.setAttribute("aria-live", "polite");
    chart.plot.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (by) { event.preventDefault(); step(chart, by); } else if (event.key === "Escape") hide();
    });
    chart.plot.addEventListener("blur", () => { chart.marks[chart.at]?.classList.remove("at"); hide(); });
    host.append(controls, chart.plot, chart.key, chart.live);
    charts.push(chart);
  }

  /* ---- shared filters ---- */
  function fromAddress() {
    const given = new URLSearchParams(location.hash.replace(/^#/, ""));
    for (const name of SHARED) {
      const value = given.get(name);
      state[name] = value === null ? null : new Set(value.split("|").filter((v) => atlas.order[name].includes(v)));
      if (state[name] && !state[name].size) state[name] = null;
    }
  }
  function toAddress() {
    const parts = SHARED.filter((name) => state[name]).map((name) => `${name}=${[...state[name]].map(encodeURIComponent).join("|")}`);
    history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
  }
  function filters() {
    for (const name of SHARED) {
      const box = document.querySelector(`[data-filter="${name}"]`);
      if (!box) continue;
      const list = box.querySelector(".options"), all = atlas.order[name];
      if (!list.childElementCount) {
        for (const value of all) {
          const label = document.createElement("label"), input = document.createElement("input");
          input.type = "checkbox";
          input.value = value;
          input.addEventListener("change", () => {
            const on = [...list.querySelectorAll("input:checked")].map((node) => node.value);
            state[name] = on.length === all.length || !on.length ? null : new Set(on);
            apply();
          });
          label.append(input, document.createTextNode(` ${value}`));
          list.appendChild(label);
        }
      }
      list.querySelectorAll("input").forEach((input) => { input.checked = !state[name] || state[name].has(input.value); });
      box.querySelector(".chosen").textContent = state[name] ? `${state[name].size} of ${all.length}` : "all";
    }
  }
  function apply() {
    toAddress();
    update();
  }
  function update() {
    filters();
    charts.forEach(render);
    document.documentElement.dataset.ready = "yes";
  }
  document.querySelectorAll("[data-all]").forEach((node) => node.addEventListener("click", () => {
    state[node.dataset.all] = null;
    apply();
  }));
  document.querySelectorAll("[data-none]").forEach((node) => node.addEventListener("click", () => {
    // one is left, the first: an empty choice would show nothing
    state[node.dataset.none] = new Set(atlas.order[node.dataset.none].slice(0, 1));
    apply();
  }));
  document.addEventListener("click", (event) => document.querySelectorAll("details.filter[open]").forEach((node) => {
    if (!node.contains(event.target) && event.target.isConnected) node.open = false;
  }));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll("details.filter[open]").forEach((node) => { node.open = false; node.querySelector("summary").focus(); });
  });
  window.addEventListener("hashchange", () => { if (location.hash.includes("=")) { fromAddress(); update(); } });
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => charts.forEach(render), 120); });
  atlas.figures.forEach(build);
  fromAddress();
  update();
})();
