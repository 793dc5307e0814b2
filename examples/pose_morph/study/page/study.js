// The participant's side of the study: instructions, then question after question. The server decides what is asked, and never
// tells what a picture is.
"use strict";

const element = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const RETRY = 1000;

let study; // what the server says about the study
let asked; // the question that waits for its answer
let phase = "starting"; // starting, instructions, ready, warning, visible, hidden, saving, over
let shownAt = null; // on this page's clock; null after a reload

// ---------------------------------------------------------------- who takes part

const KEY = "perceptual-study-participant";
let participant = null;

function remember(name) {
  participant = name;
  try {
    if (name === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, name);
  } catch {
    // Without storage the page works until it is loaded again.
  }
}

function recall() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function newName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---------------------------------------------------------------- talking to the server

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Every request may be repeated without harm, so a lost one is sent again until it arrives.
async function request(address, values, read) {
  const options = values && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(values),
  };
  for (;;) {
    try {
      const reply = await fetch(address, options);
      if (reply.ok) {
        const result = await read(reply);
        trouble(null);
        return result;
      }
      const { error } = await reply.json();
      if (reply.status < 500) throw new Refusal(reply.status, error);
    } catch (error) {
      if (error instanceof Refusal) throw error;
    }
    trouble("The study's server does not answer. Trying again …");
    await pause(RETRY);
  }
}

const ask = (address, values) => request(address, values, (reply) => reply.json());

function trouble(text) {
  element("trouble").hidden = text === null;
  if (element("trouble").textContent !== (text ?? "")) element("trouble").textContent = text ?? "";
}

// ---------------------------------------------------------------- the pages

function say(text) {
  element("live").textContent = text;
}

function open(page) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== page;
  window.scrollTo(0, 0);
}

function fill(name, text) {
  for (const place of document.querySelectorAll(`[data-fill=${name}]`)) place.textContent = text;
}

const inSeconds = (value) => (value === 1 ? "1 second" : `${value} seconds`);

function showInstructions() {
  phase = "instructions";
  const questions = study.pictures + study.golden;
  fill("warning", inSeconds(study.warning));
  fill("visible", inSeconds(study.visible));
  fill("questions", questions);
  const minutes = Math.max(1, Math.round((questions * (study.warning + study.visible)) / 60));
  fill("minutes", minutes === 1 ? "1 minute" : `${minutes} minutes`);
  element("examples").hidden = study.examples.length === 0;
  element("example-list").replaceChildren(
    ...study.examples.map((truth, number) => {
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      image.src = `/example/${number}`;
      image.alt = `An example of a ${truth} picture`;
      const caption = document.createElement("figcaption");
      caption.textContent = truth === "real" ? "Real" : "Generated";
      figure.append(image, caption);
      return figure;
    }),
  );
  open("instructions");
}

function follow(state) {
  asked = state;
  if (state.state === "question") showQuestion();
  else if (state.state === "full") {
    phase = "over";
    open("full");
  } else {
    phase = "over";
    fill("answered", state.answered);
    open("thanks");
    say("Thank you! That was all.");
    element("other").focus();
  }
}

function setAnswerable(answerable) {
  element("real").disabled = element("generated").disabled = !answerable;
}

function note(text, counting = false) {
  element("note").textContent = text;
  element("note").classList.toggle("count", counting);
}

function showQuestion() {
  open("judging");
  shownAt = null;
  element("progress").textContent = `Picture ${asked.number} of ${asked.of}`;
  element("bar").max = asked.of;
  element("bar").value = asked.number - 1;
  element("picture").hidden = true;
  if (asked.shown) {
    // Loaded again after the picture was seen: it is not shown twice.
    phase = "hidden";
    element("reveal").hidden = true;
    note("You have seen this picture. What was it?");
    say("You have seen this picture. Is it real or generated?");
    setAnswerable(true);
    element("choice").focus();
    return;
  }
  phase = "ready";
  note("");
  setAnswerable(false);
  element("reveal").hidden = false;
  element("reveal").focus();
  say(`Picture ${asked.number} of ${asked.of}.`);
}

// ---------------------------------------------------------------- one question

async function countDown() {
  const end = performance.now() + 1000 * study.warning;
  for (;;) {
    const left = end - performance.now();
    if (left <= 0) return;
    note(String(Math.ceil(left / 1000)), true);
    await pause(Math.min(left, (left % 1000) + 1));
  }
}

async function reveal() {
  if (phase !== "ready") return;
  phase = "warning";
  const question = asked.question;
  element("reveal").hidden = true;
  element("choice").focus({ preventScroll: true });
  say(`The picture comes in ${inSeconds(study.warning)}.`);
  const image = element("picture");
  const loading = request(`/picture/${question}`, undefined, (reply) => reply.blob());
  const [picture] = await Promise.all([loading, countDown()]);
  const address = URL.createObjectURL(picture);
  image.src = address;
  await image.decode();
  // The server knows before the picture is there, so that loading the page again does not show it twice.
  await ask("/api/shown", { participant, question });
  note("");
  image.hidden = false;
  await new Promise(requestAnimationFrame);
  shownAt = performance.now();
  phase = "visible";
  setAnswerable(true);
  say("Here it is. Real or generated?");
  await pause(1000 * study.visible);
  URL.revokeObjectURL(address);
  if (phase === "visible" && asked.question === question) {
    image.hidden = true;
    image.removeAttribute("src");
    phase = "hidden";
    note("What was it?");
    say("The picture is gone. Real or generated?");
  }
}

async function answer(choice) {
  if (phase !== "visible" && phase !== "hidden") return;
  phase = "saving";
  setAnswerable(false);
  const seconds = shownAt === null ? null : (performance.now() - shownAt) / 1000;
  element("picture").hidden = true;
  element("picture").removeAttribute("src");
  note("");
  follow(await ask("/api/answer", { participant, question: asked.question, answer: choice, seconds }));
}

async function start() {
  if (phase !== "instructions" && phase !== "over") return;
  phase = "starting";
  remember(participant ?? newName());
  follow(await ask("/api/join", { participant }));
}

async function begin() {
  study = await ask("/api/study");
  const name = recall();
  if (name !== null) {
    try {
      const state = await ask("/api/current", { participant: name });
      participant = name;
      follow(state);
      return;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      remember(null); // a participant of another study
    }
  }
  showInstructions();
}

// What the server refuses here is a page out of step, such as a second window: it finds out where things stand.
const guarded = (action) => async (...values) => {
  try {
    await action(...values);
  } catch (error) {
    console.warn(error);
    trouble(`${error.message}. The page is loaded again …`);
    await pause(2 * RETRY);
    location.reload();
  }
};

const guardedAnswer = guarded(answer);
const guardedReveal = guarded(reveal);
const guardedStart = guarded(start);

const KEYS = { r: "real", ArrowLeft: "real", g: "generated", ArrowRight: "generated" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const plain = event.key === " " || event.key === "Enter";
  if (event.repeat) {
    if (plain) event.preventDefault(); // a key that is held down presses no button
    return;
  }
  const choice = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (choice !== undefined && !element("judging").hidden) {
    event.preventDefault();
    guardedAnswer(choice);
  } else if (plain && phase === "ready" && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    guardedReveal();
  }
});

element("start").addEventListener("click", guardedStart);
element("again").addEventListener("click", guardedStart);
element("reveal").addEventListener("click", guardedReveal);
element("real").addEventListener("click", () => guardedAnswer("real"));
element("generated").addEventListener("click", () => guardedAnswer("generated"));
element("other").addEventListener("click", () => {
  remember(null);
  showInstructions();
});
guarded(begin)();
