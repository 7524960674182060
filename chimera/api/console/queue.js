import * as api from "./api.js";
import { empty, field, make, moment, number, table } from "./dom.js";

const EVERY_MS = 3000;
const PAGE = 50;

export function queue(root, { complain }) {
  const list = make("div");
  const mine = make("input", { id: "mine", type: "checkbox", onchange: () => { pages = [0]; look(); } });
  let pages = [0];
  let over = false;
  const look = async () => {
    try {
      const page = await api.get(`/api/queue?limit=${PAGE}&after=${pages.at(-1)}&mine=${mine.checked}`);
      if (over) return;
      const turn = (name, to) => make("button", { class: "plain", type: "button", disabled: to === null, onclick: () => { pages = to; look(); } }, name);
      list.replaceChildren(page.items.length ? rows(page.items) : empty("Nothing waits for a person."));
      if (pages.length > 1 || page.next !== null) {
        list.append(make("p", {}, turn("Earlier", pages.length > 1 ? pages.slice(0, -1) : null), turn("Later", page.next && [...pages, Number(page.next)])));
      }
      complain(null);
    } catch (error) {
      if (!over) complain(error);
    }
  };
  root.append(make("h1", {}, "Review queue"), make("p", {}, mine, " ", make("label", { class: "inline", for: "mine" }, "Only what I may decide")), list);
  look();
  const timer = setInterval(() => { if (!list.contains(document.activeElement)) look(); }, EVERY_MS);
  return () => { over = true; clearInterval(timer); };
}

function rows(items) {
  return table("Review queue", [
    { name: "Since (UTC)", of: (item) => moment(item.asked_at_s) },
    { name: "What", of: (item) => make("a", { href: `#/queue/${encodeURIComponent(item.id)}` }, plain(item.summary)) },
    { name: "Kind", of: (item) => item.kind },
    { name: "Asked by", of: (item) => item.asker },
    { name: "Confidence", number: true, of: (item) => number(item.confidence, 2) },
    { name: "For", of: (item) => item.group || "everybody" },
    { name: "Claimed by", of: (item) => item.holder?.by ?? "" },
    { name: "Until (UTC)", of: (item) => moment(item.expires_at_s) },
  ], items);
}

export function queued(root, { complain, caller, argument }) {
  const path = `/api/queue/${encodeURIComponent(argument)}`;
  const said = make("p", { role: "status", class: "state" });
  const place = make("div");
  let over = false;
  let acting = false;
  let keys = {};
  const look = async () => {
    try {
      const told = await api.get(path);
      if (over) return;
      const choices = told.decides ? choicesOf(told, caller.subject, act) : [];
      keys = Object.fromEntries(choices.map((choice) => [choice.key, choice.then]));
      place.replaceChildren(...whole(told, choices));
    } catch (error) {
      if (!over) complain(error);
    }
  };
  const act = async (command, body, text) => {
    if (acting) return;
    acting = true;
    said.textContent = "";
    try {
      const told = await api.post(`${path}/${command}`, body);
      said.textContent = told.state === "waiting" && (command === "approve" || command === "edit") ? `${text} One more has to agree.` : text;
      complain(null);
    } catch (error) {
      if (!over) complain(error);
    }
    acting = false;
    if (!over) await look();
  };
  const pressed = (event) => {
    const busy = event.repeat || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog") || event.target.closest("input, textarea, select");
    if (!busy && Object.hasOwn(keys, event.key)) { event.preventDefault(); keys[event.key](); }
  };
  document.addEventListener("keydown", pressed);
  root.append(make("p", {}, make("a", { href: "#/queue" }, "All that waits")), make("h1", {}, "Item ", argument.slice(0, 8)), said, place);
  look();
  return () => { over = true; document.removeEventListener("keydown", pressed); };
}

function whole(told, choices) {
  return [
    make("p", { "data-testid": "summary" }, make("b", {}, plain(told.summary))),
    make("p", {}, make("span", { class: `state ${told.state === "waiting" ? "warn" : ""}`, "data-testid": "state" }, told.state),
      told.ending ? ` ${told.ending.by ? `by ${plain(told.ending.by)}` : "by the policy"}, ${moment(told.ending.at_s)} UTC${told.ending.reason ? `: ${plain(told.ending.reason)}` : ""}` : ` since ${moment(told.asked_at_s)} UTC, until ${moment(told.expires_at_s)} UTC`),
    make("p", {}, `${told.asker} asks, with a confidence of `, make("b", {}, number(told.confidence, 2)), `. Why a person: ${plain(told.why)}.`),
    told.check ? make("p", { class: "warn" }, "It has gone on already: what you say teaches how right that is.") : "",
    facts(told),
    told.holder ? make("p", { "data-testid": "holder" }, `${told.holder.by} has claimed it, until ${moment(told.holder.until_s)} UTC.`) : "",
    told.approvals > 1 ? make("p", {}, `${told.approvals} people have to agree. So far: ${told.approvers.join(", ") || "nobody"}.`) : "",
    choices.length ? make("p", { class: "choices" }, ...choices.flatMap((choice) => [
      make("button", { type: "button", class: choice.plain ? "plain" : null, "aria-keyshortcuts": choice.key, onclick: choice.then }, choice.name), make("span", { class: "faint" }, ` ${choice.key}  `)])) : "",
    make("h2", {}, told.version ? `What is proposed, version ${told.version}` : "What is proposed"),
    ...told.edits.map((edit, at) => make("p", { class: "faint" }, `Version ${at + 1} is by ${edit.by}, ${moment(edit.at_s)} UTC.`)),
    make("pre", { "data-testid": "payload", tabindex: 0, role: "region", "aria-label": "Payload" }, told.text),
    told.proposed === null ? "" : make("details", {}, make("summary", {}, "As it was proposed at first"), make("pre", {}, told.proposed)),
  ];
}

function facts(told) {
  const known = [
    ["Kind", told.kind], ["Group", told.group], ["Made by", told.agents.join(", ")], ["Moves", told.usd === null ? "" : `$${number(told.usd, 2)}`],
    ["Audience", told.audience ?? ""], ["Mission", told.mission && make("a", { href: `#/missions/${encodeURIComponent(told.mission)}` }, plain(told.mission))],
  ].filter(([, value]) => value);
  return table("Facts", [{ name: "What", of: ([name]) => name }, { name: "Is", of: ([, value]) => value }], known);
}

// What a reviewer can do, each with its key: nothing is decided before a question in front of the page was answered.
function choicesOf(told, me, act) {
  const held = told.holder?.by === me;
  const reason = (required) => field("Why", make("input", { name: "reason", required, maxlength: 2000, autocomplete: "off" }));
  const payload = make("textarea", { name: "payload", rows: 14, cols: 60, required: true, spellcheck: "false" });
  payload.value = told.text;
  payload.addEventListener("input", () => payload.setCustomValidity(fault(payload.value)));
  return [
    held ? { name: "Release", key: "u", plain: true, then: () => act("release", {}, "Given back.") }
      : { name: "Claim", key: "c", plain: true, then: () => act("claim", {}, "It is yours for now.") },
    { name: "Approve", key: "a", then: () => question("Approve", `Agree to version ${told.version}, as it stands here?`, [], () => act("approve", { version: told.version }, "Approved.")) },
    { name: "Reject", key: "r", plain: true, then: () => question("Reject", "Refuse it for good?", [reason(true)], (said) => act("reject", { reason: said.get("reason") }, "Rejected.")) },
    told.editable && { name: "Edit", key: "e", plain: true, then: () => question("Edit and approve", "Change it, and agree to it as changed.", [field("Payload (JSON)", payload), reason(false)], (said) =>
      act("edit", { version: told.version, payload: exact(said.get("payload")), reason: said.get("reason") }, "Approved as changed.")) },
    { name: "Escalate", key: "p", plain: true, then: () => question("Escalate", "Pass it on: that group alone then decides.", [field("To the group", make("input", { name: "to", required: true, maxlength: 128, autocomplete: "off" })), reason(true)], (said) =>
      act("escalate", { to: said.get("to"), reason: said.get("reason") }, "Passed on.")) },
  ].filter(Boolean);
}

function fault(text) {
  try { JSON.parse(text); return ""; } catch (error) { return error.message; }
}

// Numbers as they are written, where the browser can: 12345678901234567890 stays that.
function exact(text) {
  return JSON.parse(text, (key, value, context) => (typeof value === "number" && context?.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value));
}

// Characters that cannot be seen, or that turn others around, by their numbers: what is read is what is agreed to.
function plain(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

// A question in front of the page: Tab stays within it, Escape is no.
function question(name, text, fields, then) {
  const form = make("form", { method: "dialog" }, make("p", {}, text), ...fields,
    make("p", {},
      make("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Cancel"), " ",
      make("button", { type: "submit" }, name.includes(" ") ? name : `${name} it`)));
  const dialog = make("dialog", { "aria-label": name, onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", (event) => { event.preventDefault(); const said = new FormData(form); dialog.close(); then(said); });
  document.body.append(dialog);
  dialog.showModal();
}
