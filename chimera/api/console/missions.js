import * as api from "./api.js";
import { draw, empty, field, make, moment, number, shown, table } from "./dom.js";

const EVERY_MS = 3000;

export function missions(root, { complain, caller }) {
  const list = make("div");
  let after = 0;
  const look = async () => {
    try {
      const page = await api.get(`/api/swarm/missions?limit=25&after=${after}`);
      list.replaceChildren(
        page.items.length ? rows(page.items) : empty("No missions yet."),
        make("p", {},
          make("button", { class: "plain", type: "button", disabled: after === 0, onclick: () => { after = Math.max(0, after - 25); look(); } }, "Newer"),
          make("button", { class: "plain", type: "button", disabled: page.next === null, onclick: () => { after = Number(page.next); look(); } }, "Older")));
      complain(null);
    } catch (error) {
      complain(error);
    }
  };
  root.append(make("h1", {}, "Missions"));
  if (caller.permissions.includes("swarm:task")) root.append(submission(complain));
  root.append(make("h2", {}, "All missions"), list);
  look();
  const timer = setInterval(look, EVERY_MS);
  return () => clearInterval(timer);
}

function rows(items) {
  return table("Missions", [
    { name: "Mission", of: (item) => make("a", { href: `#/missions/${encodeURIComponent(item.mission_id)}` }, item.mission_id) },
    { name: "Last event", of: (item) => item.last_kind.replaceAll("_", " ") },
    { name: "Events", number: true, of: (item) => number(item.events) },
    { name: "Began (UTC)", of: (item) => moment(item.first_at_s) },
  ], items);
}

function submission(complain) {
  const goal = make("textarea", { name: "goal", rows: 2, required: true, maxlength: 20000 });
  const text = make("textarea", { name: "text", rows: 3, placeholder: "What the agents may read, if anything" });
  const role = make("input", { name: "role", value: "worker", required: true });
  const replicas = make("input", { name: "replicas", type: "number", min: 1, max: 64, value: 3, required: true });
  const method = make("select", { name: "consensus" }, ["majority", "weighted", "unanimous", "quorum"].map((each) => make("option", {}, each)));
  const button = make("button", { type: "submit" }, "Submit");
  const form = make("form", { "aria-label": "New task" }, field("Goal", goal), field("Inputs", text),
    make("div", { class: "row" }, field("Role", role), field("Agents to ask", replicas), field("Consensus", method)), button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const inputs = text.value.trim() ? { text: text.value } : {};
      const body = { goal: goal.value, inputs, role: role.value, replicas: Number(replicas.value), consensus: method.value };
      if (method.value === "quorum") body.threshold = 0.51;
      const { mission_id } = await api.post("/api/swarm/task", body);
      location.hash = `#/missions/${encodeURIComponent(mission_id)}`;
    } catch (error) {
      complain(error);
    } finally {
      button.disabled = false;
    }
  });
  return form;
}

export function mission(root, { complain, caller, argument }) {
  const state = make("span", { class: "state", "data-testid": "state" }, "running");
  const why = make("p");
  const answer = make("div");
  const drawing = make("div");
  const tasks = make("div");
  const cancel = make("button", { type: "button", class: "plain" }, "Cancel");
  cancel.hidden = !caller.permissions.includes("swarm:cancel");
  cancel.addEventListener("click", async () => {
    try { await api.post(`/api/swarm/missions/${encodeURIComponent(argument)}/cancel`, {}); } catch (error) { complain(error); }
  });
  root.append(make("p", {}, make("a", { href: "#/missions" }, "All missions")), make("h1", {}, argument),
    make("p", { role: "status" }, "State: ", state, " ", cancel), why, answer, make("h2", {}, "Tasks"), drawing, tasks);
  const seen = new Seen();
  let due = false;
  const show = () => {
    due = false;
    drawing.replaceChildren(seen.drawing());
    tasks.replaceChildren(...seen.tables());
  };
  const heard = (event) => {
    seen.take(event);
    if (!due) { due = true; requestAnimationFrame(show); }
    if (event.kind === "mission_ended") {
      state.textContent = event.data.state;
      state.className = `state ${event.data.state === "answered" ? "good" : "warn"}`;
      why.textContent = event.data.explanation ?? "";
      cancel.hidden = true;
    }
  };
  const ended = async (error) => {
    if (error) { complain(error); return; }
    try {
      const result = await api.get(`/api/swarm/missions/${encodeURIComponent(argument)}`);
      if (result.value !== null && result.value !== undefined) {
        answer.replaceChildren(make("h2", {}, "Answer"), make("pre", { "data-testid": "answer" }, shown(result.value)));
      }
    } catch (failure) {
      complain(failure);
    }
  };
  return api.follow(argument, heard, ended);
}

// What the events so far say of each task.
class Seen {
  constructor() {
    this.tasks = new Map();
  }

  take(event) {
    const { kind, task_id: id, data } = event;
    if (kind === "mission_admitted" || kind === "graph_expanded") {
      for (const node of data.graph?.nodes ?? data.nodes ?? []) this.task(node.id).after = node.after ?? [];
      return;
    }
    if (!id) return;
    const task = this.task(id);
    if (kind === "task_started") { task.state = "started"; task.role = data.role; }
    if (kind === "reply_accepted") task.votes.push({ agent: data.agent, policy: data.policy, value: data.reply.value, s: data.elapsed_s });
    if (kind === "attempt_failed") task.votes.push({ agent: data.agent ?? "", policy: data.policy ?? "", failure: `${data.failure}: ${data.detail ?? ""}`, s: data.elapsed_s });
    if (kind === "task_decided") { task.state = data.outcome === "agreed" ? "decided" : "failed"; task.decision = data; }
    if (kind === "task_quarantined") task.state = "failed";
  }

  task(id) {
    if (!this.tasks.has(id)) this.tasks.set(id, { id, after: [], votes: [], state: "waiting", role: "", decision: null });
    return this.tasks.get(id);
  }

  depths() {
    const depth = new Map();
    const of = (id, above) => {
      if (depth.has(id)) return depth.get(id);
      if (above.has(id)) return 0;
      const after = this.tasks.get(id)?.after ?? [];
      const found = after.length ? 1 + Math.max(...after.map((other) => of(other, new Set([...above, id])))) : 0;
      depth.set(id, found);
      return found;
    };
    for (const id of this.tasks.keys()) of(id, new Set());
    return depth;
  }

  drawing() {
    const most = 60;
    const depth = this.depths();
    const columns = [];
    const all = [...this.tasks.values()];
    for (const task of all.slice(0, most)) (columns[depth.get(task.id)] ??= []).push(task);
    const [wide, high, gap] = [170, 46, 40];
    const tallest = Math.max(1, ...columns.map((column) => column?.length ?? 0));
    const at = new Map();
    columns.forEach((column, x) => column?.forEach((task, y) => at.set(task.id, [10 + x * (wide + gap), 10 + y * (high + 14)])));
    const [width, height] = [columns.length * (wide + gap), tallest * (high + 14) + 10];
    const svg = draw("svg", { class: "drawing graph", role: "img", "aria-label": `${all.length} tasks`, width, height, viewBox: `0 0 ${width} ${height}` });
    for (const [id, [x, y]] of at) {
      for (const other of this.tasks.get(id).after) {
        const from = at.get(other);
        if (from) svg.append(draw("path", { class: "edge", d: `M${from[0] + wide} ${from[1] + high / 2} L${x} ${y + high / 2}` }));
      }
    }
    for (const [id, [x, y]] of at) {
      const task = this.tasks.get(id);
      const support = task.decision ? `${task.decision.outcome}, ${number(100 * task.decision.support)} %` : `${task.state}, ${task.votes.length} heard`;
      svg.append(draw("rect", { class: `node ${task.state}`, x, y, width: wide, height: high, rx: 6 }),
        draw("text", { x: x + 8, y: y + 19 }, cut(id, 22)), draw("text", { x: x + 8, y: y + 37 }, cut(support, 24)));
    }
    return svg;
  }

  tables() {
    return [...this.tasks.values()].slice(0, 60).flatMap((task) => [
      make("h2", {}, task.id, task.role ? ` (${task.role})` : ""),
      task.decision ? make("p", {}, task.decision.explanation) : null,
      task.votes.length
        ? table(`Replies to ${task.id}`, [
            { name: "Agent", of: (vote) => vote.agent },
            { name: "Policy", of: (vote) => vote.policy },
            { name: "Reply", of: (vote) => (vote.failure ? make("span", { class: "bad" }, vote.failure) : cut(shown(vote.value), 400)) },
            { name: "Seconds", number: true, of: (vote) => number(vote.s, 3) },
          ], task.votes.slice(0, 100))
        : null,
    ]).filter(Boolean);
  }
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
