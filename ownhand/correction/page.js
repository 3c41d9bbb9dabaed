// The page of `ownhand correct`: one line at a time, from the keyboard. The server keeps everything; see server.py.
"use strict";
const $ = (id) => document.getElementById(id);
const [work, text, marks, picture, figure] = ["work", "text", "marks", "picture", "figure"].map($);
const review = document.body.dataset.review === "yes";
const tab = sessionStorage.getItem("tab") ?? crypto.randomUUID();  // the same after a reload
sessionStorage.setItem("tab", tab);
const mac = /^(Mac|iP)/.test(navigator.platform);  // there Alt types characters, so Ctrl is taken
let line = null;       // as the server describes it
let seen = "";         // its transcription when it was shown: the server compares
let touched = false;   // whether the person has typed
let visited = [], at = -1;
let zoom = 1, turns = 0;
let shownAt = 0, hiddenSince = 0, hiddenFor = 0;

async function call(path, body) {
  let answer;
  try {
    answer = await fetch(path, body && {
      method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({tab, ...body}),
    });
  } catch (error) {
    $("offline").hidden = false;
    throw error;
  }
  $("offline").hidden = true;
  const content = await answer.json();
  if (answer.status === 409) return conflict(content.elsewhere);
  if (!answer.ok) { warn(content.problem); return null; }
  count(content.counts);
  return content;
}

function count({left, skipped, gains, reader, bare_pages, unusable}) {
  const parts = [`${left} ${review ? "to check" : "left"}`];
  const done = gains.transcribed + gains.corrected + gains.confirmed;
  if (skipped) parts.push(`${skipped} skipped`);
  if (done) parts.push(`${done} done`);
  if (gains.seconds !== null) parts.push(`${gains.seconds.toFixed(1)} s a line`);
  if (reader.state === "opening") parts.push("the model is being opened");
  if (reader.state === "reading") parts.push(`${reader.name} has read ${reader.read}`);
  $("counts").textContent = parts.join(" · ");
  $("problem").textContent = reader.problem && `No proposals: ${reader.problem}`;
  $("end-title").textContent = left > skipped ? "Enough for now" : skipped ? "Only skipped lines are left" : "All lines are done";
  $("end-words").textContent = gains.words[0].toUpperCase() + gains.words.slice(1) + ".";
  $("end-next").hidden = !(done + gains.set_aside);
  const pages = bare_pages ? `${bare_pages} pages have no lines yet: ownhand lines data/raw finds them. ` : "";
  const rows = unusable ? `${unusable} records cannot be used; dvc repro prepare lists them with the reason.` : "";
  $("end-more").textContent = pages + rows;
  $("again").hidden = !left;
  $("again").textContent = left > skipped ? "Go on" : "Take up the skipped lines";
}

function show(next, draft) {
  warn("");
  line = next;
  work.hidden = !line;
  $("end").hidden = !!line;
  $("finish").hidden = !line;
  if (!line) { $("end-title").focus(); return; }  // no button: one Enter too many would stop the program
  if (visited[at] !== line.number) { visited = [...visited.slice(0, at + 1), line.number]; at = visited.length - 1; }
  seen = line.text;
  touched = draft !== undefined;
  turns = 0;
  [shownAt, hiddenFor] = [performance.now(), 0];
  const kept = recall();
  text.value = draft ?? kept ?? (line.text || line.overwritten || line.proposal?.text || "");
  if (kept !== undefined) say("This is what you had begun to write.");
  else if (line.overwritten && text.value === line.overwritten) say("You had accepted this, and another program saved an older copy over it.");
  else if (line.why) say(`This was set aside as ${line.why}.`);
  $("label").textContent = line.label;
  picture.alt = `Handwriting: ${line.label}`;
  $("hint").hidden = true;
  picture.src = `picture/${line.number}/0`;
  for (const [id, number] of [["before", line.before], ["after", line.after]]) {
    $(id).hidden = number === null;
    if (number !== null) $(id).src = `picture/${number}/0?small`;
  }
  if (line.upcoming !== null) new Image().src = `picture/${line.upcoming}/0`;
  edited();
  text.focus();
  placeCaret();
}

function placeCaret() {  // before the first uncertain spot, which Tab then reaches, or where one goes on writing
  const place = spots().length ? 0 : text.value.length;
  text.setSelectionRange(place, place);
}

// What the model says of the line: words that are marked in the field, and its reading beneath.
function basis() {
  const marked = line?.proposal?.marked ?? [];
  return {marked, whole: marked.map(([part]) => part).join("")};
}

function spots() {
  const {marked, whole} = basis();
  const value = text.value, shift = value.length - whole.length;
  let before = 0, behind = 0, start = 0;
  while (before < Math.min(whole.length, value.length) && whole[before] === value[before]) before++;
  while (behind < Math.min(whole.length, value.length) - before && whole.at(-1 - behind) === value.at(-1 - behind)) behind++;
  const found = [];
  for (const [part, unsure] of marked) {
    const end = start + part.length;
    if (unsure && end <= before) found.push([start, end]);
    else if (unsure && start >= whole.length - behind) found.push([start + shift, end + shift]);
    start = end;
  }
  return found;
}

function edited() {
  let done = 0;
  marks.replaceChildren();
  for (const [start, end] of spots()) {
    const mark = document.createElement("mark");
    mark.textContent = text.value.slice(start, end);
    marks.append(text.value.slice(done, start), mark);
    done = end;
  }
  marks.append(text.value.slice(done) + "\u200b");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
  describe();
  follow();
}

function describe() {
  const proposal = line.proposal;
  $("reading").replaceChildren();
  if (!proposal) return;
  if (!seen) { $("reading").append(`Read with ${Math.round(100 * proposal.confidence)} % confidence`); return; }
  if (!proposal.cer) { $("reading").append("The model reads the same."); return; }
  $("reading").append("The model reads: ");
  const reading = document.createElement("bdi");
  for (const [kind, part] of proposal.differences) {
    const node = document.createElement(kind === "equal" ? "span" : kind === "deletion" ? "del" : "mark");
    node.textContent = part;
    reading.append(node);
  }
  const take = Object.assign(document.createElement("button"), {type: "button", textContent: "Take it", onclick: () => fill(proposal.text)});
  $("reading").append(reading, " ", take);
}

function fill(value) {
  text.setSelectionRange(0, text.value.length);
  insert(value);
}

function insert(value) {
  text.focus();
  // execCommand keeps the browser's own undo; where it is gone, the text is set.
  if (value ? document.execCommand("insertText", false, value) : document.execCommand("delete")) return;
  text.setRangeText(value, text.selectionStart, text.selectionEnd, "end");
  text.dispatchEvent(new Event("input"));
}

// The picture: a line is as wide as the page allows, neither tiny nor huge, and follows the caret where it is wider.
function layout() {
  if (!picture.naturalWidth) return;
  const height = picture.naturalHeight * line.share, fit = figure.clientWidth / picture.naturalWidth;
  const tall = height > 0.4 * picture.naturalWidth;
  const most = Math.min(150 / height, 0.4 * innerHeight / picture.naturalHeight);
  const scale = tall ? Math.min(fit, 1.5) : Math.max(Math.min(fit, most), 46 / height);
  picture.style.width = `${Math.round(picture.naturalWidth * scale * zoom)}px`;
  $("hint").hidden = !(line.whole && tall && picture.naturalHeight > 900);
  follow();
}

function follow() {
  const share = text.value.length ? text.selectionStart / text.value.length : 0;
  const aside = (figure.scrollWidth - figure.clientWidth) * share;
  figure.scrollLeft = getComputedStyle(text).direction === "rtl" ? figure.scrollWidth - figure.clientWidth - aside : aside;
  figure.scrollTop = (figure.scrollHeight - figure.clientHeight) * share;
}

const draftKey = () => `ownhand ${line.name}`;
function recall() {
  const [base, value] = JSON.parse(localStorage.getItem(draftKey()) ?? "[]");
  return base === seen && value ? value : undefined;
}

const say = (words) => { $("said").textContent = words; };
function warn(words, asks = false) {
  $("notice").hidden = !words;
  $("notice").firstElementChild.textContent = words;
  $("mine").hidden = $("theirs").hidden = !asks;
}

function conflict(now) {
  if (now.gone) { warn("This line is no longer in the ground truth: it was changed elsewhere."); return null; }
  if (!touched) { say("The line was changed elsewhere meanwhile; this is how it stands now."); show({...line, ...now}); return null; }
  line.elsewhere = now;
  warn(now.text ? `Changed elsewhere meanwhile, to: “${now.text}”` : `Changed elsewhere meanwhile: ${now.why || "it has no transcription now"}.`, true);
  return null;
}

function settle(mine) {
  const now = line.elsewhere, draft = mine ? text.value : undefined;
  localStorage.removeItem(draftKey());
  show({...line, ...now, proposal: line.proposal}, draft);
}

async function finish(path, body, words) {
  const number = line.number, key = draftKey();
  const content = await call(path, {number, seen, ...body});
  if (!content) return;
  localStorage.removeItem(key);
  say(words);
  if (at < visited.length - 1) { at++; show((await call(`line/${visited[at]}?tab=${tab}`)).line); }
  else show(content.line);
}

const commands = {
  accept() {
    if (!text.value.trim()) { say("Nothing is written yet. Unreadable, not a line, or skip?"); return; }
    const seconds = (performance.now() - shownAt - hiddenFor) / 1000;
    return finish("accept", {text: text.value, seconds, proposed: !!line.proposal}, "Saved.");
  },
  skip: () => finish("skip", {}, "Skipped; it comes again at the end."),
  unreadable: () => finish("set-aside", {why: "unreadable"}, "Set aside as unreadable."),
  "not-a-line": () => finish("set-aside", {why: "not a line"}, "Set aside: not a line."),
  async undo() {
    const content = await call("undo", {});
    if (content) { show(content.line, content.draft || undefined); say(`Undone: ${content.line.label}.`); }
  },
  async back() { if (at > 0) { at--; show((await call(`line/${visited[at]}?tab=${tab}`)).line); } },
  larger() { zoom = Math.min(zoom * 1.25, 6); layout(); },
  smaller() { zoom = Math.max(zoom / 1.25, 0.3); layout(); },
  turn() { turns = (turns + 1) % 4; picture.src = `picture/${line.number}/${turns}`; },
  finish() { work.hidden = $("finish").hidden = true; $("end").hidden = false; $("end-title").focus(); },
  async again() {
    const content = line ? {line} : await call("skip", {number: null});
    if (content) show(content.line);
  },
  async stop() {
    await call("stop", {});
    for (const id of ["again", "undo-last", "stop"]) $(id).disabled = true;
    $("end-more").textContent = "The program has stopped; this page can be closed.";
  },
  mine: () => settle(true),
  theirs: () => settle(false),
};
commands["undo-last"] = commands.undo;

let busy = false;
async function run(name) {
  if (busy || (work.hidden && !["undo", "undo-last", "again", "stop"].includes(name))) return;
  busy = true;
  try { await commands[name](); } catch (error) { if (!(error instanceof TypeError)) throw error; } finally { busy = false; }
}

const keys = {KeyS: "skip", KeyU: "unreadable", KeyN: "not-a-line", KeyZ: "undo", KeyR: "turn", Equal: "larger", NumpadAdd: "larger", Minus: "smaller", NumpadSubtract: "smaller"};
addEventListener("keydown", (event) => {  // by place on the keyboard, so that any layout will do
  const ours = mac ? event.ctrlKey && !event.altKey : event.altKey && !event.ctrlKey && !event.getModifierState("AltGraph");
  if (!ours || event.metaKey || !keys[event.code]) return;
  event.preventDefault();
  run(keys[event.code]);
});

text.addEventListener("keydown", (event) => {
  if (event.isComposing || event.altKey || event.ctrlKey || event.metaKey) return;
  const stop = (name) => { event.preventDefault(); if (name) run(name); };
  if (event.key === "Enter" && !event.shiftKey) stop("accept");
  else if (event.key === "ArrowUp" && !event.shiftKey && caretInFirstRow()) stop("back");
  else if (event.key === "Escape") { stop(); fill(text.value ? "" : seen || line.proposal?.text || ""); }
  else if (event.key === "Tab") {
    const all = spots();
    const next = event.shiftKey ? all.findLast(([, end]) => end <= text.selectionStart) : all.find(([start, end]) => start >= text.selectionEnd && end > text.selectionEnd);
    if (next) { stop(); text.setSelectionRange(...next); follow(); }  // else Tab leaves the field, as everywhere
  }
});

function caretInFirstRow() {  // the marks lie under the field, letter on letter
  const walker = document.createTreeWalker(marks, NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let left = text.selectionStart; walker.nextNode(); left -= walker.currentNode.length) {
    if (left > walker.currentNode.length) continue;
    range.setStart(walker.currentNode, left);
    const caret = range.getBoundingClientRect();
    return !caret.height || caret.top - marks.getBoundingClientRect().top < caret.height;
  }
  return true;
}

text.addEventListener("input", () => {
  touched = true;
  localStorage.setItem(draftKey(), JSON.stringify([seen, text.value]));
  edited();
});
document.addEventListener("selectionchange", () => { if (line && document.activeElement === text) follow(); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenSince = performance.now();
  else if (hiddenSince) hiddenFor += performance.now() - hiddenSince;
});
picture.addEventListener("load", layout);
picture.addEventListener("error", () => warn("The picture cannot be shown; skip the line, or mend the file."));
addEventListener("resize", () => { if (line) { layout(); edited(); } });

for (const button of document.querySelectorAll("button")) {
  if (button.dataset.insert) button.addEventListener("click", () => insert(button.dataset.insert));
  else button.addEventListener("click", () => run(button.id));
  if (button.dataset.key) {
    button.title = `${button.getAttribute("aria-label") ?? button.textContent} (${mac ? "Ctrl" : "Alt"}+${button.dataset.key})`;
    button.setAttribute("aria-keyshortcuts", `${mac ? "Control" : "Alt"}+${button.dataset.key}`);
    if (button.closest(".actions")) button.insertAdjacentHTML("beforeend", ` <kbd>${mac ? "Ctrl" : "Alt"} ${button.dataset.key}</kbd>`);
  }
}

setInterval(async () => {
  if (document.hidden || busy || !line || work.hidden) return;
  const asked = line.number, content = await call(`status/${asked}`).catch(() => null);
  if (!content || busy || line?.number !== asked) return;
  if (content.text !== seen && !line.elsewhere) { conflict({text: content.text, why: content.why}); return; }
  if (!line.proposal && content.proposal) {
    line.proposal = content.proposal;
    const fresh = !text.value && !touched && !seen;
    if (fresh) text.value = content.proposal.text;
    edited();
    if (fresh) placeCaret();
  }
}, 2500);

call(`next?tab=${tab}`).then((content) => content && show(content.line));
