"""The API's description: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence

from beam_retrain.pipelines.serve.guard import MAX_BODY_BYTES
from beam_retrain.pipelines.serve.rest import MAX_IMAGES

Schema = Mapping[str, object]


def describe(name: str, labels: Sequence[str]) -> Schema:
  """Returns the document; its paths are those that programs use."""
  text: Schema = {"type": "string"}
  number: Schema = {"type": "number", "minimum": 0, "maximum": 1}
  image = _object({"b64": {"type": "string", "format": "byte"}}, ["b64"])
  rows = _list(_object({"key": text, "image_bytes": image}, ["image_bytes"]))
  columns = _object({"key": _list(text), "image_bytes": _list(image)}, ["image_bytes"])
  label: Schema = {"type": "string", "examples": list(labels[:20])}
  fields: Mapping[str, Schema] = {
    **{"key": text, "label": label, "confidence": number},
    **{"top_labels": _list(label), "top_scores": _list(number), "scores": _list(number)},
  }
  bodies = [_object({"instances": rows}, ["instances"]), _object({"inputs": columns}, ["inputs"])]
  outputs = _object({field: _list(what) for field, what in fields.items()})
  predicted = {"oneOf": [_object({"predictions": _list(_object(fields))}), _object({"outputs": outputs})]}
  model = f"/v1/models/{name}"
  return {
    "openapi": "3.1.0",
    "info": {"title": f"beam-retrain: {name}", "version": importlib.metadata.version("beam-retrain")},
    "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    "paths": {
      f"{model}:predict": {
        "post": {
          "summary": f"Labels 1 to {MAX_IMAGES} images, in rows or in columns, as TensorFlow Serving does",
          "security": [{"token": []}, {}],
          "requestBody": {"required": True, "content": {"application/json": {"schema": {"oneOf": bodies}}}},
          "responses": {
            "200": _answer("The labels, in the order of the images", predicted),
            "400": _fault("The body is wrong, or an image cannot be used: it says which, and why"),
            "413": _fault(f"The body has more than {MAX_BODY_BYTES} bytes"),
            "503": _fault("Too many images wait: ask again after Retry-After"),
          },
        }
      },
      model: _get("Says that the model is there", {"type": "object"}),
      "/healthz": _get("Says ok", text, "text/plain"),
      "/metrics": _get("Counts requests, images and faults, for Prometheus", text, "text/plain"),
    },
  }


def _object(properties: Schema, required: Sequence[str] = ()) -> Schema:
  return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _list(of: Schema) -> Schema:
  return {"type": "array", "items": of}


def _answer(what: str, schema: Schema, kind: str = "application/json") -> Schema:
  return {"description": what, "content": {kind: {"schema": schema}}}


def _fault(what: str) -> Schema:
  return _answer(what, _object({"error": {"type": "string"}}))


def _get(what: str, schema: Schema, kind: str = "application/json") -> Schema:
  return {"get": {"summary": what, "security": [{"token": []}, {}], "responses": {"200": _answer(what, schema, kind)}}}
