"""The catalogue: the shipped file loads, and every mistake in another names its line and what would be right."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.catalogue.catalogue import Catalogue, CatalogueError, load, read
from gateway.catalogue.schema import render_schema, schema
from gateway.catalogue.strict_yaml import parse_yaml
from tests.support.plans import KEYS, SHIPPED, shipped

CONFIG = SHIPPED.parent
EXAMPLES = [SHIPPED, *sorted((CONFIG / "examples").glob("*.yaml"))]

GOOD = """\
default_model: pictures
upstreams:
  one:
    kind: anyfast
    base_url: https://one.example
    model: gpt-image-2
    credentials:
      - key: env:ONE_KEY
models:
  pictures:
    upstreams: [one]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    """The lines of the refusal, without the folder."""
    with pytest.raises(CatalogueError) as caught:
        load(written(folder, text), {"ONE_KEY": "k"})
    return str(caught.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_shipped_catalogues_load(path: Path) -> None:
    """What is shipped is in force as it stands, with every upstream on, and its schema agrees."""
    catalogue = load(path, dict.fromkeys(re.findall(r"env:(\w+)", path.read_text()), "k"))
    assert catalogue.not_configured == {}
    assert not catalogue.is_simulated
    assert catalogue.find_model(catalogue.document.default_model) is not None
    jsonschema.validate(parse_yaml(path.read_text())[1], schema())


def test_schema_file_is_current() -> None:
    """The schema that editors read is made from the code, and is a schema."""
    assert (CONFIG / "gateway.schema.json").read_text() == render_schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(render_schema()))


@pytest.mark.parametrize(
    "change",
    [
        {"upstreams": {}},
        {"defaultmodel": "x"},
        {"unknown_fields": "tell"},
        {"limits": {"images": 17}},
        {"models": None},
    ],
    ids=str,
)
def test_schema_refuses_what_loading_refuses(tmp_path: Path, change: dict[str, Any]) -> None:
    """An editor underlines the mistakes that would stop the start."""
    document = parse_yaml(GOOD)[1] | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())
    assert mistakes(tmp_path, json.dumps(document))


def test_shipped_upstreams_are_the_three() -> None:
    """The shipped file names both Anyfast models and apiany, each with its own key."""
    catalogue = shipped()
    assert [(one.label, one.key, one.config.kind, one.config.model) for one in catalogue.targets] == [
        ("anyfast/main", "k1", "anyfast", "gpt-image-2"),
        ("anyfast-c/main", "k2", "anyfast", "gpt-image-2-c"),
        ("apiany/main", "k3", "apiany", "gpt-image-2"),
    ]
    assert "k1" not in repr(catalogue)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "kind: anyfast",
            "kind: azure",
            "gateway.yaml:4: upstreams.one.kind: must be one of anyfast, apiany, openai",
        ),
        ("model: gpt-image-2\n", "modell: x\n", "gateway.yaml:6: upstreams.one.modell: there is no such field here"),
        ("model: gpt-image-2\n", "modell: x\n", "gateway.yaml:3: upstreams.one.model: is required"),
        (
            "models:",
            "modles: {}\nmodels:",
            "gateway.yaml:9: modles: there is no such field here; did you mean `models`?",
        ),
        (
            "upstreams: [one]",
            "upstreems: [one]",
            "gateway.yaml:11: models.pictures.upstreems: there is no such field here; did you mean `upstreams`?",
        ),
        (
            "key: env:ONE_KEY",
            "key: env:ONE_KEY\n        wieght: 2",
            "gateway.yaml:9: upstreams.one.credentials.0.wieght: there is no such field here; did you mean `weight`?",
        ),
        (
            "models:",
            "limits: {body_bytes: 256 megs}\nmodels:",
            "gateway.yaml:9: limits.body_bytes: must be a number of bytes, such as",
        ),
        (
            "models:",
            "limits: {body_idle: soon}\nmodels:",
            "gateway.yaml:9: limits.body_idle: must be a number of seconds, such as",
        ),
        ("models:", "limits: {body_bytes: 1KB}\nmodels:", "gateway.yaml:9: limits.body_bytes: must be 1048576 or more"),
        ("models:", "rules: [{strategy: cheap}]\nmodels:", "gateway.yaml:9: rules.0.strategy: must be 'cost', "),
        ("kind: anyfast", "kind: 5", "gateway.yaml:4: upstreams.one.kind: must be a text; put it in quotes"),
        ("env:ONE_KEY", "sk-secret", "gateway.yaml:8: upstreams.one.credentials.0.key: must be `env:NAME`"),
        ("https://one.example", "one.example", "gateway.yaml:5: upstreams.one.base_url: must be an http"),
        ("https://one.example", "https://u@one.example", "gateway.yaml:5: upstreams.one.base_url: "),
        ("https://one.example", "https://one.example/v1", "gateway.yaml:5: upstreams.one.base_url: leave out `/v1`"),
        (
            "key: env:ONE_KEY",
            "key: env:ONE_KEY\n        capabilities: {transparent: true}",
            "gateway.yaml:3: upstreams.one: `transparent` is for `openai` only",
        ),
        (
            "key: env:ONE_KEY",
            "key: env:ONE_KEY\n        capabilities: {sizes: [auto]}",
            "gateway.yaml:9: upstreams.one.credentials.0.capabilities.sizes: must be `exact`, or a list",
        ),
        (
            "key: env:ONE_KEY",
            "key: env:ONE_KEY\n        capabilities: {sizes: nearest}",
            "gateway.yaml:9: upstreams.one.credentials.0.capabilities.sizes: must be `exact`, or a list",
        ),
        (
            "key: env:ONE_KEY",
            "key: env:ONE_KEY\n        capabilities: {formats: [gif]}",
            "gateway.yaml:9: upstreams.one.credentials.0.capabilities.formats.0: must be 'png', 'jpeg' or 'webp'",
        ),
        ("https://one.example", "https://one.example?a=b", "gateway.yaml:5: upstreams.one.base_url: "),
        ("https://one.example", "'https://one.example/#a'", "gateway.yaml:5: upstreams.one.base_url: "),
        ("https://one.example", "https://one.example:99999", "gateway.yaml:5: upstreams.one.base_url: "),
        ("https://one.example", "https://one.example:x", "gateway.yaml:5: upstreams.one.base_url: "),
        ("https://one.example", "'http://[::1'", "gateway.yaml:5: upstreams.one.base_url: "),
        (
            "upstreams: [one]",
            "upstreams: [two]",
            "gateway.yaml:11: models.pictures.upstreams: there is no upstream `two`",
        ),
        (
            "upstreams: [one]",
            "upstreams: [one, one]",
            "gateway.yaml:11: models.pictures.upstreams.1: `one` is here twice",
        ),
        (
            "upstreams: [one]",
            "upstreams: []",
            "gateway.yaml:11: models.pictures.upstreams: needs at least 1 entry",
        ),
        ("upstreams: [one]", "upstreams: one", "gateway.yaml:11: models.pictures.upstreams: must be a list, such as"),
        ("default_model: pictures", "default_model: x", "gateway.yaml:1: default_model: there is no model `x`"),
        ("default_model: pictures", "unknown_fields: no", "gateway.yaml:1: unknown_fields: must be 'drop' or 'refuse'"),
        ("models:", "models:\n  pictures: {upstreams: [one]}", "gateway.yaml:11: `pictures` is here twice"),
        ("models:", "aliases:\n  a: {model: x}\nmodels:", "gateway.yaml:10: aliases.a: there is no model `x`"),
        (
            "models:",
            "aliases:\n  pictures: {model: pictures}\nmodels:",
            "gateway.yaml:10: aliases.pictures: a model has",
        ),
        (
            "models:",
            "aliases: {a: {model: b}, b: {model: pictures}}\nmodels:",
            "gateway.yaml:9: aliases.a: there is no",
        ),
        ("models:", "limits: {images: yes}\nmodels:", "gateway.yaml:9: limits.images: must be a whole number"),
        ("models:", "limits: {images: 1.5}\nmodels:", "gateway.yaml:9: limits.images: must be a whole number"),
        (
            "models:",
            "limits: {header_timeout: 0}\nmodels:",
            "gateway.yaml:9: limits.header_timeout: must be more than 0",
        ),
        (
            "key: env:ONE_KEY",
            "key: env:ONE_KEY\n      - key: env:TWO_KEY",
            "gateway.yaml:9: upstreams.one.credentials.1: another credential is named `main`",
        ),
        ("  one:", "  one two:", "gateway.yaml:3: upstreams.one two.[key]: must be of letters, digits and"),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """A mistake stops the start with file, line, field and what would be right."""
    assert old in GOOD
    found = mistakes(tmp_path, GOOD.replace(old, new, 1))
    assert any(line.startswith(expected) for line in found), found
    assert "sk-secret" not in "".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "gateway.yaml:1: the catalogue: must hold fields, each with its value"),
        ("just words", "gateway.yaml:1: the catalogue: must hold fields, each with its value"),
        ("a: [1", "gateway.yaml:1: "),
    ],
)
def test_no_catalogue_is_told(tmp_path: Path, text: str, expected: str) -> None:
    """An empty file, or one that is something else, is refused in one line."""
    found = mistakes(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_sizes_and_durations_have_units(tmp_path: Path) -> None:
    """A size and a duration may be written with a unit, at any depth of the file."""
    path = tmp_path / "gateway.yaml"
    text = GOOD.replace("models:", "limits: {body_bytes: 64MiB, body_idle: 1m, artifact_ttl: 2d}\nmodels:")
    path.write_text(text + "webhooks: {retries: [5s, 1m, 2h]}\n")
    document = read(path)
    assert (document.limits.body_bytes, document.limits.body_idle) == (64 * 2**20, 60)
    assert (document.limits.artifact_ttl, document.webhooks.retries) == (172_800, (5, 60, 7200))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One start shows every mistake of a kind, not the first."""
    broken = GOOD.replace("kind: anyfast", "kind: x").replace("env:ONE_KEY", "k").replace("[one]", "[]")
    assert len(mistakes(tmp_path, broken)) == 3


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    """A file that is missing, or not text, is named."""
    with pytest.raises(CatalogueError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", {})
    (tmp_path / "raw.yaml").write_bytes(b"a: 1\nb: \xff\xfe\n")
    with pytest.raises(CatalogueError, match=r"raw\.yaml:2: not UTF-8"):
        load(tmp_path / "raw.yaml", {})


@pytest.mark.parametrize(
    ("env", "is_on"), [({"ONE_KEY": " k \n"}, True), ({"ONE_KEY": ""}, False), ({"ONE_KEY": "  "}, False), ({}, False)]
)
def test_upstream_is_on_with_its_key(tmp_path: Path, env: dict[str, str], is_on: bool) -> None:
    """Without its key an upstream and the models that need it are off, and the variable is named."""
    catalogue = load(written(tmp_path, GOOD + "aliases: {other: {model: pictures}}\n"), env)
    assert [target.key for target in catalogue.targets] == (["k"] if is_on else [])
    assert catalogue.not_configured == ({} if is_on else {"one": "env:ONE_KEY is not set"})
    assert catalogue.model_names() == (["pictures", "other"] if is_on else [])


def test_one_key_of_two_is_enough(tmp_path: Path) -> None:
    """An upstream with one of its keys is on with that one; with none, all are named."""
    text = GOOD.replace("env:ONE_KEY", "env:ONE_KEY\n      - {name: second, key: env:TWO_KEY}")
    catalogue = load(written(tmp_path, text), {"TWO_KEY": "k2"})
    assert [target.label for target in catalogue.targets] == ["one/second"]
    assert catalogue.not_configured == {}
    assert load(written(tmp_path, text), {}).not_configured == {"one": "env:ONE_KEY, env:TWO_KEY are not set"}


def test_key_comes_from_file(tmp_path: Path) -> None:
    """A key may lie in a file, as container platforms hand secrets out; a missing file is a missing key."""
    secret = tmp_path / "secret"
    path = written(tmp_path, GOOD.replace("env:ONE_KEY", f"file:{secret}"))
    assert load(path, {}).not_configured == {"one": f"file:{secret} is not set"}
    secret.write_text("k-file\n")
    assert load(path, {}).targets[0].key == "k-file"


def test_copied_target_has_its_own_label() -> None:
    """A copy of a target with another credential or key does not keep the first one's label and digest."""
    first = next(one for one in shipped().targets if one.upstream == "anyfast")
    known = (first.label, first.key_digest)
    copy = replace(first, credential="other", key="k-other")
    assert (copy.label, first.label) == ("anyfast/other", known[0])
    assert copy.key_digest != known[1] == first.key_digest


def test_key_file_is_read_again(tmp_path: Path) -> None:
    """A replaced key counts from the next request on, through a link too; a file without a key changes nothing."""
    (tmp_path / "one").write_text("k-1\n")
    (tmp_path / "key").symlink_to("one")
    (target,) = load(written(tmp_path, GOOD.replace("env:ONE_KEY", f"file:{tmp_path / 'key'}")), {}).targets
    digests = {target.key_digest}
    (tmp_path / "one").write_text("k-2")
    assert target.present_key == "k-2"
    digests.add(target.key_digest)
    (tmp_path / "two").write_text("k-3\n")
    (tmp_path / "new").symlink_to("two")
    # As Kubernetes replaces a secret.
    (tmp_path / "new").rename(tmp_path / "key")
    assert target.present_key == "k-3"
    for useless in (b"", b" \n", b"two words", b"\xff\xfe"):
        (tmp_path / "two").write_bytes(useless)
        assert target.present_key == "k-3"
    (tmp_path / "two").unlink()
    assert target.present_key == "k-3"
    assert len(digests | {target.key_digest}) == 3
    assert not any("k-" in digest for digest in digests)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "smart“quote”", "tab\tbed"])
def test_impossible_key_is_refused(tmp_path: Path, key: str) -> None:
    """A key that no header can carry stops the start, and is not shown."""
    with pytest.raises(CatalogueError, match="env:ONE_KEY has a space or a character") as caught:
        load(written(tmp_path, GOOD), {"ONE_KEY": key})
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "key", ['"vk-1234"', "'vk-1234'", '"vk-1234', "vk-1234'", "`vk-1234`", "${KEY}", "$KEY", "<your-key>"]
)
def test_quoted_key_is_refused(tmp_path: Path, key: str) -> None:
    """Quotation marks that a file of variables kept, and a placeholder, stop the start, and are not shown."""
    with pytest.raises(CatalogueError, match=r"env:ONE_KEY (has a quotation mark|holds a placeholder)") as caught:
        load(written(tmp_path, GOOD), {"ONE_KEY": key})
    assert key not in str(caught.value)


def test_binary_key_file_is_refused(tmp_path: Path) -> None:
    """The wrong file as a key is a mistake, not a crash."""
    (tmp_path / "secret").write_bytes(b"\xff\x00")
    with pytest.raises(CatalogueError, match="no key has"):
        load(written(tmp_path, GOOD.replace("env:ONE_KEY", f"file:{tmp_path}/secret")), {})


@pytest.mark.parametrize(("group", "keys"), [("direct", ["sim-direct", "sim-c"]), ("default", ["sim-basic"] * 2)])
def test_simulator_takes_every_upstream(tmp_path: Path, group: str, keys: list[str]) -> None:
    """In demo mode each upstream is the simulator, with its keys, whatever the environment holds."""
    path = written(tmp_path, SHIPPED.read_text().replace("group: direct", f"group: {group}"))
    catalogue = load(path, KEYS, simulator_url="http://127.0.0.1:1/")
    assert catalogue.is_simulated
    assert catalogue.not_configured == {}
    assert [target.key for target in catalogue.targets] == [*keys, "sim-apiany"]
    assert [target.config.base_url for target in catalogue.targets] == [
        "http://127.0.0.1:1/anyfast",
        "http://127.0.0.1:1/anyfast",
        "http://127.0.0.1:1/apiany",
    ]
    assert [target.profile for target in catalogue.targets] == [target.profile for target in load(path, KEYS).targets]


def test_simulator_takes_compatible_endpoints() -> None:
    """In demo mode OpenAI's own models and an endpoint's of its own are the same stand-in, under two keys."""
    catalogue = load(CONFIG / "examples" / "openai.yaml", {}, simulator_url="http://127.0.0.1:1")
    assert {target.config.base_url for target in catalogue.targets} == {"http://127.0.0.1:1/openai"}
    assert [target.key for target in catalogue.targets] == ["sim-openai", "sim-compatible"]
    assert catalogue.unpriced() == []


@pytest.mark.parametrize(
    ("name", "upstreams", "response_format"),
    [
        ("gpt-image-2", ["anyfast-c", "apiany", "anyfast"], None),
        ("gpt-image-1", ["anyfast-c", "apiany", "anyfast"], "b64_json"),
        ("dall-e-3", ["anyfast-c", "apiany", "anyfast"], "url"),
        ("apiany/gpt-image-2", ["apiany"], None),
    ],
)
def test_names_find_their_model(name: str, upstreams: list[str], response_format: str | None) -> None:
    """A model's targets come in its own order, and an alias brings its model and answer's form."""
    catalogue = shipped()
    found = catalogue.find_model(name)
    assert found is not None
    model, alias = found
    assert [target.upstream for target in catalogue.targets_of(model)] == upstreams
    assert (alias.response_format if alias else None) == response_format
    assert name in catalogue.model_names()


def test_unknown_name_finds_nothing() -> None:
    """A model nobody configured is none."""
    assert shipped().find_model("dall-e-9") is None


def test_models_without_upstream_are_not_listed() -> None:
    """Only what can be served is listed."""
    catalogue: Catalogue = shipped(without="APIANY_API_KEY")
    assert "apiany/gpt-image-2" not in catalogue.model_names()
    assert "gpt-image-2" in catalogue.model_names()


def test_base_url_loses_its_slash(tmp_path: Path) -> None:
    """A base URL may end in a slash and may have a path."""
    path = written(tmp_path, GOOD.replace("https://one.example", "https://one.example:8443/relay/"))
    assert load(path, {"ONE_KEY": "k"}).targets[0].config.base_url == "https://one.example:8443/relay"
