// The search box: every name and description of the model, ranked by how well the name fits.
"use strict";

const LIMIT = 40;
const box = document.getElementById("search");
const list = document.getElementById("found");
let entries = null;
let chosen = -1;

async function load() {
  if (entries === null) {
    const answer = await fetch("search.json");
    entries = (await answer.json()).map(([name, kind, page, text]) => ({
      name, kind, page, text, key: name.toLowerCase(), low: text.toLowerCase(),
    }));
  }
  return entries;
}

// Lower is better; null: it does not fit. Every word must be in the name or the text.
function rank(entry, words) {
  let sum = 0;
  for (const word of words) {
    const at = entry.key.indexOf(word);
    if (entry.key === word) sum += 0;
    else if (at === 0) sum += 1;
    else if (at > 0) sum += ".:_/ ".includes(entry.key[at - 1]) ? 2 : 4;
    else if (entry.low.includes(word)) sum += 8;
    else return null;
  }
  return sum + entry.key.length / 1000;
}

function show(found) {
  list.replaceChildren(...found.map(({ entry }) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const text = document.createElement("small");
    link.href = entry.page;
    link.textContent = entry.name;
    text.textContent = `${entry.kind}: ${entry.text}`;
    link.append(text);
    item.append(link);
    return item;
  }));
  chosen = -1;
  list.hidden = found.length === 0;
}

function choose(step) {
  const items = [...list.children];
  if (items.length === 0) return;
  items[chosen]?.classList.remove("chosen");
  chosen = (chosen + step + items.length) % items.length;
  items[chosen].classList.add("chosen");
  items[chosen].scrollIntoView({ block: "nearest" });
}

async function search() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = await load();
  if (words.length === 0) return show([]);
  const found = all.map((entry) => ({ entry, rank: rank(entry, words) })).filter((each) => each.rank !== null);
  found.sort((a, b) => a.rank - b.rank);
  show(found.slice(0, LIMIT));
}

box.addEventListener("input", search);

box.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") { event.preventDefault(); choose(1); }
  else if (event.key === "ArrowUp") { event.preventDefault(); choose(-1); }
  else if (event.key === "Enter") list.children[Math.max(chosen, 0)]?.firstChild.click();
  else if (event.key === "Escape") { box.value = ""; show([]); box.blur(); }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== box) { event.preventDefault(); box.focus(); }
});

document.addEventListener("click", (event) => {
  if (!event.target.closest(".search")) list.hidden = true;
});

// index.html?q=VM.start
const asked = new URLSearchParams(location.search).get("q");
if (asked) {
  box.value = asked;
  search();
}
