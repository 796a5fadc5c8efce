"""YAML as plain data: what a file holds, whoever wrote it, can be copied, printed and used as a path."""

import re
from typing import Any

import yaml

MOST_VALUES = 100_000
"""Values of a file, with every alias written out."""
DEEPEST = 100
"""Blocks within blocks: what is nested deeper cannot be copied without running into Python's limit."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # neither in a path nor in UTF-8


class PlainYAMLError(ValueError):
    """A text that is not YAML, or more than plain data; the message is one line."""


def read_plain_yaml(text: str) -> Any:
    """The value of a YAML text, as ``yaml.safe_load`` gives it, with these differences.

    - ``1e-4`` is a number, too (YAML 1.1 wants ``1.0e-4`` and makes a string of the other);
    - an alias stands for a copy, so that a change at one place leaves the others as they are;
    - there are limits: :data:`MOST_VALUES`, :data:`DEEPEST`, whole numbers of 64 bits, and no text with a NUL or half
      of a surrogate pair.

    Raises:
        PlainYAMLError: it is none.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except Exception as error:  # PyYAML raises whatever an odd scalar leads to: `!!timestamp x` an AttributeError
        raise PlainYAMLError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"blocks within blocks, more than {DEEPEST} deep"
    if isinstance(error, LookupError | AttributeError | TypeError):
        return "a value does not fit its tag"
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """See :func:`read_plain_yaml`."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        self._left = MOST_VALUES
        return None if node is None else self._written_out(node, 0)

    def _written_out(self, node: yaml.Node, depth: int) -> yaml.Node:
        """A copy in which no node is shared; one that holds itself is infinitely deep."""
        self._left -= 1
        if self._left < 0 or depth > DEEPEST:
            raise yaml.composer.ComposerError(
                problem=f"more than {MOST_VALUES} values (an alias counts as what it stands for), or blocks within "
                f"blocks, more than {DEEPEST} deep",
                problem_mark=node.start_mark,
            )
        content: list[Any]
        if isinstance(node, yaml.SequenceNode):
            content = [self._written_out(item, depth + 1) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            content = [tuple(self._written_out(item, depth + 1) for item in pair) for pair in node.value]
        else:
            return node
        return type(node)(node.tag, content, node.start_mark, node.end_mark)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str) and _UNUSABLE.search(text):
            raise yaml.constructor.ConstructorError(
                problem="a text with a NUL or half of a surrogate pair", problem_mark=node.start_mark
            )
        return text

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        number = self.construct_yaml_int(node)
        if not -(2**63) <= number < 2**64:
            raise yaml.constructor.ConstructorError(
                problem="a whole number of more than 64 bits", problem_mark=node.start_mark
            )
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
