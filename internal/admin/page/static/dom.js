// Making and changing elements. Text gets into the document by text nodes only, so that a name cannot be markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else attribute(node, name, value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

// el makes an element: attributes, listeners as onclick: f, and children, strings among them.
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// attribute sets an attribute, or removes it for false and what is not there.
export function attribute(node, name, value) {
  if (value === false || value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

// text changes what a node says, and leaves it alone if it says that already, so that what is selected stays so.
export function text(node, value) {
  const now = String(value);
  if (node.textContent !== now) node.textContent = now;
}

export function show(node, yes) {
  if (node.hidden === yes) node.hidden = !yes;
}

// rows has one child of parent for each item: make() makes one, update(child, item, index) fills it.
export function rows(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(make());
  items.forEach((item, i) => update(parent.children[i], item, i));
}

// badge says how a device is, by a sign and a word; the colour only repeats it.
export function badge() {
  const sign = el("span", { class: "sign", "aria-hidden": "true" });
  const word = el("span", { class: "word" });
  const node = el("span", { class: "badge" }, sign, word);
  node.set = (group, label) => {
    attribute(node, "data-group", group.id);
    text(sign, group.sign);
    text(word, label ?? group.word);
  };
  return node;
}

// list makes a description list of pairs [term, node].
export function facts(...pairs) {
  return el("dl", { class: "facts" }, pairs.map(([term, node]) => el("div", {}, el("dt", {}, term), el("dd", {}, node))));
}

let unique = 0;

// card is a section with a heading of its own.
export function card(title, ...children) {
  const id = `card-${unique++}`;
  return el("section", { class: "card", "aria-labelledby": id }, el("h2", { id }, title), ...children);
}
