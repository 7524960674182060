import * as api from "./api.js";
import { empty, make, moment, number, table } from "./dom.js";

const EVERY_MS = 3000;
const PAGE = 50;

export function reviews(root, { complain }) {
  const list = make("div");
  let after = 0;
  const look = async () => {
    try {
      const page = await api.get(`/api/reviews?limit=${PAGE}&after=${after}`);
      const turn = (name, to) => make("button", { class: "plain", type: "button", disabled: to === null, onclick: () => { after = to; look(); } }, name);
      list.replaceChildren(page.items.length ? rows(page.items) : empty("Nothing waits for a person."));
      if (after || page.next !== null) {
        list.append(make("p", {}, turn("Earlier", after ? Math.max(0, after - PAGE) : null), turn("Later", page.next && Number(page.next))));
      }
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  root.append(make("h1", {}, "Reviews"), list);
  look();
  const timer = setInterval(() => { if (!list.contains(document.activeElement)) look(); }, EVERY_MS);
  return () => clearInterval(timer);
}

function rows(items) {
  return table("Reviews", [
    { name: "Since (UTC)", of: (item) => moment(item.since_s) },
    { name: "What", of: (item) => (item.fault ? make("span", { class: "bad" }, item.fault) : make("a", { href: `#/reviews/${encodeURIComponent(item.id)}` }, item.summary)) },
    { name: "Module", of: (item) => item.module },
    { name: "Files", of: (item) => item.files.join(", ") },
    { name: "Confidence", number: true, of: (item) => (item.fault ? "" : number(item.confidence, 2)) },
    { name: "Answer", of: (item) => (item.answer ? make("span", { class: "state warn" }, said(item.answer)) : "") },
  ], items);
}

function said(answer) {
  return answer === "approve" ? "approved, not yet applied" : "refused, not yet heeded";
}

export function review(root, { complain, caller, argument }) {
  const path = `/api/reviews/${encodeURIComponent(argument)}`;
  const place = make("div");
  let over = false;
  root.append(make("p", {}, make("a", { href: "#/reviews" }, "All reviews")), make("h1", {}, "Patch ", argument.slice(0, 8)), place);
  (async () => {
    try {
      const told = await api.get(path);
      if (!over) place.replaceChildren(...whole(told, caller.permissions.includes("review:decide"), (answer) => api.post(`${path}/${answer}`, {}), complain));
    } catch (error) {
      if (!over) complain(error);
    }
  })();
  return () => { over = true; };
}

function whole(told, decides, answered, complain) {
  const tests = Object.entries(told.verdict.tests);
  return [
    make("p", {}, told.summary),
    make("p", {}, "Confidence ", make("b", {}, number(told.confidence, 2)), `, waits since ${moment(told.since_s)} UTC`, told.author ? `, written by ${told.author}` : "", "."),
    told.rationale ? make("p", {}, told.rationale) : null,
    decision(told, decides, answered, complain),
    make("h2", {}, "Failure"),
    make("p", {}, `Module ${told.module}. Why a patch: ${told.reason}`),
    make("pre", { "data-testid": "failure" }, told.failure),
    make("h2", {}, "Changes"),
    ...told.diffs.map(({ path, diff }) => make("pre", { class: "diff", tabindex: 0, role: "region", "aria-label": `Diff of ${path}` }, lines(diff))),
    make("h2", {}, "Verdict"),
    make("p", { "data-testid": "verdict" }, make("span", { class: `state ${told.verdict.verdict === "accept" ? "good" : "bad"}` }, told.verdict.verdict),
      told.verdict.reason ? `: ${told.verdict.reason}` : "", ` (in ${told.verdict.sandbox}, ${number(told.verdict.wall_s, 1)} s)`),
    tests.length
      ? table("Tests", [
          { name: "Suite", of: ([name]) => name },
          { name: "Passed", number: true, of: ([, count]) => number(count.passed) },
          { name: "Had to pass", number: true, of: ([, count]) => number(count.expected) },
        ], tests)
      : null,
    ...told.tests.flatMap(({ path, text }) => [make("h2", {}, `Its own tests: ${path}`), make("pre", {}, plain(text))]),
  ].filter(Boolean);
}

// A mark and a colour: what is added and what is taken away is told without colours too.
function lines(diff) {
  return plain(diff).trimEnd().split("\n").map((line, at) => {
    const kind = at < 2 ? "faint" : line.startsWith("+") ? "good" : line.startsWith("-") ? "bad" : line.startsWith("@@") ? "warn" : null;
    return make("span", { class: kind }, `${line}\n`);
  });
}

function decision(told, decides, answered, complain) {
  const state = make("p", { role: "status", class: "state warn" }, told.answer ? `${said(told.answer)}.` : "");
  if (!decides || told.answer) return state;
  const buttons = make("p", {},
    choice("Approve", "Approve this patch? Its code then runs on the node, where it is watched, and undone if it does not help."), " ",
    choice("Refuse", "Refuse this patch? The node forgets it, and remembers that it was refused."));
  function choice(name, question) {
    return make("button", { type: "button", class: name === "Approve" ? null : "plain", onclick: () => confirmed(name, question, async () => {
      try {
        const { answer } = await answered(name.toLowerCase());
        state.textContent = `${said(answer)}. The node takes it up when it runs.`;
        buttons.remove();
        complain(null);
      } catch (error) {
        complain(error);
      }
    }) }, name);
  }
  return make("div", {}, buttons, state);
}

// Characters that cannot be seen, or that turn others around, by their numbers: what is read is what will run.
function plain(text) {
  return text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\u2028\u2029]/gu, (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

// A question in front of the page: Tab stays within it, Escape is no, and so is Enter at first.
function confirmed(name, question, then) {
  const close = () => dialog.close();
  const dialog = make("dialog", { "aria-label": name, onclose: () => dialog.remove() }, make("p", {}, question),
    make("p", {},
      make("button", { type: "button", class: "plain", onclick: close }, "Cancel"), " ",
      make("button", { type: "button", onclick: () => { close(); then(); } }, `${name} it`)));
  document.body.append(dialog);
  dialog.showModal();
}
