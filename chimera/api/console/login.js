import * as api from "./api.js";
import { field, make } from "./dom.js";

export function logIn(root, done) {
  const user = make("input", { name: "user", autocomplete: "username", required: true, autofocus: true });
  const password = make("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const next = make("input", { name: "new", type: "password", autocomplete: "new-password", minlength: 12, maxlength: 256 });
  const nextField = field("New password: this one can be used once only", next);
  nextField.hidden = true;
  const why = make("p", { class: "bad", role: "alert" });
  const button = make("button", { type: "submit" }, "Log in");
  const form = make("form", { "aria-label": "Log in" }, field("User", user), field("Password", password), nextField, why, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    why.textContent = "";
    try {
      await api.logIn(user.value, password.value, next.value);
      done();
    } catch (error) {
      if (error.status === 403) { nextField.hidden = false; next.required = true; next.focus(); }
      why.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
  root.append(make("h1", {}, "Log in"), form);
  user.focus();
}
