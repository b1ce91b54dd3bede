"use strict";
// Texts from the data reach the page as text nodes only, never as markup.
(() => {
const data = JSON.parse(document.getElementById("review-data").textContent);
const { items, labels } = data;
const byId = (id) => document.getElementById(id);
const gallery = byId("gallery");
const FEW_CHOICES = 40; // with more classes the options of "Relabel…" are made when it is opened
const PRINTED = 60;
const KINDS = {
  wrong: "judged wrong", stranger: "judged to belong to no class", clean: "judged clean", decided: "decided earlier",
};
const isFlagged = (item) => item.kind === "wrong" || item.kind === "stranger";
const number = (value) => value.toLocaleString("en-US");

/* texts */

function spelledOut(char) {
  const code = char.codePointAt(0);
  const named = { "\n": "\\n", "\r": "\\r", "\t": "\\t", " ": " " }[char];
  if (named) return named;
  const [letter, digits] = code < 256 ? ["x", 2] : code < 65536 ? ["u", 4] : ["U", 8];
  return `\\${letter}${code.toString(16).padStart(digits, "0")}`;
}

// Spells out what could turn the line around or be invisible.
const printable = (text) => text.replace(/[\p{C}\p{Z}]/gu, spelledOut);
const labelText = (index) => printable(labels[index]);
const scoreText = (score) => String(Number(score.toPrecision(3)));

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
const isolated = (text, className = "") => element("bdi", { className }, text);

/* decisions: row -> {row, file, given, action, label} */

const decisions = new Map(data.earlier.map((entry) => [entry.row, entry]));
const storageKey = `noisefilter.decisions.${data.fingerprint}.${data.started_from}`;
let unsaved = false;

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(storageKey));
    if (!kept) return;
    decisions.clear();
    for (const entry of kept.decisions) decisions.set(entry.row, entry);
    unsaved = kept.unsaved;
  } catch (error) { /* no storage, or not ours: start from what the page brought */ }
}

function remember() {
  try {
    localStorage.setItem(storageKey, JSON.stringify({ decisions: [...decisions.values()], unsaved }));
  } catch (error) { /* no storage: the warning before leaving remains */ }
}

function decision(item, action, label) {
  const given = labels[item.stored ?? item.given];
  if (action === "relabel" && label === given) action = "keep";
  return { row: item.row, file: item.name ?? null, given, action, label };
}
const DECIDE = {
  accept(item) {
    if (item.kind === "stranger") return decision(item, "confirm", null);
    return decision(item, item.kind === "wrong" ? "confirm" : "relabel", labels[item.suggested]);
  },
  keep: (item) => decision(item, "relabel", labels[item.given]),
  remove: (item) => decision(item, "remove", null),
};

// Takes [row, decision or undefined] pairs and returns those that take it back.
function change(updates) {
  const before = updates.map(([row]) => [row, decisions.get(row)]);
  for (const [row, entry] of updates) {
    if (entry) decisions.set(row, entry);
    else decisions.delete(row);
  }
  unsaved = true;
  remember();
  showProgress();
  redraw(new Set(updates.map(([row]) => row)));
  return before;
}

function changeAll(chosen, decide, what) {
  if (!chosen.length) return;
  const before = change(chosen.map((item) => [item.row, decide(item)]));
  toast(`${what} ${number(chosen.length)} ${chosen.length === 1 ? "row" : "rows"}.`, () => change(before));
}

function sentence(entry) {
  const label = entry.label === null ? "" : printable(entry.label);
  if (entry.action === "keep") return ["Kept ", isolated(label)];
  if (entry.label === null) return [entry.action === "confirm" ? "Accepted: no class" : "Removed"];
  return [entry.action === "confirm" ? "Accepted " : "Relabeled ", isolated(label)];
}

/* cards */

function image(item, room) {
  const [bytes, width, height] = item.picture;
  const longer = Math.max(width, height);
  const small = longer <= 64;
  const scale = small ? Math.max(1, Math.floor(room / longer)) : Math.max(1, room / longer);
  return element("img", {
    src: `data:image/webp;base64,${bytes}`, alt: "", className: small ? "pixels" : "",
    width: Math.round(width * scale), height: Math.round(height * scale),
  });
}

function front(item) {
  if (item.cells) {
    const lines = item.cells.map(([column, value, unusual]) => element("tr", {
      className: unusual ? "unusual" : "", title: unusual ? "unusual among clean rows of the given label" : "",
    }, element("th", { scope: "row" }, isolated(printable(column))), element("td", {}, isolated(printable(value)))));
    return element("table", { className: "values" }, element("tbody", {}, ...lines));
  }
  if (!item.picture) return element("div", { className: "picture no-picture" }, isolated(title(item)));
  const button = element("button", { type: "button", className: "picture", "aria-label": `Enlarge ${title(item)}` });
  button.append(image(item, 160));
  button.addEventListener("click", () => enlarge(item));
  return button;
}

// The folder is the given label, which stands below.
const shortTitle = (item) => title(item).split("/").at(-1);
const title = (item) => (item.name === undefined ? `row ${item.row}` : printable(item.name));

function labelsOf(item) {
  const suggested = item.kind === "stranger" ? element("span", { className: "none" }, "no class")
    : isolated(labelText(item.suggested));
  return element("p", { className: "labels" },
    element("span", { className: "hidden" }, "given "), isolated(labelText(item.given), "given"),
    element("span", { className: "arrow", "aria-hidden": "true" }, isFlagged(item) ? " → " : " or "),
    element("span", { className: "hidden" }, isFlagged(item) ? ", suggested " : " or "), suggested);
}

function facts(item) {
  const made = element("div", { className: "facts" },
    element("p", { className: "who" },
      element("bdi", { className: "file", title: title(item) }, shortTitle(item)),
      element("span", { title: "score: the higher, the better the label fits" }, scoreText(item.score))),
    labelsOf(item));
  if (!isFlagged(item)) made.append(element("p", { className: "judged" }, KINDS[item.kind]));
  if (item.stored !== undefined) {
    made.append(element("p", { className: "judged" }, "stored as ", isolated(labelText(item.stored))));
  }
  if (item.truth !== undefined) {
    const wrong = item.truth !== item.given;
    const words = wrong ? ["really ", isolated(labelText(item.truth))] : ["the given label is right"];
    if (wrong && isFlagged(item) && item.truth !== item.suggested) words.unshift("wrong, but ");
    made.append(element("p", { className: "truth" }, element("b", {}, wrong === isFlagged(item) ? "✓" : "✗"), " ",
      ...words));
  }
  return made;
}

function relabelSelect(item) {
  const select = element("select", { "aria-label": "Relabel" }, new Option("Relabel…", ""));
  const fill = () => {
    if (select.length > 1) return;
    for (let index = 0; index < data.choices; index++) select.add(new Option(labelText(index), index));
  };
  if (data.choices <= FEW_CHOICES) fill();
  for (const event of ["pointerdown", "focus"]) select.addEventListener(event, fill);
  select.addEventListener("keydown", (event) => { // else the first arrow would choose a label at once
    if (!["ArrowDown", "ArrowUp", "Enter", " "].includes(event.key) || !select.showPicker) return;
    event.preventDefault();
    select.showPicker();
  });
  select.addEventListener("change", () => {
    if (select.value !== "") decideCard(item, decision(item, "relabel", labels[Number(select.value)]));
  });
  return select;
}

function acts(item) {
  const entry = decisions.get(item.row);
  const button = (className, text, decided) => {
    const made = element("button", { type: "button", className }, ...text);
    made.addEventListener("click", () => decideCard(item, decided));
    return made;
  };
  if (entry) {
    return element("div", { className: "acts" },
      element("p", {}, ...sentence(entry)), button("undo", ["Undo"], undefined));
  }
  const accept = item.kind === "stranger" ? ["Accept no class"]
    : [item.kind === "wrong" ? "Accept " : "Relabel ", isolated(labelText(item.suggested))];
  return element("div", { className: "acts" },
    button("accept wide", accept, DECIDE.accept(item)),
    button("keep wide", ["Keep ", isolated(labelText(item.given))], DECIDE.keep(item)),
    relabelSelect(item),
    button("remove", ["Remove"], DECIDE.remove(item)));
}

function card(item) {
  const made = element("article", { className: "card", tabIndex: -1, "data-row": item.row, "aria-label":
    `${title(item)}, given ${labelText(item.given)}, ${KINDS[item.kind]}` });
  if (decisions.has(item.row)) made.classList.add("decided");
  made.append(...(item.cells ? [facts(item), front(item)] : [front(item), facts(item)]), acts(item));
  return made;
}

function decideCard(item, entry) {
  change([[item.row, entry]]);
  const place = gallery.querySelector(`[data-row="${item.row}"]`);
  place?.querySelector(entry ? ".undo" : ".accept")?.focus({ preventScroll: true });
}

function redraw(rows) {
  for (const old of [...gallery.children]) {
    const row = Number(old.dataset.row);
    if (!rows.has(row)) continue;
    const focused = old === document.activeElement;
    const fresh = card(items[indexOfRow.get(row)]);
    fresh.tabIndex = old.tabIndex;
    old.replaceWith(fresh);
    if (focused) fresh.focus({ preventScroll: true });
  }
  showBulk();
}
const indexOfRow = new Map(items.map((item, index) => [item.row, index]));

function enlarge(item) {
  const zoom = byId("zoom");
  if (!item.picture) return;
  const room = Math.min(512, innerWidth * 0.8, innerHeight * 0.7);
  zoom.replaceChildren(image(item, room), labelsOf(item), element("p", {}, isolated(title(item))));
  zoom.showModal();
}

/* filters, order and pages */

const filters = ["kind", "given", "suggested", "decided", "text"].map((name) => byId(`filter-${name}`));
const [kindFilter, givenFilter, suggestedFilter, decidedFilter, textFilter] = filters;
let found = []; // what matched when the filter was last changed: deciding does not make cards jump
let page = 0;

const NEVER = -1; // stands for "no class" among the suggested labels
const suggestion = (item) => (item.kind === "stranger" ? NEVER : item.suggested);
const ofKind = {
  "": isFlagged,
  wrong: (item) => item.kind === "wrong",
  stranger: (item) => item.kind === "stranger",
  also: (item) => item.kind !== "decided",
  clean: (item) => item.kind === "clean",
  decided: (item) => item.kind === "decided",
};

function fillFilters() {
  const count = (kind) => items.filter(ofKind[kind]).length;
  kindFilter.add(new Option(`judged wrong (${number(count(""))})`, ""));
  if (count("stranger")) {
    kindFilter.add(new Option(`wrong label (${number(count("wrong"))})`, "wrong"));
    kindFilter.add(new Option(`no class (${number(count("stranger"))})`, "stranger"));
  }
  if (count("clean")) {
    kindFilter.add(new Option(`also the next ${number(count("clean"))}`, "also"));
    kindFilter.add(new Option(`only the next ${number(count("clean"))}`, "clean"));
  }
  if (count("decided")) kindFilter.add(new Option(`decided earlier (${number(count("decided"))})`, "decided"));
  for (const [select, labelOf] of [[givenFilter, (item) => item.given], [suggestedFilter, suggestion]]) {
    const present = [...new Set(items.map(labelOf))].sort((a, b) => a - b);
    select.add(new Option("all", ""));
    for (const index of present) select.add(new Option(index === NEVER ? "no class" : labelText(index), index));
  }
}

function search() {
  const text = textFilter.value.trim().toLowerCase();
  found = items.filter((item) =>
    ofKind[kindFilter.value](item)
    && (givenFilter.value === "" || item.given === Number(givenFilter.value))
    && (suggestedFilter.value === "" || suggestion(item) === Number(suggestedFilter.value))
    && (decidedFilter.value === "" || decisions.has(item.row) === (decidedFilter.value === "yes"))
    && (text === "" || title(item).toLowerCase().includes(text) || String(item.row) === text));
  const order = { score: () => 0, class: (a, b) => a.given - b.given, row: (a, b) => a.row - b.row }[byId("sort").value];
  found.sort(order); // items come with the lowest score first, and sorting is stable
  byId("clear").hidden = filters.every((filter) => filter.value === "");
  page = 0;
  show();
}

function pageSize() {
  return printing ? PRINTED : Number(byId("page-size").value);
}

function show() {
  const size = pageSize();
  const pages = Math.max(1, Math.ceil(found.length / size));
  const cards = found.slice(page * size, (page + 1) * size).map(card);
  if (cards.length) cards[0].tabIndex = 0;
  gallery.replaceChildren(...cards);
  if (!cards.length) {
    const any = items.some(isFlagged);
    gallery.append(element("p", { className: "message" }, any ? "No row matches these filters." : "No label looks wrong."));
  }
  const first = page * size + 1;
  byId("shown").textContent = found.length
    ? `Showing ${number(first)}–${number(first + cards.length - 1)} of ${number(found.length)}` : "Showing 0 of 0";
  byId("page-number").textContent = `Page ${number(page + 1)} of ${number(pages)}`;
  byId("pager").hidden = pages === 1;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
  showBulk();
}

function turn(step, focusOn) {
  const pages = Math.ceil(found.length / pageSize());
  if (page + step < 0 || page + step >= pages) return;
  page += step;
  show();
  if (focusOn) focusCard(focusOn === "last" ? gallery.lastElementChild : gallery.firstElementChild);
  else byId("filters").scrollIntoView();
}

const MANY = 20; // decisions at once that ask again

// On a row judged clean there is nothing to accept.
const acceptable = () => found.filter((item) => !decisions.has(item.row) && isFlagged(item));
const keepable = () => found.filter((item) => !decisions.has(item.row));

function showBulk() {
  for (const [id, what, rows] of [["accept-all", "Accept", acceptable()], ["keep-all", "Keep", keepable()]]) {
    const button = byId(id);
    button.textContent = `${what} all ${number(rows.length)}`;
    button.title = `${what} every undecided row of this filter, on all pages`;
    button.disabled = !rows.length;
  }
}

/* keyboard */

function focusCard(next) {
  if (!next?.dataset.row) return;
  for (const other of gallery.children) other.tabIndex = -1;
  next.tabIndex = 0;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function move(from, key) {
  const cards = [...gallery.children];
  const columns = cards.filter((other) => other.offsetTop === cards[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const place = cards.indexOf(from) + step;
  if (place in cards) focusCard(cards[place]);
  else if (step < 0) turn(-1, "last");
  else turn(1, "first");
}

gallery.addEventListener("keydown", (event) => {
  const here = event.target.closest(".card");
  if (!here || event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const item = items[indexOfRow.get(Number(here.dataset.row))];
  const decide = { a: DECIDE.accept, k: DECIDE.keep, r: DECIDE.remove }[event.key.toLowerCase()];
  if (event.key.startsWith("Arrow")) move(here, event.key);
  else if (decide) {
    change([[item.row, decide(item)]]);
    move(gallery.querySelector(`[data-row="${item.row}"]`), "ArrowRight");
  } else if (event.key.toLowerCase() === "u") {
    change([[item.row, undefined]]);
    focusCard(gallery.querySelector(`[data-row="${item.row}"]`));
  } else if (event.key === "Enter" && event.target === here) enlarge(item);
  else return;
  event.preventDefault();
});
gallery.addEventListener("focusin", (event) => {
  const here = event.target.closest(".card");
  for (const other of gallery.children) other.tabIndex = other === here ? 0 : -1;
});
addEventListener("keydown", (event) => {
  if (event.key === "?" && !event.target.matches?.("input, select")) byId("help").showModal();
});

/* the bar: progress, save, load */

function showProgress() {
  const judged = items.filter(isFlagged);
  const done = judged.filter((item) => decisions.has(item.row)).length;
  const others = decisions.size - done;
  byId("decided-total").textContent = number(decisions.size);
  byId("progress-text").textContent = `${number(done)} of ${number(judged.length)} decided`;
  byId("unsaved").textContent = (others ? `and ${number(others)} more ` : "") + (unsaved ? "· not saved" : "");
  byId("progress").max = judged.length || 1;
  byId("progress").value = done;
}

function save() {
  const file = {
    made_by: "noisefilter report", format: 1, fingerprint: data.fingerprint, rows: data.rows,
    description: data.description, decisions: [...decisions.values()].sort((a, b) => a.row - b.row),
  };
  const url = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1), "\n"], { type: "application/json" }));
  element("a", { href: url, download: "decisions.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  unsaved = false;
  remember();
  showProgress();
  toast(`Saved ${number(decisions.size)} decisions as decisions.json.`);
}

// Returns what is wrong with a file, or nothing.
function fault(file) {
  if (file?.made_by !== "noisefilter report" || !Array.isArray(file.decisions)) {
    return "This is no file of decisions: choose a decisions.json that was saved from a report.";
  }
  if (file.format !== 1) return "These decisions were saved by a newer noisefilter: make the report again with that one.";
  if (file.fingerprint !== data.fingerprint) {
    return "These decisions were made for another data set, or for this one before it changed.";
  }
  const actions = ["confirm", "relabel", "keep", "remove"];
  const known = new Set(labels.slice(0, data.choices));
  const sound = (entry) => Number.isInteger(entry?.row) && entry.row >= 0 && entry.row < data.rows
    && actions.includes(entry.action) && typeof entry.given === "string" && known.has(entry.label ?? entry.given)
    && (entry.file === null || typeof entry.file === "string");
  const bad = file.decisions.findIndex((entry) => !sound(entry));
  return bad < 0 ? "" : `Decision ${number(bad + 1)} of this file makes no sense: nothing was loaded.`;
}

async function load(file) {
  let parsed;
  try {
    parsed = JSON.parse(await file.text());
  } catch (error) {
    parsed = null;
  }
  const wrong = fault(parsed);
  if (wrong) return toast(wrong);
  const before = change(parsed.decisions.map(({ row, file: name, given, action, label }) =>
    [row, { row, file: name, given, action, label }]));
  toast(`Loaded ${number(before.length)} decisions.`, () => change(before));
}

let toastEnds;
function toast(text, undo) {
  const box = byId("toast");
  const [words, button] = box.children;
  words.textContent = text;
  button.hidden = !undo;
  button.onclick = () => { box.hidden = true; undo(); };
  box.hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => { box.hidden = true; }, 12000);
}

async function copy() {
  const code = byId("apply");
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
    toast("Copied.");
  } catch (error) {
    toast("The command is selected: copy it with Ctrl-C.");
  }
}

/* the class table */

function sortTable(header) {
  const table = byId("class-table");
  const column = header.cellIndex;
  const numeric = column >= 1 && column <= 3;
  const descending = header.ariaSort === "none" ? numeric : header.ariaSort === "ascending";
  for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
  header.ariaSort = descending ? "descending" : "ascending";
  const value = (line) => line.cells[column].dataset.value;
  const compare = numeric ? (a, b) => value(a) - value(b)
    : (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => (descending ? compare(b, a) : compare(a, b))));
}

function clearFilters() {
  for (const filter of filters) filter.value = "";
}

function showPair(button) {
  clearFilters();
  givenFilter.value = button.dataset.given;
  suggestedFilter.value = button.dataset.suggested;
  search();
  byId("review").scrollIntoView();
}

function showKind(kind) {
  clearFilters();
  kindFilter.value = kind;
  search();
  byId("review").scrollIntoView();
}

/* printing: the first rows, whatever page is open */

let printing = false;
function print(starts) {
  if (printing === starts) return;
  printing = starts;
  page = 0;
  show();
}

function start() {
  recall();
  fillFilters();
  gallery.classList.toggle("cells", items.some((item) => item.cells));
  search();
  showProgress();
  for (const filter of [...filters, byId("sort"), byId("page-size")]) filter.addEventListener("change", search);
  textFilter.addEventListener("input", search);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => { clearFilters(); search(); });
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("accept-all").addEventListener("click", () => {
    const rows = acceptable();
    if (rows.length > MANY && !confirm(`Accept the suggested label of ${number(rows.length)} rows? ` +
      "Where a label is wrong, the suggestion can be wrong too: look at some of them first.")) return;
    changeAll(rows, DECIDE.accept, "Accepted");
  });
  byId("keep-all").addEventListener("click", () => changeAll(keepable(), DECIDE.keep, "Kept"));
  byId("save").addEventListener("click", save);
  byId("load").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await load(file);
    byId("load").value = ""; // the same file can be chosen again
  });
  byId("copy").addEventListener("click", copy);
  byId("help-open")?.addEventListener("click", () => byId("help").showModal());
  byId("zoom").addEventListener("click", () => byId("zoom").close());
  for (const header of byId("class-table").tHead.rows[0].cells) {
    header.firstElementChild.addEventListener("click", () => sortTable(header));
  }
  byId("confusions")?.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) showPair(button);
  });
  byId("overview").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-kind]");
    if (button) showKind(button.dataset.kind);
  });
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("noisefilter.theme", root.dataset.theme); } catch (error) { /* this page only */ }
  });
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
}
start();
})();
