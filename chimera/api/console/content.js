import * as api from "./api.js";
import { empty, make, moment, number, table } from "./dom.js";

const EVERY_MS = 10000;
const PAGE = 50;
const WANTED = 0.9;

export function content(root, { complain }) {
  const place = make("div");
  let after = 0;
  let over = false;
  const look = async () => {
    try {
      const [report, page] = await Promise.all([api.get("/api/content/report"), api.get(`/api/content/items?limit=${PAGE}&after=${after}`)]);
      if (over) return;
      const turn = (name, to) => make("button", { class: "plain", type: "button", disabled: to === null, onclick: () => { after = to; look(); } }, name);
      place.replaceChildren(
        ...figures("Items", report.items), ...(report.replies.items ? figures("Replies", report.replies) : []),
        make("h2", {}, "What was made"), page.items.length ? rows(page.items) : empty("Nothing was made yet."),
        after || page.next !== null ? make("p", {}, turn("Newer", after ? Math.max(0, after - PAGE) : null), turn("Older", page.next && Number(page.next))) : "");
      complain(null);
    } catch (error) {
      if (!over) complain(error);
    }
  };
  root.append(make("h1", {}, "Content"), place);
  look();
  const timer = setInterval(() => { if (!place.contains(document.activeElement)) look(); }, EVERY_MS);
  return () => { over = true; clearInterval(timer); };
}

function figures(name, told) {
  const reached = told.without_person.value === null ? null : told.without_person.value > WANTED ? "good" : "warn";
  return [make("h2", {}, name),
    make("p", {}, `${number(told.items)} made, ${number(told.published)} published, ${number(told.refused)} refused, for $${number(told.cost_usd_total, 4)} in all.`),
    table(`Figures of ${name.toLowerCase()}`, [
      { name: "Figure", of: ([name]) => name },
      { name: "Value", number: true, of: ([, value, , state]) => make("span", { class: state }, value) },
      { name: "95 % interval", number: true, of: ([, , interval]) => interval },
    ], [
      ["Needed no person (more than 90 % wanted)", ...share(told.without_person), reached],
      ["Interventions", ...share(told.interventions)],
      ["Errors", ...share(told.errors)],
      ["Engagement", ...share(told.engagement)],
      ["Reactions each", ...amount(told.reactions_each, (value) => number(value, 2))],
      ["Cost each", ...amount(told.cost_usd, (value) => `$${number(value, 4)}`)],
    ])];
}

function share(figure) {
  return amount(figure, (value) => `${number(100 * value, 1)} %`);
}

function amount(figure, said) {
  return figure.value === null ? ["not known", ""] : [said(figure.value), `${said(figure.low)} to ${said(figure.high)}`];
}

function rows(items) {
  return make("div", { class: "wide" }, table("Items", [
    { name: "At (UTC)", of: (item) => moment(item.sent_s || item.due_s || item.made_s) },
    { name: "Account", of: (item) => plain(item.account) },
    { name: "Words", of: (item) => plain(item.words) },
    { name: "State", of: (item) => make("span", { class: `state ${{ sent: "good", failed: "bad", refused: "bad", held: "warn", waiting: "warn" }[item.state] ?? ""}` }, item.state) },
    { name: "Why", of: (item) => plain(item.reason) },
    { name: "Person", of: (item) => (item.changed ? "changed it" : item.person ? "agreed" : "") },
    { name: "Cost", number: true, of: (item) => `$${number(item.cost_usd, 4)}` },
  ], items));
}

// Characters that cannot be seen, or that turn others around, by their numbers: what is read is what goes out.
function plain(text) {
  return text.replace(/(?!\n)[\p{Cc}\p{Cf}\u2028\u2029]/gu, (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
