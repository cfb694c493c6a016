// Makes one element like another with as few changes as will do: focus, selection and what was unfolded stay.

// Attributes that belong to the reader, not to the server.
const KEPT = new Map([
  ["DETAILS", ["open"]],
  ["BUTTON", ["hidden", "data-copied"]],
  ["P", ["hidden"]],
]);

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || null : null);

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const kept = KEPT.get(old.tagName) ?? [];
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !kept.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (!kept.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) {
    const key = keyOf(child);
    if (key) keyed.set(key, child);
  }
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const key = keyOf(wanted);
    const known = key ? keyed.get(key) : null;
    if (known && alike(known, wanted)) {
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      morph(known, wanted);
    } else if (at && !keyOf(at) && !key && alike(at, wanted)) {
      const next = at.nextSibling;
      if (at.nodeType === Node.ELEMENT_NODE) morph(at, wanted);
      else if (at.data !== wanted.data) at.data = wanted.data;
      at = next;
    } else {
      if (key) wanted.dataset?.key && (wanted.dataset.fresh = "");
      old.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
