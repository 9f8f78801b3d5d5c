// SPDX-License-Identifier: GPL-3.0-or-later
// Sends a question and shows the answer as it comes. What is said when that does not work comes from the server:
// with a refusal, or in the form's data.

const log = document.getElementById("log");
const form = document.getElementById("ask");
const box = document.getElementById("question");
const button = document.getElementById("send");
const state = document.getElementById("status");
const token = form.elements.namedItem("csrfmiddlewaretoken").value;
let asking = false;

/** A failure whose message is for her to read. */
class Plain extends Error {}

/** The events of an answer, as they come. Comments, which fill silences, and the mark of the end are none. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5).trim()).join("\n");
      if (data.startsWith("{")) yield JSON.parse(data);
    }
  }
}

/** The sentence of a refusal; a server that says none cannot be reached, as far as she is concerned. */
async function refusal(response) {
  try {
    return (await response.json()).detail || form.dataset.unreachable;
  } catch {
    return form.dataset.unreachable;
  }
}

function tell(sentence, problem = false) {
  state.textContent = sentence;
  state.classList.toggle("problem", problem);
}

function say(who, name, text) {
  const message = document.createElement("article");
  const author = document.createElement("h2");
  const words = document.createElement("div");
  message.className = who;
  author.textContent = name;
  words.textContent = text;
  message.append(author, words);
  log.append(message);
  log.scrollTop = log.scrollHeight;
  return { message, words };
}

/** Add to an answer, and stay at its end for who was there. */
function add(answer, text) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  answer.words.append(text);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

async function receive(question, answer) {
  const response = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": token },
    body: JSON.stringify({ input: question, session: form.dataset.session, stream: true }),
  });
  if (!response.ok) throw new Plain(await refusal(response));
  let complete = false;
  for await (const event of events(response.body)) {
    if (event.type === "response.output_text.delta") {
      tell("");
      add(answer, event.delta);
    } else if (event.type === "response.failed") {
      throw new Plain(form.dataset.failed);
    } else if (event.type === "response.completed" || event.type === "response.incomplete") {
      complete = true;
    } else if (event.type === "error") {
      throw new Error(event.code);
    }
  }
  if (!complete) throw new Error("the answer has no end");
  if (!answer.words.textContent) throw new Plain(form.dataset.failed);
}

async function ask(question) {
  const mine = say("you", "You", question);
  const answer = say("companion", "Your companion", "");
  // A screen reader reads the answer once it is whole, not word by word.
  answer.message.setAttribute("aria-busy", "true");
  box.value = "";
  tell("Waiting for the answer …");
  try {
    await receive(question, answer);
    tell("");
  } catch (failure) {
    const begun = answer.words.textContent !== "";
    tell(failure instanceof Plain ? failure.message : begun ? form.dataset.brokenOff : form.dataset.unreachable, true);
    if (!begun) {
      mine.message.remove();
      answer.message.remove();
    }
    // Before whatever she has typed in the meantime.
    box.value = box.value ? `${question}\n\n${box.value}` : question;
  } finally {
    answer.message.removeAttribute("aria-busy");
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (asking || !box.value.trim()) return;
  asking = true;
  // Not `disabled`, which would take the focus away.
  button.setAttribute("aria-disabled", "true");
  await ask(box.value);
  asking = false;
  button.removeAttribute("aria-disabled");
});

box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
