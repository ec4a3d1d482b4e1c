"""HTML as a tree of elements, made by the standard library's parser: for tests that look things up in a page."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "br", "wbr"}


@dataclasses.dataclass
class Element:
  tag: str
  attributes: dict[str, str]
  children: list[Element | str] = dataclasses.field(default_factory=list)

  def every(self, tag: str, **attributes: str) -> list[Element]:
    """Returns the elements below with this tag and these attributes; `class_` is one class of several."""
    found = []
    for child in self.children:
      if isinstance(child, Element):
        if child.tag == tag and all(child._has(*wanted) for wanted in attributes.items()):
          found.append(child)
        found += child.every(tag, **attributes)
    return found

  def only(self, tag: str, **attributes: str) -> Element:
    (found,) = self.every(tag, **attributes)
    return found

  def below(self) -> list[Element]:
    elements = [child for child in self.children if isinstance(child, Element)]
    return [*elements, *(element for child in elements for element in child.below())]

  def _has(self, name: str, value: str) -> bool:
    if name == "class_":
      return value in self.attributes.get("class", "").split()
    return self.attributes.get(name.replace("_", "-")) == value

  @property
  def text(self) -> str:
    """Its text, with single spaces."""
    return " ".join("".join(child if isinstance(child, str) else child._spaced for child in self.children).split())

  @property
  def _spaced(self) -> str:
    inline = self.tag in ("wbr", "b", "small", "a")
    return self.text if inline else f" {self.text} "


class _Reader(HTMLParser):
  def __init__(self) -> None:
    super().__init__()
    self.root = Element("root", {})
    self._open = [self.root]

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    element = Element(tag, {name: value or "" for name, value in attrs})
    self._open[-1].children.append(element)
    if tag not in _VOID:
      self._open.append(element)

  def handle_endtag(self, tag: str) -> None:
    assert self._open[-1].tag == tag, f"</{tag}> ends <{self._open[-1].tag}>"
    self._open.pop()

  def handle_data(self, data: str) -> None:
    self._open[-1].children.append(data)


def read(html: str) -> Element:
  """Reads HTML in which every element is closed."""
  reader = _Reader()
  reader.feed(html)
  reader.close()
  assert reader._open == [reader.root]
  return reader.root
