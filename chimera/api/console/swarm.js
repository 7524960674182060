import * as api from "./api.js";
import { empty, make, number, table } from "./dom.js";

const EVERY_MS = 2000;

export function swarm(root, { complain }) {
  const place = make("div");
  root.append(make("h1", {}, "Swarm"), place);
  const look = async () => {
    try {
      place.replaceChildren(...told(await api.get("/api/swarm")));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  look();
  const timer = setInterval(look, EVERY_MS);
  return () => clearInterval(timer);
}

function tile(name, value, detail = "") {
  return make("div", { class: "tile" }, make("b", {}, value), make("span", {}, name), detail ? make("div", { class: "faint" }, detail) : null);
}

function told(status) {
  const agents = Object.values(status.agents_by_role).reduce((sum, role) => sum + role.agents, 0);
  const busy = Object.values(status.agents_by_role).reduce((sum, role) => sum + role.busy, 0);
  const { missions, rates, latencies, calls, journal } = status;
  const roles = Object.entries(status.agents_by_role);
  return [
    make("div", { class: "tiles" },
      tile("agents", number(agents), `${number(busy)} at work`),
      tile("missions running", number(missions.running), `${number(missions.admitted)} admitted, ${number(missions.refused)} refused`),
      tile("tasks a second", number(rates.tasks_per_s, 1), `${number(rates.failures_per_s, 1)} failures a second`),
      tile("decision, P95", `${number(latencies.decision_ms.p95)} ms`, `${number(latencies.decision_ms.count)} in the last minute`),
      tile("calls", number(calls.made), `${number(calls.saved)} saved by early decisions`),
      tile("journal", number(journal.events), `events, ${journal.scheme}`)),
    make("h2", {}, "Agents by role"),
    roles.length
      ? table("Agents by role", [
          { name: "Role", of: ([name]) => name },
          { name: "Agents", number: true, of: ([, role]) => number(role.agents) },
          { name: "At work", number: true, of: ([, role]) => number(role.busy) },
          { name: "Attempts that wait", number: true, of: ([, role]) => number(role.waiting) },
        ], roles)
      : empty("There are no agents yet."),
    make("h2", {}, "Managers"),
    table("Managers", [
      { name: "Manager", of: (manager) => manager.name },
      { name: "State", of: (manager) => make("span", { class: `state ${manager.state === "up" ? "good" : "warn"}` }, manager.state) },
      { name: "Agents", number: true, of: (manager) => number(manager.agents) },
      { name: "At work", number: true, of: (manager) => number(manager.busy) },
      { name: "Cells", of: (manager) => Object.entries(manager.cells).map(([name, pid]) => `${name}${pid ? "" : " (down)"}`).join(", ") },
    ], status.managers),
    make("h2", {}, "Nodes"),
    table("Nodes", [
      { name: "Node", of: (node) => node.node },
      { name: "State", of: (node) => make("span", { class: `state ${node.alive ? "good" : "bad"}` }, node.alive ? "alive" : "dead") },
      { name: "Cells", number: true, of: (node) => number(node.cells) },
      { name: "CPUs", number: true, of: (node) => number(node.cpus) },
    ], status.nodes),
  ];
}
