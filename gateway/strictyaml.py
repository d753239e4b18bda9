"""YAML as people mean it: duplicate keys refused, `no` and `on` are words, and every value knows its line.

Read by `catalog` only. Never resolves references or environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from typing_extensions import override


class YamlMistake(Exception):
    """The text is not the YAML that it should be; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2's booleans and no duplicate keys; PyYAML alone reads `no` as False and lets the last key win."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute, replaced and never changed)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise YamlMistake(f"`{key.value}` stands here twice", key.start_mark.line + 1)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The node tree, for `line_of`, and the value. Raises YamlMistake."""
    try:
        loader = _StrictLoader(text)
        try:
            tree = loader.get_single_node()
            return tree, None if tree is None else loader.construct_document(tree)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlMistake(error.problem or "not valid YAML", line) from error
    except yaml.YAMLError as error:
        raise YamlMistake(str(error), 1) from error


def line_of(tree: yaml.Node | None, path: Sequence[str | int]) -> int:
    """The line of the value at a path, or of the nearest parent that is there."""
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
