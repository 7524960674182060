import * as api from "./api.js";
import { empty, field, make, moment, table } from "./dom.js";

export function audit(root, { complain }) {
  const actor = make("input", { name: "actor" });
  const list = make("div");
  let after = 0;
  const look = async () => {
    try {
      const query = new URLSearchParams({ limit: 100, after, ...(actor.value ? { actor: actor.value } : {}) });
      const page = await api.get(`/api/audit?${query}`);
      list.replaceChildren(
        page.items.length ? entries(page.items) : empty("Nothing was written down."),
        make("p", {},
          make("button", { class: "plain", type: "button", disabled: after === 0, onclick: () => { after = 0; look(); } }, "First"),
          make("button", { class: "plain", type: "button", disabled: page.next === null, onclick: () => { after = Number(page.next); look(); } }, "Further")));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  const form = make("form", { "aria-label": "Filter" }, field("Only of", actor), make("button", { type: "submit" }, "Show"));
  form.addEventListener("submit", (event) => { event.preventDefault(); after = 0; look(); });
  root.append(make("h1", {}, "Audit"), form, make("h2", {}, "Entries"), list);
  look();
}

function entries(items) {
  return table("Audit", [
    { name: "No.", number: true, of: (item) => item.seq },
    { name: "When (UTC)", of: (item) => moment(item.at_s ?? item.at) },
    { name: "Who", of: (item) => item.actor },
    { name: "What", of: (item) => item.action },
    { name: "On", of: (item) => item.resource },
    { name: "Outcome", of: (item) => make("span", { class: `state ${["done", "ok"].includes(item.outcome) ? "good" : "bad"}` }, item.outcome) },
  ], items);
}

export function keys(root, { complain, caller }) {
  const made = make("div", { role: "status" });
  const list = make("div");
  const look = async () => {
    try {
      const page = await api.get("/api/keys");
      list.replaceChildren(page.items.length ? rows(page.items, complain, look, caller) : empty("There are no API keys."));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  root.append(make("h1", {}, "API keys"));
  if (caller.permissions.includes("keys:create")) root.append(creation(made, complain, look), made);
  root.append(make("h2", {}, "Keys"), list);
  look();
}

function creation(made, complain, look) {
  const label = make("input", { name: "label", required: true, maxlength: 100 });
  const role = make("select", { name: "role" }, ["api_client", "observer", "operator", "admin"].map((each) => make("option", {}, each)));
  const days = make("input", { name: "days", type: "number", min: 1, max: 1830, value: 90, required: true });
  const form = make("form", { "aria-label": "New key" }, field("For what", label),
    make("div", { class: "row" }, field("Role", role), field("Days", days)), make("button", { type: "submit" }, "Create"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { secret } = await api.post("/api/keys/create", { role: role.value, label: label.value, expires_in_s: 86400 * Number(days.value) });
      made.replaceChildren(make("p", {}, "The key, which is shown this once:"), make("pre", {}, secret));
      look();
    } catch (error) {
      complain(error);
    }
  });
  return form;
}

function rows(items, complain, look, caller) {
  const end = (key) => make("button", { class: "plain", type: "button", onclick: async () => {
    if (!confirm(`End the key ${key.label || key.id}? Whoever uses it is refused at once.`)) return;
    try { await api.remove(`/api/keys/${encodeURIComponent(key.id)}`); look(); } catch (error) { complain(error); }
  } }, "Revoke");
  return table("API keys", [
    { name: "Key", of: (key) => `${key.id} ${key.label}` },
    { name: "User", of: (key) => key.user },
    { name: "Role", of: (key) => key.role },
    { name: "Ends (UTC)", of: (key) => (key.expires_at ? moment(key.expires_at) : "never") },
    { name: "", of: (key) => (key.revoked_at ? "revoked" : caller.permissions.includes("keys:revoke") ? end(key) : "") },
  ], items);
}
