import * as api from "./api.js";
import { draw, empty, field, make, moment, number, table } from "./dom.js";

const EVERY_MS = 3000;
const PAGE = 50;
const NEARLY = 0.8;
const WINDOWS = {
  last_day: "the last 24 hours", last_week: "the last 7 days", last_month: "the last 30 days",
  day: "a day (UTC)", week: "a week (UTC)", month: "a month (UTC)",
};
const ORDER = Object.keys(WINDOWS);

export function treasury(root, { complain, caller }) {
  const may = (what) => caller.permissions.includes(`treasury:${what}`);
  const said = make("p", { role: "status", class: "state" });
  const place = make("div");
  let over = false;
  let asks = 0;
  const look = async () => {
    asks += 1;
    try {
      const [status, waiting, all, entries] = await Promise.all([
        api.get("/api/treasury"), api.get(`/api/treasury/payments?state=waiting&limit=${PAGE}`),
        api.get(`/api/treasury/payments?limit=${PAGE}`), api.get("/api/treasury/entries?limit=20")]);
      if (over) return;
      const titles = new Map(status.accounts.map((account) => [account.id, account.title]));
      place.replaceChildren(
        spending(status.stopped, may, done, complain),
        make("h2", {}, "Waits for a person"),
        ...(waiting.items.length ? waiting.items.map((each) => one(each, titles, status.stopped, may("approve"), caller.subject, done, complain)) : [empty("Nothing waits for a person.")]),
        waiting.next === null ? "" : make("p", { class: "faint" }, `There are more: these are the first ${PAGE}.`),
        ...underWay(all.items.filter((each) => each.state !== "waiting")),
        make("h2", {}, "Caps"), status.caps.length ? caps(status.caps) : empty("There are no caps, and so nothing is spent."),
        make("h2", {}, "Balances"), status.accounts.length ? balances(status.accounts) : empty("There are no accounts yet."),
        make("h2", {}, "Last entries"), rows(entries.items));
      complain(null);
    } catch (error) {
      if (!over) complain(error);
    } finally {
      asks -= 1;
    }
  };
  const done = (text) => { said.textContent = text; look(); };
  root.append(make("h1", {}, "Treasury"), said, place);
  look();
  const timer = setInterval(() => { if (!asks && !place.contains(document.activeElement) && !document.querySelector("dialog")) look(); }, EVERY_MS);
  return () => { over = true; clearInterval(timer); };
}

function spending(stopped, may, done, complain) {
  const asked = async (path, body, text) => {
    try { await api.post(path, body); done(text); } catch (error) { complain(error); }
  };
  if (!stopped) {
    return make("p", { class: "switch" }, make("span", { class: "state good" }, "Payments are made. "),
      may("stop") ? make("button", { type: "button", class: "plain", onclick: () => question("Stop all spending", "Nothing is paid until somebody who may approve starts it again; what is asked for meanwhile is refused.", {
        why: true, then: (why) => asked("/api/treasury/stop", { why }, "All spending is stopped."),
      }) }, "Stop all spending") : "");
  }
  return make("p", { class: "switch" },
    make("span", { class: "state bad" }, `All spending is stopped, since ${when(stopped.at)} UTC by ${plain(stopped.by)}: ${plain(stopped.why)} `),
    may("approve") ? make("button", { type: "button", onclick: () => question("Start spending", "Payments are made again?", {
      then: () => asked("/api/treasury/resume", undefined, "Payments are made again."),
    }) }, "Start spending") : "");
}

function one(payment, titles, stopped, decides, me, done, complain) {
  const what = `${money(payment.amount)} ${payment.currency} to ${named(payment.credit, titles)}`;
  const approvals = payment.approvals.map((word) => `${plain(word.approver)} has ${word.verdict} it${word.signed ? ", signed" : ""}.`);
  return make("section", { class: "card", "aria-label": `Payment ${payment.id}` },
    make("p", {}, make("b", {}, what), ` from ${named(payment.debit, titles)}`),
    payment.reason ? make("p", { class: "reason" }, plain(payment.reason)) : "",
    make("p", { class: "faint" }, `${plain(payment.requester)} asks for it, as ${payment.category}${payment.mission ? `, for ${payment.mission}` : ""}. Until ${when(payment.expires_at)} UTC. `, make("span", { class: "id" }, payment.id)),
    make("p", {}, make("span", { class: "state warn" }, `Risk ${payment.risk.toFixed(2)}. `), plain(payment.why)),
    payment.factors.length ? make("details", { open: true }, make("summary", {}, "Why this risk"), factors(payment)) : "",
    ...approvals.map((text) => make("p", {}, text)),
    buttons(payment, what, stopped, decides, me, done, complain));
}

function buttons(payment, what, stopped, decides, me, done, complain) {
  if (!decides) return "";
  if (payment.requester === me) return make("p", { class: "faint" }, "You have asked for it: somebody else decides.");
  if (payment.approvals.some((word) => word.approver === me)) return make("p", { class: "faint" }, "You have answered.");
  const choice = (name, path, text) => make("button", { type: "button", class: path === "approve" ? null : "plain", onclick: () => question(name, text, {
    then: async () => {
      try {
        const told = await api.post(`/api/treasury/payments/${encodeURIComponent(payment.id)}/${path}`, {});
        done(`${what}: ${plain(told.why)}.`);
      } catch (error) {
        complain(error);
      }
    },
  }) }, name);
  const meanwhile = stopped ? " All spending is stopped: what is approved now is refused, and has to be asked for again." : "";
  return make("p", {}, choice("Approve", "approve", `Pay ${what}?${meanwhile}`), " ", choice("Refuse", "refuse", `Refuse ${what}? It is then not paid, whoever approves it.`));
}

function factors(payment) {
  return wide(`Risk of ${payment.id}`, [
    { name: "Factor", of: (factor) => factor.name },
    { name: "Value", number: true, of: (factor) => factor.value.toFixed(2) },
    { name: "Weight", number: true, of: (factor) => factor.weight.toFixed(2) },
    { name: "Why", of: (factor) => plain(factor.why) },
  ], payment.factors.toSorted((one, other) => other.value * other.weight - one.value * one.weight));
}

function underWay(items) {
  if (!items.length) return [];
  return [make("h2", {}, "Under way"), wide("Under way", [
    { name: "Payment", of: (item) => item.id },
    { name: "Amount", number: true, of: (item) => `${money(item.amount)} ${item.currency}` },
    { name: "To", of: (item) => item.credit },
    { name: "State", of: (item) => make("span", { class: "state" }, item.state) },
    { name: "Why", of: (item) => plain(item.why) },
  ], items)];
}

function caps(items) {
  return wide("Caps", [
    { name: "Of", of: (cap) => (cap.account === "*" ? "all funds" : cap.account) },
    { name: "In", of: (cap) => WINDOWS[cap.window] },
    { name: "Used", of: bar },
    { name: "Spent", number: true, of: (cap) => `${money(cap.used)} ${cap.currency}` },
    { name: "Limit", number: true, of: (cap) => `${money(cap.limit)} ${cap.currency}` },
  ], items.toSorted((one, other) => ORDER.indexOf(one.window) - ORDER.indexOf(other.window)));
}

// How much of a cap is used: a bar for the eye, the share in words for everybody.
function bar(cap) {
  const share = Number(cap.limit) ? Math.min(1, Number(cap.used) / Number(cap.limit)) : 1;
  const said = `${number(100 * share, 1)} %`;
  const [wide, high] = [160, 12];
  return make("span", { class: `cap ${share >= NEARLY ? "warn" : ""}` },
    draw("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": `${said} used` },
      draw("rect", { class: "whole", x: 0, y: 0, width: wide, height: high, rx: 3 }),
      draw("rect", { class: "part", x: 0, y: 0, width: wide * share, height: high, rx: 3 })), ` ${said}`);
}

function balances(items) {
  return wide("Balances", [
    { name: "Account", of: (account) => account.id },
    { name: "Name", of: (account) => plain(account.title) },
    { name: "Kind", of: (account) => account.kind },
    { name: "Balance", number: true, of: (account) => `${money(account.posted)} ${account.currency}` },
    { name: "Set aside", number: true, of: (account) => money(account.pending_out) },
    { name: "Coming in", number: true, of: (account) => money(account.pending_in) },
    { name: "Available", number: true, of: (account) => (account.kind === "fund" ? money(account.available) : "") },
  ], items.toSorted((one, other) => (other.kind === "fund") - (one.kind === "fund")));
}

function rows(items) {
  if (!items.length) return empty("The ledger is empty.");
  return wide("Last entries", [
    { name: "No.", number: true, of: (entry) => number(entry.seq) },
    { name: "When (UTC)", of: (entry) => when(entry.at) },
    { name: "What", of: (entry) => plain(entry.line) },
  ], items);
}

// A table that is wider than the screen is moved in its own frame: amounts are never broken.
function wide(...told) {
  return make("div", { class: "wide" }, table(...told));
}

function named(id, titles) {
  const title = titles.get(id);
  return title ? `${plain(title)} (${id})` : id;
}

function when(micros) {
  return moment(micros / 1e6);
}

// "-1234.5" as "-1,234.50": by its digits, since a number would round them.
function money(units) {
  const [whole, part = ""] = units.split(".");
  return `${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${part.padEnd(2, "0")}`;
}

// Characters that cannot be seen, or that turn others around, by their numbers: what is read is what is paid.
function plain(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

// A question in front of the page, with a reason where one is wanted: Tab stays within it, Escape is no.
function question(name, text, { why = false, then }) {
  const reason = make("input", { name: "why", required: true, maxlength: 500, autocomplete: "off" });
  const form = make("form", { method: "dialog" }, make("p", {}, text), why ? field("Why", reason) : "",
    make("p", {},
      make("button", { type: "button", class: "plain", onclick: () => dialog.close() }, "Cancel"), " ",
      make("button", { type: "submit" }, `${name}${name.includes(" ") ? "" : " it"}`)));
  const dialog = make("dialog", { "aria-label": name, onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", (event) => { event.preventDefault(); dialog.close(); then(reason.value); });
  document.body.append(dialog);
  dialog.showModal();
}
