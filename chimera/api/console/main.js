// Which page is shown, and who looks at it. A page is `(root, argument) => end()`, where `end` stops what it began.
// One that is `of` something is there for whom the node has it.

import * as api from "./api.js";
import { make } from "./dom.js";
import { anomalies } from "./anomalies.js";
import { audit, keys } from "./records.js";
import { content } from "./content.js";
import { duel, duels } from "./duels.js";
import { logIn } from "./login.js";
import { mission, missions } from "./missions.js";
import { queue, queued } from "./queue.js";
import { review, reviews } from "./reviews.js";
import { swarm } from "./swarm.js";
import { treasury } from "./treasury.js";

const PAGES = [
  { path: "swarm", name: "Swarm", needs: "swarm:any", show: swarm },
  { path: "missions", name: "Missions", needs: "swarm:read", show: missions, one: mission },
  { path: "reviews", name: "Reviews", needs: "review:read", show: reviews, one: review },
  { path: "queue", name: "Review queue", needs: "review:read", show: queue, one: queued, of: "/api/queue/stats" },
  { path: "content", name: "Content", needs: "content:read", show: content, of: "/api/content/items?limit=1" },
  { path: "treasury", name: "Treasury", needs: "treasury:read", show: treasury, of: "/api/treasury/entries?limit=1" },
  { path: "anomalies", name: "Anomalies", needs: "anomaly:detect", show: anomalies, one: anomalies },
  { path: "duels", name: "Duels", needs: "arena:read", show: duels, one: duel },
  { path: "keys", name: "API keys", needs: "keys:read", show: keys },
  { path: "audit", name: "Audit", needs: "audit:read", show: audit },
];

let caller = null;
let missing = null;
let end = null;

function menu(current) {
  const mine = PAGES.filter((page) => caller?.permissions.includes(page.needs) && !missing?.includes(page));
  document.getElementById("menu").replaceChildren(
    ...mine.map((page) => make("a", { href: `#/${page.path}`, "aria-current": page.path === current ? "page" : null }, page.name))
  );
  document.getElementById("who").replaceChildren(
    ...(caller ? [`${caller.subject} (${caller.role}) `, make("button", { class: "plain", type: "button", onclick: leave }, "Log out")] : [])
  );
  return mine;
}

function leave() {
  api.logOut();
  caller = null;
  missing = null;
  location.hash = "#/";
  show();
}

// Pages of what this node has not, or not for this caller.
async function without() {
  const asked = PAGES.filter((page) => page.of && caller.permissions.includes(page.needs)).map(async (page) => {
    try { await api.get(page.of); } catch (error) { if ([404, 501].includes(error.status)) return page; }
    return null;
  });
  return (await Promise.all(asked)).filter(Boolean);
}

export function complain(error) {
  const notice = document.getElementById("notice");
  notice.textContent = error ? error.message : "";
  notice.hidden = !error;
  if (error?.status === 401) leave();
}

async function show() {
  end?.();
  end = null;
  complain(null);
  const root = document.getElementById("page");
  root.replaceChildren();
  if (!api.loggedIn()) {
    menu(null);
    logIn(root, show);
    return;
  }
  try {
    caller ??= await api.whoAmI();
    missing ??= await without();
  } catch (error) {
    complain(error);
    return;
  }
  const [path, argument] = location.hash.replace(/^#\//, "").split("/");
  const mine = menu(path || null);
  const page = mine.find((each) => each.path === path) ?? mine[0];
  if (!page) {
    root.append(make("p", {}, "You may use the API, and none of the console's pages."));
    return;
  }
  menu(page.path);
  document.title = `${page.name} · Chimera`;
  const shown = argument && page.one ? page.one : page.show;
  end = shown(root, { complain, caller, argument: argument && decodeURIComponent(argument) });
  root.focus();
}

window.addEventListener("hashchange", show);
show();
