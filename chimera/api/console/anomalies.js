import * as api from "./api.js";
import { draw, empty, field, make, moment, number, table } from "./dom.js";

const EVERY_MS = 3000;
const [WIDE, HIGH, EDGE] = [1000, 260, 45];

export function anomalies(root, { complain, argument }) {
  const choice = make("select", { name: "metric" });
  const drawing = make("div");
  const list = make("div");
  let metric = argument ?? null;
  const look = async () => {
    try {
      const told = await api.get(`/api/anomaly/detect${metric ? `?metric=${encodeURIComponent(metric)}` : ""}`);
      if (!metric && told.metrics.length) { metric = told.metrics[0]; return look(); }
      if (choice.length !== told.metrics.length) {
        choice.replaceChildren(...told.metrics.map((name) => make("option", { selected: name === metric }, name)));
      }
      drawing.replaceChildren(told.readings?.length ? chart(metric, told.readings, told.alerts) : empty("No readings yet."));
      list.replaceChildren(told.alerts.length ? rows(told.alerts) : empty("Nothing odd was seen."));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  choice.addEventListener("change", () => { metric = choice.value; look(); });
  root.append(make("h1", {}, "Anomalies"), make("form", {}, field("Metric", choice)), drawing, make("h2", {}, "Alerts"), list);
  look();
  const timer = setInterval(look, EVERY_MS);
  return () => clearInterval(timer);
}

function chart(metric, readings, alerts) {
  const times = readings.map(([at]) => at);
  const values = readings.map(([, value]) => value).filter(Number.isFinite);
  const [first, last] = [times[0], times.at(-1)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (at) => EDGE + ((WIDE - 2 * EDGE) * (at - first)) / Math.max(1e-9, last - first);
  const y = (value) => HIGH - EDGE / 2 - ((HIGH - EDGE) * (value - low)) / Math.max(1e-9, high - low);
  const points = readings.filter(([, value]) => Number.isFinite(value)).map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  const marks = alerts.filter((alert) => alert.metric === metric && when(alert) >= first && when(alert) <= last);
  return draw("svg", { class: "drawing", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${metric}: ${readings.length} readings, ${marks.length} alerts` },
    draw("line", { class: "axis", x1: EDGE, y1: HIGH - EDGE / 2, x2: WIDE - EDGE, y2: HIGH - EDGE / 2 }),
    draw("text", { x: 2, y: y(high) + 4 }, number(high, 2)), draw("text", { x: 2, y: y(low) }, number(low, 2)),
    draw("polyline", { class: "series", points: points.join(" ") }),
    marks.map((alert) => draw("circle", { class: "mark", cx: x(when(alert)), cy: y(alert.value ?? low), r: 5 }, draw("title", {}, title(alert)))));
}

function when(alert) {
  return alert.peaked ?? alert.timestamp ?? alert.at ?? 0;
}

function title(alert) {
  return `${alert.kind ?? alert.event} at ${moment(when(alert))}`;
}

function rows(alerts) {
  return table("Alerts", [
    { name: "When (UTC)", of: (alert) => moment(when(alert)) },
    { name: "Metric", of: (alert) => make("a", { href: `#/anomalies/${encodeURIComponent(alert.metric)}` }, alert.metric) },
    { name: "What", of: (alert) => alert.kind ?? alert.event },
    { name: "Value", number: true, of: (alert) => (alert.value === undefined ? "" : number(alert.value, 3)) },
    { name: "Expected", number: true, of: (alert) => (alert.expected === undefined || alert.expected === null ? "" : number(alert.expected, 3)) },
  ], [...alerts].reverse());
}
