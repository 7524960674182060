import * as api from "./api.js";
import { draw, empty, field, make, moment, number, table } from "./dom.js";

const PART = 25;
const DECISIONS = { contender: "contender wins", champion: "champion holds", inconclusive: "inconclusive", given_up: "given up: the whole was decided" };
const STATES = { contender: "good", champion: "good", inconclusive: "warn", given_up: "faint" };

export function duels(root, { complain }) {
  const env = make("input", { name: "env", maxlength: 53, placeholder: "mult8-v0" });
  const list = make("div");
  let befores = [""];
  const look = async () => {
    try {
      const query = new URLSearchParams({ limit: PART, ...(env.value.trim() ? { env: env.value.trim() } : {}), ...(befores.at(-1) ? { after: befores.at(-1) } : {}) });
      const page = await api.get(`/api/arena/duels?${query}`);
      list.replaceChildren(
        ...damaged(page.damaged),
        page.items.length ? rows(page.items) : none(env.value.trim()),
        make("p", {},
          make("button", { class: "plain", type: "button", disabled: befores.length === 1, onclick: () => { befores.pop(); look(); } }, "Newer"),
          make("button", { class: "plain", type: "button", disabled: page.next === null, onclick: () => { befores.push(page.next); look(); } }, "Older")));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  const form = make("form", { "aria-label": "Filter" }, field("Only of the environment", env), make("button", { type: "submit" }, "Show"));
  form.addEventListener("submit", (event) => { event.preventDefault(); befores = [""]; look(); });
  root.append(make("h1", {}, "Duels"), form, make("h2", {}, "The last first"), list);
  look();
}

function none(env) {
  if (env) return empty(`There is no duel in ${env} on record.`);
  return make("p", { class: "empty" }, "No duel is on record on this node's machine. One is held with ", make("code", {}, "af duel oracle:p=0.6 oracle:p=0.9"));
}

function damaged(ids) {
  return ids.length ? [make("p", { class: "bad", role: "status" }, `${ids.length} damaged and skipped: ${ids.join(", ")}`)] : [];
}

function rows(items) {
  return table("Duels", [
    { name: "Contender and champion", of: (duel) => make("a", { href: `#/duels/${encodeURIComponent(duel.id)}` }, `${duel.contender} against ${duel.champion}`) },
    { name: "In", of: (duel) => duel.env_id },
    { name: "Began (UTC)", of: (duel) => moment(duel.began_s) },
    { name: "Decision", of: decision },
    { name: "Won, lost, tied", number: true, of: counts },
    { name: "Contender's win rate", of: (duel) => make("div", {}, bar(duel), make("div", { class: "faint" }, interval(duel))) },
  ], items);
}

function decision(duel) {
  return make("span", { class: `state ${STATES[duel.decision]}` }, DECISIONS[duel.decision]);
}

function counts(duel) {
  return [duel.wins, duel.losses, duel.ties].map((each) => number(each)).join("-");
}

function interval({ low, high }) {
  return `${low.toFixed(3)} .. ${high.toFixed(3)}`;
}

function said(duel) {
  const share = duel.share === null ? "no decisive sample" : `the contender won ${duel.wins} of ${duel.wins + duel.losses} decisive samples, the champion ${duel.losses}`;
  return `win rate of the contender between ${duel.low.toFixed(3)} and ${duel.high.toFixed(3)}, to beat ${number(duel.rule.p0, 3)}; ${share}`;
}

// From 0 to 1: the interval, a dot where the contender's share is (the champion's is the rest), the ratio to beat.
function bar(duel) {
  const [wide, high, edge] = [200, 22, 6];
  const x = (share) => edge + (wide - 2 * edge) * share;
  return draw("svg", { class: "interval", viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": said(duel) },
    draw("line", { class: "axis", x1: x(0), y1: high / 2, x2: x(1), y2: high / 2 }),
    [0, 0.5, 1].map((at) => draw("line", { class: "axis", x1: x(at), y1: high / 2 - 4, x2: x(at), y2: high / 2 + 4 })),
    draw("rect", { class: "band", x: x(duel.low), y: 5, width: Math.max(1, x(duel.high) - x(duel.low)), height: high - 10 }),
    draw("line", { class: "limit", x1: x(duel.rule.p0), y1: 0, x2: x(duel.rule.p0), y2: high }),
    duel.share === null ? null : draw("circle", { class: "share", cx: x(duel.share), cy: high / 2, r: 4 }));
}

export function duel(root, { complain, argument }) {
  const place = make("div");
  root.append(make("p", {}, make("a", { href: "#/duels" }, "All duels")), place);
  const look = async () => {
    try {
      place.replaceChildren(...told(await api.get(`/api/arena/duels/${encodeURIComponent(argument)}`)));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  look();
}

function told(duel) {
  return [
    make("h1", {}, `${duel.contender} against ${duel.champion} in ${duel.env_id}`),
    make("p", {}, "Decision: ", decision(duel), `. After ${number(duel.samples)} samples (${counts(duel)} won-lost-tied): ${said(duel)}.`),
    chart(duel),
    make("p", { class: "faint" }, "Band: what the samples so far leave possible of the contender's win rate. Line: its share of the decisive samples. Dashes: the ratio to beat."),
    make("h2", {}, "Rule"),
    table("Rule", [{ name: "What", of: ([name]) => name }, { name: "Value", of: ([, value]) => value }], facts(duel)),
    make("h2", {}, "Course"),
    make("details", {}, make("summary", {}, `The numbers behind the picture (${duel.course.length})`), points(duel.course)),
  ];
}

function facts(duel) {
  const { rule, whole } = duel;
  return [
    ["Rule", rule.name], ["Ratio to beat (p0)", number(rule.p0, 9)], ["alpha", number(rule.alpha, 9)], ["z", rule.z === null ? "none" : number(rule.z, 6)],
    ["Budget", number(rule.budget)],
    ["Wrong for the contender, at most", number(rule.error_contender, 4)], ["Wrong for the champion, at most", number(rule.error_champion, 4)],
    ["Began (UTC)", moment(duel.began_s)], ["Ended (UTC)", moment(duel.ended_s)],
    ...(whole ? [["Environments won by the contender", `${whole.won} of ${whole.of}, ${whole.needed} needed`]] : []),
    ...(duel.seed === null ? [] : [["Seed", duel.seed]]),
    ...(duel.validator === null ? [] : [["Validator", duel.validator]]),
    ...(duel.block === null ? [] : [["Block", duel.block]]),
  ];
}

function points(course) {
  return table("Course", [
    { name: "Samples", number: true, of: (point) => number(point.samples) },
    { name: "Won", number: true, of: (point) => number(point.wins) },
    { name: "Lost", number: true, of: (point) => number(point.losses) },
    { name: "Interval", of: interval },
  ], course);
}

function chart(duel) {
  const { course, rule } = duel;
  const [wide, high, left, edge] = [1000, 300, 60, 24];
  const last = Math.max(1, course.at(-1)?.samples ?? 1);
  const x = (samples) => left + ((wide - left - edge) * samples) / last;
  const y = (share) => high - edge - (high - 2 * edge) * share;
  const at = (samples, share) => `${x(samples).toFixed(1)},${y(share).toFixed(1)}`;
  const begun = [{ samples: 0, low: 0, high: 1, wins: 0, losses: 0 }, ...course];
  const band = [...begun.map((point) => at(point.samples, point.high)), ...begun.toReversed().map((point) => at(point.samples, point.low))];
  const shares = course.filter((point) => point.wins + point.losses).map((point) => at(point.samples, point.wins / (point.wins + point.losses)));
  return draw("svg", { class: "drawing", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `How the interval narrowed over ${number(duel.samples)} samples: ${said(duel)}` },
    [0, 0.25, 0.5, 0.75, 1].map((share) => [
      draw("line", { class: "axis", x1: left, y1: y(share), x2: wide - edge, y2: y(share) }),
      draw("text", { x: left - 40, y: y(share) + 4 }, share.toFixed(2))]).flat(),
    draw("polygon", { class: "band", points: band.join(" ") }),
    draw("polyline", { class: "series", points: shares.join(" ") }),
    draw("line", { class: "limit", x1: left, y1: y(rule.p0), x2: wide - edge, y2: y(rule.p0) }),
    draw("text", { x: left, y: high - 6 }, "0"), draw("text", { x: wide - edge, y: high - 6, "text-anchor": "end" }, `${number(duel.samples)} samples`));
}
