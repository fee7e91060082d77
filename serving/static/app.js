"use strict";

const AT_ONCE = 3; // requests; the server batches them
const TOP = 3;
const $ = (id) => document.getElementById(id);
const queue = [];
const counts = { running: 0, done: 0, all: 0 };
let model = null;

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (response.status === 401) {
    showAccess(sessionStorage.getItem("token") !== null);
    throw new Error("The server needs a token.");
  }
  const content = await response.json().catch(() => null);
  if (content && content.results) return content;
  if (response.ok && content) return content;
  const detail = content && content.detail;
  throw new Error(typeof detail === "string" ? detail : `Error ${response.status}`);
}

async function start() {
  try {
    model = await ask("/v1/model");
  } catch (error) {
    $("classes").textContent = error.message;
    return;
  }
  $("access").hidden = true;
  $("drop").hidden = false;
  const names = model.class_names;
  const shown = names.slice(0, 8).join(", ");
  $("classes").textContent =
    `${names.length} classes: ${shown}${names.length > 8 ? ", …" : ""}`;
  showFacts();
  work();
}

function showFacts() {
  const [height, width] = model.image_size;
  const facts = {
    Classes: model.class_names.join(", "),
    "Image size": `${height} × ${width} pixels (${model.resize})`,
    Format: `${model.format}, ${model.precision}`,
    "Heat maps": model.heatmaps.replace("_", "-"),
    Unknown: describeUnknown(),
  };
  $("facts").replaceChildren();
  for (const [name, value] of Object.entries(facts)) {
    $("facts").append(element("dt", name), element("dd", value));
  }
  $("about").hidden = false;
}

function describeUnknown() {
  if (!model.finds_unknown) return "the model always names a class";
  if (model.thresholds) return "images without a label";
  if (model.unknown_threshold === null) return "images unlike those of the training";
  return `below a probability of ${percent(model.unknown_threshold)}`;
}

function showAccess(wasWrong) {
  sessionStorage.removeItem("token");
  $("drop").hidden = true;
  $("access").hidden = false;
  $("denied").textContent = wasWrong ? "This token is not accepted." : "";
  $("token").value = "";
  $("token").focus();
}

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function percent(value) {
  const share = 100 * value;
  return `${share >= 99.95 || share < 0.05 ? share.toFixed(0) : share.toFixed(1)} %`;
}

function add(files) {
  for (const file of files) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    card.querySelector("h3").textContent = file.name || "pasted image";
    card.querySelector(".verdict").textContent = "Waiting…";
    $("results").append(card);
    queue.push({ file, card });
    counts.all += 1;
  }
  $("answers").hidden = counts.all === 0;
  work();
}

function work() {
  while (model && counts.running < AT_ONCE && queue.length) {
    counts.running += 1;
    const { file, card } = queue.shift();
    classify(file, card).finally(() => {
      counts.running -= 1;
      counts.done += 1;
      showProgress();
      work();
    });
  }
  showProgress();
}

function showProgress() {
  $("progress").textContent =
    counts.done < counts.all ? `${counts.done} of ${counts.all}` : "";
}

async function send(file, query) {
  if (file.size > model.max_request_bytes - 10000) {
    const limit = Math.floor(model.max_request_bytes / 1e6);
    throw new Error(`The file is larger than ${limit} MB.`);
  }
  const form = new FormData();
  form.append("files", file, file.name || "pasted image");
  const answer = await ask(`/v1/classify?${query}`, { method: "POST", body: form });
  const [result] = answer.results;
  if (result.error) throw new Error(result.error);
  return { ...result, milliseconds: answer.milliseconds };
}

async function classify(file, card) {
  const verdict = card.querySelector(".verdict");
  verdict.textContent = "Classifying…";
  const name = card.querySelector("h3").textContent;
  try {
    const result = await send(file, `top=${TOP}&preview=true`);
    show(file, card, result);
    announce(`${name}: ${describe(result)}`);
  } catch (error) {
    verdict.classList.add("error");
    verdict.textContent = error.message;
    card.querySelector(".picture").classList.add("none");
    announce(`${name}: ${error.message}`);
  } finally {
    card.querySelector(".spinner").hidden = true;
  }
}

function describe(result) {
  if (result.labels && result.labels.length) {
    const texts = result.labels.map((one) => `${one.name}, ${percent(one.probability)}`);
    return texts.join("; ");
  }
  const best = result.unknown ? "unknown" : result.predicted;
  return `${best}, ${percent(result.probability)}`;
}

function announce(text) {
  // New text for each image, so that a screen reader reads every one.
  $("announce").textContent = text;
}

function show(file, card, result) {
  const verdict = card.querySelector(".verdict");
  if (result.unknown) {
    verdict.classList.add("unknown");
    verdict.textContent = "unknown ";
    verdict.append(element("small", `closest: ${result.predicted}`));
  } else if (result.labels) {
    verdict.textContent = result.labels.map((one) => one.name).join(", ");
  } else {
    verdict.textContent = `${result.predicted} `;
    verdict.append(element("small", percent(result.probability)));
  }
  const picture = card.querySelector("img");
  picture.src = result.preview;
  picture.alt = `${result.name}`;
  picture.hidden = false;
  for (const { name, probability } of result.top) {
    const row = element("li");
    const track = element("span", undefined, "track");
    const fill = element("i");
    fill.style.width = `${100 * probability}%`;
    track.append(fill);
    track.ariaHidden = "true";
    row.append(element("span", name), element("span", percent(probability), "share"));
    row.append(track);
    card.querySelector(".bars").append(row);
  }
  card.querySelector(".time").textContent = `${result.milliseconds.toFixed(0)} ms`;
  offerHeat(file, card, result);
}

function offerHeat(file, card, result) {
  const button = card.querySelector(".why");
  const picture = card.querySelector("img");
  const spinner = card.querySelector(".spinner");
  let heat = null;
  button.hidden = false;
  button.ariaLabel = `Show heat map of ${result.name}`;
  button.addEventListener("click", async () => {
    if (button.ariaPressed === "true") {
      button.ariaPressed = "false";
      picture.src = result.preview;
      picture.alt = result.name;
      return;
    }
    if (heat === null) {
      button.disabled = true;
      spinner.hidden = false;
      try {
        heat = (await send(file, "top=1&explain=true")).heatmap.picture;
      } catch (error) {
        announce(error.message);
        button.textContent = error.message;
        return;
      } finally {
        button.disabled = false;
        spinner.hidden = true;
      }
    }
    button.ariaPressed = "true";
    picture.src = heat;
    picture.alt = `Heat map of ${result.name}: bright parts decide for ${result.predicted}`;
    announce(`Heat map of ${result.name} is shown.`);
  });
}

function images(list) {
  return Array.from(list || []).filter((file) => file instanceof File);
}

for (const id of ["choose", "camera"]) {
  $(id).addEventListener("change", (event) => {
    add(images(event.target.files));
    event.target.value = "";
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (model) add(images(event.dataTransfer.files));
});
document.addEventListener("paste", (event) => {
  if (model) add(images(event.clipboardData.files));
});
$("clear").addEventListener("click", () => {
  queue.length = 0;
  counts.done = 0;
  counts.all = counts.running;
  $("results").replaceChildren();
  $("answers").hidden = true;
  $("choose").focus();
});
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  start();
});
start();
