import { ask, say } from "/static/lib.js";

document.getElementById("login").addEventListener("submit", async event => {
  event.preventDefault();
  const answer = await ask("/login", document.getElementById("token").value);
  if (answer.error) say(answer.error);
  else location.assign("/");
});
