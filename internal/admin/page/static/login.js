// The form for the token.

import { el, show, text } from "./dom.js";

export class Login {
  #input = el("input", { type: "password", id: "token", name: "token", autocomplete: "current-password", required: true });
  // For those who keep passwords: what this one belongs to.
  #user = el("input", { type: "text", name: "username", autocomplete: "username", value: "bridged", hidden: true });
  #error = el("p", { class: "error", id: "login-error", role: "alert", hidden: true });
  #button = el("button", { type: "submit" }, "Open");

  constructor(live) {
    const submit = async (event) => {
      event.preventDefault();
      this.#button.disabled = true;
      let fault = "";
      try {
        if (!(await live.login(this.#input.value))) fault = "That is not the token.";
      } catch {
        fault = "bridged does not answer.";
      }
      this.#button.disabled = false;
      text(this.#error, fault);
      show(this.#error, fault !== "");
      this.#input.setAttribute("aria-invalid", String(fault !== ""));
      if (fault) this.#input.focus();
      else this.#input.value = "";
    };
    this.node = el("div", { class: "view login" }, el("h1", { tabindex: "-1" }, "Token needed"),
      el("p", {}, "This gateway shows its status to whoever knows the token that its configuration has as ",
        el("code", {}, "admin.token"), "."),
      el("form", { onsubmit: submit }, el("label", { for: "token" }, "Token"), this.#user, this.#input, this.#button, this.#error));
    this.#input.setAttribute("aria-describedby", "login-error");
  }

  focus() {
    this.#input.focus();
  }

  update() {}
}
