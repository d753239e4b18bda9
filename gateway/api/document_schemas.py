"""The schemas of the callers' OpenAPI document: requests from the table of parameters, and the gateway's answers."""

from __future__ import annotations

from typing import Any

from gateway import errors
from gateway.api.key import HIDDEN
from gateway.callers.key_record import KeyRecord
from gateway.jobs.job import Operation
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES, Parameter

Schema = dict[str, Any]

MOST_IMAGES = 16

_TEXT = "^[^\\u0000]*$"
_DOLLARS: Schema = {"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{6}$"}
_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NULL: Schema = {"type": "null"}
_STRINGS: Schema = {"type": "array", "items": _STRING}
_LINK: Schema = {"type": "string", "pattern": "^([hH][tT][tT][pP][sS]?://|[dD][aA][tT][aA]:)"}
_FILE: Schema = {"type": "string", "format": "binary"}


def refer(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


def make_object(required: Schema, optional: Schema | None = None, about: str = "") -> Schema:
    """The schema of an object with these properties. It allows others, since a later version may add some."""
    made: Schema = {"type": "object", "properties": required | (optional or {}), "required": list(required)}
    return made | ({"description": about} if about else {})


def describe_parameter(parameter: Parameter) -> Schema:
    """The schema of a checked parameter's value, without the values that count as absent."""
    if parameter.kind == "text":
        return {"type": "string", "maxLength": parameter.most, "pattern": parameter.pattern or _TEXT}
    if parameter.kind == "integer":
        return {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
    if parameter.kind == "boolean":
        return {"type": "boolean"}
    others = [value.lower() for value in parameter.values] if parameter.ignores_case else []
    return {"type": "string", "enum": [*parameter.values, *others]}


def describe_request(operation: Operation, *, is_form: bool = False) -> Schema:
    """The schema of a request's body. It has every parameter of the table, and the other names of pictures."""
    properties: Schema = {}
    prefixes: Schema = {}
    for name, parameter in PARAMETERS.items():
        if parameter.use == "refused":
            place = prefixes if name.endswith("*") else properties
            key = f"^{name.rstrip('*')}" if name.endswith("*") else name
            place[key] = refer("Absent") | {"description": parameter.about}
        elif parameter.kind != "pictures":
            properties[name] = _describe_property(parameter)
    for name in PICTURE_NAMES:
        if operation == "generation":
            properties[name] = refer("Absent") | {"description": "Belongs to edits."}
        elif is_form:
            properties |= _describe_parts(name)
        else:
            properties[name] = _describe_pictures(name)
    made: Schema = {
        "type": "object",
        "description": "Other fields are dropped and reported in `x-gateway-dropped-params`, or refused, as the "
        "operator decides. A name that is nearly one of these is refused.",
        "properties": properties,
        "patternProperties": prefixes,
        "required": [name for name, parameter in PARAMETERS.items() if parameter.is_required],
    }
    if operation == "edit":
        names = [name for name in properties if not name.startswith("mask") and name.split("[")[0] in PICTURE_NAMES]
        made["anyOf"] = [{"required": [name]} for name in names]
    return made


def _describe_property(parameter: Parameter) -> Schema:
    value = describe_parameter(parameter)
    about: Schema = {"description": parameter.about}
    if parameter.default is not None:
        about["default"] = parameter.default
    return (value if parameter.is_required else {"anyOf": [value, refer("Absent")]}) | about


def _about_pictures(name: str) -> Schema:
    meant = PICTURE_NAMES[name]
    if name in PARAMETERS:
        return {"description": PARAMETERS[name].about}
    return {"description": f"Another name of `{meant}`.", "deprecated": True}


def _describe_pictures(name: str) -> Schema:
    one, most = refer("ImageReference"), 1 if PICTURE_NAMES[name] == "mask" else MOST_IMAGES
    several = {"type": "array", "items": one, "maxItems": most}
    return {"anyOf": [*([] if name == "images" else [one]), several, refer("Absent")]} | _about_pictures(name)


def _describe_parts(name: str) -> Schema:
    """The properties for one name of pictures in a form: one file as the name, several as the name with `[]`."""
    most = 1 if PICTURE_NAMES[name] == "mask" else MOST_IMAGES
    about = _about_pictures(name)
    return {
        name: _FILE | about,
        f"{name}[]": {"type": "array", "items": _FILE, "minItems": 1, "maxItems": most} | about,
    }


def describe_schemas() -> dict[str, Schema]:
    """Every schema of the document. The keys are the names of the schemas."""
    return {
        "Absent": {"enum": [None, ""], "description": "Null and an empty text count as absent, for every parameter."},
        "ImageReference": {
            "description": "An https URL, or a base64 data URL of a PNG, JPEG or WebP.",
            "anyOf": [_LINK, make_object({"image_url": _LINK}, {"file_id": _NULL})],
        },
        "GenerationRequest": describe_request("generation"),
        "EditRequest": describe_request("edit"),
        "EditForm": describe_request("edit", is_form=True),
        **_answers(),
        **_tasks(),
        **_others(),
        **_errors(),
    }


def _answers() -> dict[str, Schema]:
    tokens = make_object({"text_tokens": _INTEGER, "image_tokens": _INTEGER})
    counts = {"input_tokens": _INTEGER, "output_tokens": _INTEGER, "total_tokens": _INTEGER}
    described = {"background": {"enum": ["opaque", "transparent"]}, "output_format": {"enum": ["png", "jpeg", "webp"]}}
    described |= {"size": {"type": "string", "pattern": "^[0-9]+x[0-9]+$"}}
    image = make_object({}, {"b64_json": _STRING, "url": _STRING, "revised_prompt": _STRING}, "The bytes, or a link.")
    gateway = make_object(
        {
            "task": _STRING,
            "index": _INTEGER,
            "upstream": _STRING,
            "cost_usd": or_null(_DOLLARS),
            "size": _STRING,
            "dropped": _STRINGS,
        },
        {
            "url": _STRING | {"description": "The link, where `response_format` is `url`."},
            "partial_images": _STRING | {"description": "Sent and requested partial images, as in `0/2`."},
        },
        "The facts that are in headers elsewhere.",
    )
    kinds = ["image_generation.completed", "image_edit.completed"]
    event = {"type": {"enum": kinds}, "b64_json": _STRING, "created_at": _INTEGER, **described}
    event |= {"quality": {"enum": ["low", "medium", "high", "auto"]}, "gateway": gateway}
    return {
        "Usage": make_object(counts, {"input_tokens_details": tokens}, "Tokens as the upstream counted them."),
        "Image": image | {"anyOf": [{"required": ["b64_json"]}, {"required": ["url"]}]},
        "ImagesAnswer": make_object(
            {"created": _INTEGER, **described, "data": {"type": "array", "items": refer("Image"), "minItems": 1}},
            {"quality": {"enum": ["low", "medium", "high"]}, "usage": refer("Usage")},
        ),
        "ImageEvent": make_object(event, {"usage": refer("Usage"), "revised_prompt": _STRING}),
        "Plan": _plan(),
    }


def _plan() -> Schema:
    """The schema of a dry run's answer."""
    money, text, number = or_null(_DOLLARS), or_null(_STRING), _INTEGER
    choice = {
        "target": _STRING,
        "upstream": _STRING,
        "price_usd": money,
        "price_per_image_usd": money,
        "held_usd": money,
    }
    choice |= {"size": text, "quality": text, "calls": number, "images_per_call": number}
    choice |= {"compensation": _STRINGS, "dropped": _STRINGS, "reason": _STRING}
    rejection = {"target": _STRING, "upstream": _STRING, "reason": _STRING, "param": _STRING}
    return make_object(
        {
            "object": {"const": "image.plan"},
            "model": _STRING,
            "operation": {"enum": ["generation", "edit"]},
            "n": number,
            "size": _STRING,
            "quality": _STRING,
            "references": number,
            "mask": {"type": "boolean"},
            "strategy": _STRING,
            "rule": text,
            "note": text,
            "choices": {"type": "array", "items": make_object(choice)},
            "rejections": {"type": "array", "items": make_object(rejection)},
            "refusal": or_null(refer("Error")),
        },
        about="The answer of a dry run: the upstreams in the order of trial, with their prices.",
    )


def _tasks() -> dict[str, Schema]:
    statuses = ["pending", "processing", "succeeded", "failed", "canceled", "expired"]
    task = {
        "task_id": _STRING,
        "object": {"const": "image.task"},
        "status": {"enum": statuses},
        "created_at": _INTEGER,
        "completed_at": or_null(_INTEGER),
        "model": _STRING,
        "poll_url": _STRING,
        "cost_usd": or_null(_DOLLARS),
        "error": or_null(refer("Error")),
        "result": or_null(refer("ImagesAnswer")),
    }
    return {"Task": make_object(task), "TaskList": _list_of("Task", {"has_more": {"type": "boolean"}})}


def _list_of(name: str, more: Schema | None = None) -> Schema:
    return make_object({"object": {"const": "list"}, "data": {"type": "array", "items": refer(name)}} | (more or {}))


def _others() -> dict[str, Schema]:
    model = {"id": _STRING, "object": {"const": "model"}, "created": _INTEGER, "owned_by": _STRING}
    amount = {"anyOf": [_DOLLARS, _INTEGER]}
    limit = {"limit": _STRING, "scope": {"enum": ["key", "team"]}, "ceiling": amount, "used": amount, "left": amount}
    limit |= {"resets": or_null({"type": "string", "format": "date-time"})}
    windows = {"window": {"enum": ["total", "month", "week", "day"]}, "usd": _DOLLARS, "usd_held": _DOLLARS}
    limits = {"type": "array", "items": make_object(limit)}
    spent = {"type": "array", "items": make_object(windows | {"images": _INTEGER})}
    record = KeyRecord.model_json_schema(mode="serialization")["properties"]
    own = {name: schema for name, schema in record.items() if name not in HIDDEN}
    return {
        "Model": make_object(model),
        "ModelList": _list_of("Model"),
        "Key": make_object({"object": {"const": "key"}, **own, "limits": limits, "spent": spent}),
        "Health": make_object({"status": {"const": "ok"}}),
        "Unready": make_object({"status": {"const": "unavailable"}, "problems": {"type": "object"}}),
    }


def _errors() -> dict[str, Schema]:
    kinds = {kind.code: kind.meaning for kind in errors.table() if kind not in errors.OF_OPERATORS}
    types = list(dict.fromkeys(kind.type for kind in errors.table()))
    facts = {"message": _STRING, "type": {"enum": types}, "param": or_null(_STRING), "code": refer("ErrorCode")}
    lines = "\n".join(f"- `{code}`: {meaning}" for code, meaning in kinds.items())
    return {
        "ErrorCode": {"enum": [*kinds], "description": f"The codes of errors:\n{lines}"},
        "Error": make_object(facts, about="The message says what is wrong and what would be right."),
        "ErrorAnswer": make_object({"error": refer("Error")}, about="The form of every error, as OpenAI's."),
    }
