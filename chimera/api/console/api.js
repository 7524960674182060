// The public API, and nothing else. Tokens live in this tab: closing it logs out.

const KEPT = "chimera.tokens";

let tokens = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
let renewing = null;

export class Problem extends Error {
  constructor(status, told) {
    super(told.detail ?? `the server answered ${status}`);
    this.status = status;
    this.kind = (told.type ?? "").split(":").pop();
  }
}

export function loggedIn() {
  return tokens !== null;
}

// Here at once, whatever the server says; there it ends the session, unless that has ended already.
export function logOut() {
  const held = tokens;
  tokens = null;
  sessionStorage.removeItem(KEPT);
  if (held) call("POST", "/api/auth/logout", { token: held.refresh }, { asks: false }).catch(() => {});
}

function keep(told) {
  tokens = { access: told.access_token, refresh: told.refresh_token };
  sessionStorage.setItem(KEPT, JSON.stringify(tokens));
}

export async function logIn(user, password, newPassword) {
  const body = { user, password, ...(newPassword ? { new_password: newPassword } : {}) };
  keep(await call("POST", "/api/auth/login", body, { asks: false }));
}

export async function whoAmI() {
  const asked = () => call("POST", "/api/auth/token/verify", { token: tokens.access }, { asks: false });
  return asked().catch((error) => {
    if (!hasEnded(error)) throw error;
    return renew().then(asked);
  });
}

function hasEnded(error) {
  return error instanceof Problem && error.status === 401;
}

// New tokens; without a session there is nothing to renew, and it is logged out.
async function renew() {
  renewing ??= call("POST", "/api/auth/refresh", { refresh_token: tokens.refresh }, { asks: false })
    .then(keep)
    .catch((error) => { if (hasEnded(error)) logOut(); throw error; })
    .finally(() => { renewing = null; });
  return renewing;
}

export async function get(path) {
  return call("GET", path);
}

export async function post(path, body) {
  return call("POST", path, body, { once: crypto.randomUUID() });
}

export async function remove(path) {
  return call("DELETE", path);
}

async function call(method, path, body, { asks = true, once = null, again = true } = {}) {
  const headers = {};
  if (asks && tokens) headers.Authorization = `Bearer ${tokens.access}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (once) headers["Idempotency-Key"] = once;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 401 && asks && again && tokens) {
    await renew();
    return call(method, path, body, { asks, once, again: false });
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, told);
  return told;
}

// Events of a mission, as they happen; gives a function that ends it.
export function follow(missionId, heard, ended) {
  let seq = 0;
  let over = false;
  let socket = null;
  const open = () => {
    if (over || !tokens) return;
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    socket.onopen = () => socket.send(JSON.stringify({ type: "authenticate", token: tokens.access }));
    socket.onmessage = (message) => {
      const told = JSON.parse(message.data);
      if (told.type === "authenticated") socket.send(JSON.stringify({ type: "subscribe", mission_id: missionId, after: seq }));
      if (told.type === "event") { seq = told.event.seq; heard(told.event); }
      if (told.type === "ended") { over = true; socket.close(); ended(); }
      if (told.type === "error") { over = true; socket.close(); ended(new Problem(told.status, told)); }
    };
    socket.onclose = async ({ code }) => {
      if (over) return;
      try {
        if (code === 4401 || code === 4403) await renew();
      } catch (error) {
        if (hasEnded(error)) { over = true; ended(error); return; }
      }
      setTimeout(open, 1000);
    };
  };
  open();
  return () => { over = true; socket?.close(); };
}
