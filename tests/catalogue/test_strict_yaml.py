"""YAML as people mean it: words are words, keys come once, and every mistake has its line."""

from typing import Any

import pytest

from gateway.catalogue.strict_yaml import YamlMistake, line_of, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("truely", "truely"),
        ("2026-04-21", "2026-04-21"),
        ("2026-99-99", "2026-99-99"),
        ("17", 17),
        ("1.5", 1.5),
        ("~", None),
        ("", None),
        ("'true'", "true"),
    ],
)
def test_words_stay_words(text: str, value: Any) -> None:
    """Only true and false are booleans, and a date in a model's name is no date."""
    assert parse_yaml(text)[1] == value


def test_merges_are_read() -> None:
    """An anchor's values are shared, and a merge may be overridden, also where it is merged again."""
    text = "base:\n  inner: &b\n    <<: &a {x: 1, y: 2}\n    y: 3\nother: {<<: *b, y: 4}\nsame: *a\n"
    value = parse_yaml(text)[1]
    assert value["base"]["inner"] == {"x": 1, "y": 3}
    assert value["other"] == {"x": 1, "y": 4}
    assert value["same"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "`a` is here twice"),
        ("a:\n  - b: 1\n    c: 2\n    b: 3\n", 4, "`b` is here twice"),
        ("a: {b: 1, b: 2}", 1, "`b` is here twice"),
        ("x: 1\n? [a, b]\n: 2\n", 2, "a key must be a word"),
        ("x: 1\n{a: 1}: 2\n", 2, ""),
        ("a: 1\n b: 2\n", 2, "a second `:` is on this line"),
        ("a: [1\nb: 2\n", 2, ""),
        ("a: 1\n--- \nb: 2\n", 2, "must hold one document"),
        ("a: @b\n", 1, "begins with `@` must be in quotes"),
        ("a: 'b\n", 2, "a quote that is opened here is not closed"),
        ("a: [b\nc: d\n", 2, "does not end with `]`"),
        ("a: {b: c\nd: e\n", 2, "does not end with `}`"),
        ("a: *nowhere\n", 1, "begins with `*` must be in quotes"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "begins with `!` must be in quotes"),
        ("a: 1\nb: !!int twelve\n", 2, "not a valid value"),
        ("a: \x00\n", 1, ""),
        ("a: 1\n\tb: 2\n", 2, "a tab is here; indent with spaces"),
    ],
)
def test_mistakes_name_their_line(text: str, line: int, says: str) -> None:
    """Whatever is wrong with the text is a YamlMistake with a line."""
    with pytest.raises(YamlMistake) as caught:
        parse_yaml(text)
    assert caught.value.line == line
    assert says in str(caught.value)


TEXT = """\
# a comment
models:
  one:
    upstreams: [a, b]
  two:
    upstreams:
      - a
      - b
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("models",), 2),
        (("models", "one"), 3),
        (("models", "one", "upstreams", 1), 4),
        (("models", "two", "upstreams", 1), 8),
        (("models", "two", "upstreams", 7), 6),
        (("models", "two", "missing"), 5),
        (("models", "two", "missing", "deeper"), 5),
        (("nothing",), 1),
    ],
)
def test_values_know_their_line(path: tuple[str | int, ...], line: int) -> None:
    """A path has the line of its value, or of the nearest parent that is there."""
    tree, _ = parse_yaml(TEXT)
    assert line_of(tree, path) == line


def test_recursive_alias_is_read_once() -> None:
    """An anchor that holds itself does not keep the reader busy."""
    value = parse_yaml("a: &a {b: *a}")[1]
    assert value["a"]["b"] is value["a"]
