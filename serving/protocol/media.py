"""Bodies that are one row: an image file, a text, one tensor's little-endian bytes. Heads are in `X-Polyhead-Heads`."""

from __future__ import annotations

from polyhead.models.spec import ImageInput, InputSpec, ModelSpec, TensorInput, TextInput
from polyhead.serving.errors import UnsupportedMediaType
from polyhead.serving.protocol import images, rows
from polyhead.serving.protocol.headsheader import named_heads
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.protocol.octets import Octets
from polyhead.serving.request import HttpRequest, Query, Values
from polyhead.serving.settings import Settings

__all__ = ["MEDIA_TYPES", "decode", "media_types"]

IMAGES = ("image/png", "image/jpeg")
TEXT = "text/plain"
TENSOR = "application/octet-stream"
MEDIA_TYPES = (*IMAGES, TEXT, TENSOR)


def decode(request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:
    """A body that is one row to a query.

    Raises:
        RequestError: it does not fit the model's only input.
    """
    if request.content_type not in media_types(spec):
        raise UnsupportedMediaType(
            f"media type {request.content_type} does not fit model {spec.name}, whose inputs are "
            f"{', '.join(f'{n} ({s.kind})' for n, s in spec.inputs.items())}: "
            f"send {' or '.join((*media_types(spec), 'application/json'))}"
        )
    name, only = next(iter(spec.inputs.items()))
    if isinstance(only, TensorInput) and not only.free:
        return Octets(spec, settings).decode(request, spec, settings)
    heads = named_heads(spec, request.headers)
    inputs = {name: _row(name, only, request, settings)}
    require_lengths(spec, inputs, single=True)
    return Query(1, inputs, heads, single=True)


def media_types(spec: ModelSpec) -> tuple[str, ...]:
    """The media types whose whole body is one row of this model."""
    if len(spec.inputs) != 1:
        return ()
    match next(iter(spec.inputs.values())):
        case ImageInput():
            return IMAGES
        case TensorInput():
            return (TENSOR,)
        case TextInput():
            return (TEXT,)


def _row(name: str, spec: InputSpec, request: HttpRequest, settings: Settings) -> Values:
    if isinstance(spec, TextInput):
        return [rows.from_utf8(name, request.body, ())]
    if isinstance(spec, ImageInput):
        return images.decode(request.body, spec, images.PixelBudget(settings.max_image_pixels), ())[None]
    array = rows.from_bytes(name, spec, request.body, ())
    return [array[0]] if spec.free else array
