"""The service described by itself: OpenAPI from the structs that it decodes, and a page that needs
nothing from the network."""

import html
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dimerec import __version__
from dimerec.serving import wire
from dimerec.serving.routes import Route

REF = "#/components/schemas/{name}"
GUARDED = ("overloaded", "rate-limited")
WITH_BODY = ("bad-request", "bad-type", "too-large", "too-slow", "gone")
WITH_TOKEN = ("unauthenticated", "forbidden")


def openapi(routes: Sequence[Route], statuses: Mapping[str, int]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `routes`; `statuses` of their errors' codes."""
    structs = {route.request for route in routes} | {route.answer for route in routes}
    kinds = [*(s for s in structs if s is not None), wire.ErrorResponse]
    kinds.sort(key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, statuses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DimeRec",
            "version": __version__,
            "description": "Sequential recommendation: histories in, items out.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: _described(name, schema) for name, schema in schemas.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, statuses: Mapping[str, int]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "summary": route.about,
        "operationId": f"{route.method.lower()}{re.sub('[^a-z]+', '_', route.path)}".strip("_"),
        "responses": {"200": {"description": "Done.", "content": _content(route.answer)}},
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query is not None:
        schema = msgspec.json.schema_components([route.query])[1][route.query.__name__]
        needed = schema.get("required", [])
        for name, kind in schema["properties"].items():
            parameters.append(
                {"name": name, "in": "query", "required": name in needed, "schema": kind}
            )
    if parameters:
        out["parameters"] = parameters
    codes = set(route.errors)
    if not route.always:
        codes.update(GUARDED)
    if route.request is not None:
        codes.update(WITH_BODY)
        out["requestBody"] = {"required": True, "content": _content(route.request)}
    if parameters:
        codes.add("bad-request")
    if route.role is not None:
        codes.update(WITH_TOKEN)
        out["security"] = [{"token": []}, {}]
        out["description"] = f"Needs a token with the role `{route.role}`, where there are tokens."
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(statuses[code], []).append(code)
    for status, some in sorted(by_status.items()):
        out["responses"][str(status)] = _problem(status, some)
    return out


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "description": ", ".join(codes),
        "content": _content(wire.ErrorResponse),
    }
    if status in (429, 503) and codes != ["not-ready"]:
        out["headers"] = {
            "Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}
        }
    return out


def _content(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {"text/plain": {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}}}


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A struct's schema with its docstring taken apart: a description of each field."""
    about, _, rest = inspect.cleandoc(schema.get("description", "")).partition("\nAttributes:\n")
    out = {**schema, "description": " ".join(about.split("\nRaises:")[0].split())}
    rest = rest.partition("\nRaises:")[0]
    properties = {key: dict(value) for key, value in schema.get("properties", {}).items()}
    for names, words in re.findall(r"^    ([\w, ]+): (.*(?:\n     .*)*)", rest, re.MULTILINE):
        for key in names.split(", "):
            if key in properties and "$ref" not in properties[key]:
                properties[key]["description"] = " ".join(words.split())
    return {**out, "properties": properties} if properties else out


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{background:#8882;padding:.6rem;overflow:auto;border-radius:.3rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.2rem .6rem .2rem 0;border-bottom:1px solid #8884}h2 code{font-size:1em}.method{color:#06c}
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}.method{color:#8bf}}
"""


def page(described: Mapping[str, Any]) -> str:
    """An HTML page of the OpenAPI document `described`; it loads nothing."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>DimeRec service</title><style>{STYLE}</style><h1>DimeRec service</h1>",
        f"<p>{html.escape(described['info']['description'])} Version {__version__}. ",
        "<a href=openapi.json>openapi.json</a> is the same for programs.</p>",
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts += _section(path, method, operation)
    parts.append("<h1>Bodies</h1>")
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts.append(f"<h2 id={name}><code>{name}</code></h2>")
        parts.append(f"<p>{_words(schema.get('description', ''))}</p>")
        parts.append("<table><tr><th>field<th>type<th>default<th>about")
        needed = schema.get("required", [])
        for key, field in schema.get("properties", {}).items():
            default = "" if key in needed else html.escape(repr(field.get("default")))
            about = _words(field.get("description", ""))
            parts.append(f"<tr><td><code>{key}</code><td>{_type(field)}<td>{default}<td>{about}")
        parts.append("</table>")
    return "".join(parts)


def _section(path: str, method: str, operation: Mapping[str, Any]) -> list[str]:
    url = f"http://127.0.0.1:8000{path.replace('{user}', 'USER')}"
    command = f"curl -X {method.upper()} {url}"
    out = [f"<h2><code><span class=method>{method.upper()}</span> {path}</code></h2>"]
    out.append(f"<p>{_words(operation['summary'])} {_words(operation.get('description', ''))}</p>")
    if "requestBody" in operation:
        kind = operation["requestBody"]["content"]["application/json"]["schema"]
        out.append(f"<p>Body: {_type(kind)}</p>")
        command += " -H 'Content-Type: application/json' -d @body.json"
    out.append(f"<pre>{html.escape(command)}</pre><table><tr><th>status<th>answer")
    for status, response in operation["responses"].items():
        (kind,) = response["content"].values()
        words = f"{_type(kind['schema'])}: {_words(response['description'])}"
        out.append(f"<tr><td>{status}<td>{words}")
    return [*out, "</table>"]


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href=#{name}>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}{_bounds(schema, 'Items')}"
    return html.escape(str(schema.get("type", "any"))) + _bounds(schema, "Length")


def _bounds(schema: Mapping[str, Any], what: str) -> str:
    low = schema.get("minimum", schema.get(f"min{what}"))
    high = schema.get("maximum", schema.get(f"max{what}"))
    if low is None and high is None:
        return ""
    return f" ({'' if low is None else low}..{'' if high is None else high})"


def _words(text: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text))
