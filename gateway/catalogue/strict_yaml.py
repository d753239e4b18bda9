"""Strict YAML: it refuses duplicate keys, reads `no` and `on` as words, and knows the line of every value.

It never resolves references or environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from typing_extensions import override


class YamlMistake(Exception):
    """The text is not valid YAML, or not strict; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


_REPLACED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2's booleans, and no dates: PyYAML reads `no` as False, and a date in a model's name as a date."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute, replaced and never changed)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    @override
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise YamlMistake(f"not a valid value: {error}", node.start_mark.line + 1) from error


_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, ["t", "T", "f", "F"])


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Parse YAML. Returns the node tree, for `line_of`, and the value; both None for an empty text.

    Raises YamlMistake.
    """
    try:
        loader = _StrictLoader(text)
        try:
            tree = loader.get_single_node()
            _check_keys(tree, set())
            return tree, None if tree is None else loader.construct_document(tree)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlMistake(_explain(error.problem or ""), line) from error
    except yaml.YAMLError as error:
        raise YamlMistake(str(error), 1) from error


_MEANINGS = (
    (r"found character '\\t'", "a tab is here; indent with spaces"),
    (
        "mapping values are not allowed",
        "a second `:` is on this line, or the line before is indented wrongly; put a text with `: ` in quotes",
    ),
    ("expected <block end>", "the indentation does not fit the lines above, or a quote is not closed"),
    ("found character '(.)' that cannot start", "a text that begins with `{0}` must be in quotes"),
    ("found undefined alias", "a text that begins with `*` must be in quotes"),
    ("could not determine a constructor for the tag", "a text that begins with `!` must be in quotes"),
    (r"expected ',' or '\]'", "a list that begins with `[` does not end with `]`, or lacks a comma"),
    (r"expected ',' or '\}'", "a group that begins with `{{` does not end with `}}`, or lacks a comma"),
    ("found unexpected end of stream", "a quote that is opened here is not closed"),
    ("could not find expected ':'", "a `:` is missing after a name"),
    ("found duplicate anchor|found another document", "the file must hold one document, without repeated anchors"),
)
"""PyYAML's sentences, and their meaning for somebody who wrote the file by hand."""


def _explain(problem: str) -> str:
    for pattern, meaning in _MEANINGS:
        if found := re.search(pattern, problem):
            return meaning.format(*found.groups())
    return f"not valid YAML: {problem}" if problem else "not valid YAML"


def _check_keys(node: yaml.Node | None, seen: set[int]) -> None:
    """Raise YamlMistake for a duplicate key, which PyYAML would accept, and for a key that is a list or a mapping."""
    if not isinstance(node, yaml.MappingNode | yaml.SequenceNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, seen)
        return
    names: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlMistake("a key must be a word, not a list or a mapping", line)
        if key.value in names:
            raise YamlMistake(f"`{key.value}` is here twice", line)
        names.add(key.value)
        _check_keys(value, seen)


def line_of(tree: yaml.Node | None, path: Sequence[str | int]) -> int:
    """The line, from 1, of the entry at a path, or of its nearest parent in the text; 1 for an empty path."""
    node, line = tree, 1
    for step in path:
        child = _child(node, step)
        if child is None:
            break
        line, node = child
    return line


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    return None
