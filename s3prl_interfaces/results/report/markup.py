"""Building HTML as a tree, so that nothing a file says can become markup."""

import unicodedata
from xml.etree.ElementTree import Element, tostring

Child = Element | str | None


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """Build an element; ``class_`` is ``class`` and ``aria_label`` is ``aria-label``. A child of None is left out."""
    node = Element(tag, {name.strip("_").replace("_", "-"): clean(value) for name, value in attributes.items()})
    for child in children:
        append(node, child)
    return node


def append(node: Element, child: Child) -> None:
    """Append an element, or text that is escaped when written."""
    if child is None:
        return
    if isinstance(child, Element):
        node.append(child)
    elif len(node):
        node[-1].tail = (node[-1].tail or "") + clean(child)
    else:
        node.text = (node.text or "") + clean(child)


def to_html(page: Element) -> str:
    """Write a whole page."""
    text = tostring(page, encoding="unicode", method="html")
    # Python 3.10 does not know that this one has no end. Text and attributes are escaped, so none of them is meant.
    return "<!DOCTYPE html>\n" + text.replace("</wbr>", "") + "\n"


def clean(text: str) -> str:
    """Replace what no document may hold: control characters and halves of surrogate pairs."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)
