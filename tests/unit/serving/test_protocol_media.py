from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyhead.models.spec import ImageInput, ModelSpec
from polyhead.serving.collate import collate
from polyhead.serving.errors import MalformedBody, PayloadTooLarge, RequestError
from polyhead.serving.golden import Array
from polyhead.serving.protocol import images, media
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.settings import Settings

HEADS = {"digit": {"kind": "regression"}, "ink": {"kind": "regression"}}
COLORS = np.random.default_rng(3).integers(0, 256, (4, 6, 3)).astype(np.uint8)  # height 4, width 6


def _spec(**inputs: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1.0", "inputs": inputs, "heads": HEADS})


def _image(height: int, width: int, channels: str = "rgb", resize: str = "none") -> ImageInput:
    return ImageInput(kind="image", size=(height, width), channels=channels, resize=resize)


def _decode(
    body: bytes, content_type: str, spec: ModelSpec, headers: Mapping[str, str] | None = None, **limits: int
) -> Query:
    return media.decode(HttpRequest(body, content_type, headers or {}), spec, Settings(**limits))


def _values(body: bytes, spec: ModelSpec) -> np.ndarray:
    """The array that a tensor body becomes."""
    (batch,) = collate(spec, [_decode(body, OCTETS, spec)], 100)
    return batch.inputs["x"]


def _file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, color: int, pixels: bytes | None) -> bytes:
    """A PNG made by hand; without pixels it has a header only, so that decompressing it must fail."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    data = b"" if pixels is None else _chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + data + _chunk(b"IEND", b"")


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "expected"),
    [("rgb", COLORS), ("bgr", COLORS[..., ::-1])],
)
def test_png_pixels_come_in_the_channel_order_of_the_spec(channels: str, expected: Array):
    pixels = images.decode(_file(Image.fromarray(COLORS)), _image(4, 6, channels), images.PixelBudget(10_000), ())
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


def test_gray_is_read_from_gray_exactly_and_from_color_by_luma():
    gray = COLORS[..., 0]
    exact = images.decode(_file(Image.fromarray(gray)), _image(4, 6, "gray"), images.PixelBudget(10_000), ())
    np.testing.assert_array_equal(exact, gray[..., None])
    mixed = images.decode(_file(Image.fromarray(COLORS)), _image(4, 6, "gray"), images.PixelBudget(10_000), ())
    assert mixed.shape == (4, 6, 1)
    np.testing.assert_allclose(mixed[..., 0], COLORS @ [0.299, 0.587, 0.114], atol=1)


def test_gray_files_fill_all_three_channels():
    gray = COLORS[..., 0]
    pixels = images.decode(_file(Image.fromarray(gray)), _image(4, 6), images.PixelBudget(10_000), ())
    np.testing.assert_array_equal(pixels, np.repeat(gray[..., None], 3, axis=2))


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_jpeg_colors_are_kept(channels: str):
    data = _file(Image.new("RGB", (16, 8), (200, 100, 30)), "JPEG", quality=95)
    pixels = images.decode(data, _image(8, 16, channels), images.PixelBudget(10_000), ())
    expected = (200, 100, 30) if channels == "rgb" else (30, 100, 200)
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 3


def test_cmyk_jpeg_is_read_as_color():
    data = _file(Image.new("RGB", (8, 8), (200, 100, 30)).convert("CMYK"), "JPEG", quality=95)
    pixels = images.decode(data, _image(8, 8), images.PixelBudget(10_000), ())
    assert np.abs(pixels.astype(int) - (200, 100, 30)).max() <= 4


@pytest.mark.parametrize("resize", ["none", "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_an_image_of_the_right_size_is_never_resampled(resize: str):
    pixels = images.decode(_file(Image.fromarray(COLORS)), _image(4, 6, resize=resize), images.PixelBudget(10_000), ())
    np.testing.assert_array_equal(pixels, COLORS)


def test_nearest_repeats_pixels():
    pixels = images.decode(
        _file(Image.fromarray(COLORS)), _image(8, 18, resize="nearest"), images.PixelBudget(10_000), ()
    )
    np.testing.assert_array_equal(pixels, COLORS.repeat(2, axis=0).repeat(3, axis=1))


def test_box_averages_pixels():
    pixels = images.decode(_file(Image.fromarray(COLORS)), _image(2, 3, resize="box"), images.PixelBudget(10_000), ())
    means = COLORS.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(pixels, means, atol=1)


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "hamming", "lanczos"])
def test_each_resize_rule_is_the_filter_of_its_name(resize: str):
    pixels = images.decode(_file(Image.fromarray(COLORS)), _image(3, 5, resize=resize), images.PixelBudget(10_000), ())
    expected = Image.fromarray(COLORS).resize((5, 3), getattr(Image.Resampling, resize.upper()))
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_an_image_of_another_size_is_refused_without_a_resize_rule():
    with pytest.raises(RequestError) as caught:
        images.decode(
            _file(Image.fromarray(COLORS)), _image(6, 4), images.PixelBudget(10_000), ("instances", 2, "image")
        )
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "invalid_instance", ("instances", 2, "image"))
    assert error.message == "image of 6 x 4 pixels, the model takes 4 x 6: resize it"


RED = np.zeros((4, 6, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
ODD_FILES = {
    "RGBA": (_file(Image.new("RGBA", (6, 4), (255, 0, 0, 255))), RED),
    "RGBA, transparent": (_file(Image.new("RGBA", (6, 4), (255, 0, 0, 0))), RED),
    "palette": (_file(Image.new("RGB", (6, 4), (255, 0, 0)).quantize(4)), RED),
    "palette with a transparent entry": (
        _file(Image.new("RGB", (6, 4), (255, 0, 0)).quantize(4), transparency=0),
        RED,
    ),
    "gray with alpha": (_file(Image.new("LA", (6, 4), (9, 0))), np.full((4, 6, 3), 9, np.uint8)),
    "one bit": (_file(Image.new("1", (6, 4), 1)), np.full((4, 6, 3), 255, np.uint8)),
    "16 bit color": (
        _png(6, 4, 16, 2, (b"\0" + struct.pack(">3H", 0x1234, 0x80FF, 0xFF00) * 6) * 4),
        np.zeros((4, 6, 3), np.uint8) + np.array([0x12, 0x80, 0xFF], np.uint8),
    ),
    "interlace of none, filter of none": (_png(6, 4, 8, 2, (b"\0" + b"\xff\0\0" * 6) * 4), RED),
}


@pytest.mark.parametrize("name", list(ODD_FILES))
def test_other_kinds_of_png_become_eight_bit_color(name: str):
    data, expected = ODD_FILES[name]
    np.testing.assert_array_equal(images.decode(data, _image(4, 6), images.PixelBudget(10_000), ()), expected)


@pytest.mark.parametrize("channels", ["gray", "rgb", "bgr"])
def test_a_16_bit_gray_png_has_the_shape_of_the_spec(channels: str):
    data = _file(Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6)))
    pixels = images.decode(data, _image(4, 6, channels), images.PixelBudget(10_000), ())
    assert pixels.shape == (4, 6, 1 if channels == "gray" else 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pixels_are_taken_as_stored_whatever_exif_says_of_orientation(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG"):
        plain, turned = (
            _file(Image.fromarray(COLORS), kind, **more)  # type: ignore[arg-type]
            for more in ({}, {"exif": exif})
        )
        assert plain != turned
        a, b = (images.decode(data, _image(4, 6), images.PixelBudget(10_000), ()) for data in (plain, turned))
        np.testing.assert_array_equal(a, b)


NOISE = _file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)))
NO_IMAGES = {
    "no bytes": b"",
    "zero bytes": b"\0" * 100,
    "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "GIF": _file(Image.fromarray(COLORS), "GIF"),
    "BMP": _file(Image.fromarray(COLORS), "BMP"),
    "TIFF": _file(Image.fromarray(COLORS), "TIFF"),
    "PNG cut in its signature": NOISE[:5],
    "PNG cut in its header": NOISE[:20],
    "PNG cut in its pixels": NOISE[: len(NOISE) // 2],
    "PNG without pixels": _png(64, 64, 8, 2, None),
    "PNG of no width": _png(0, 4, 8, 2, b""),
    "PNG with too few pixels": _png(64, 64, 8, 2, b"\0" * 100),
    "PNG with a wrong checksum": NOISE[:60] + bytes([NOISE[60] ^ 1]) + NOISE[61:],
    "JPEG cut in its pixels": _file(Image.open(io.BytesIO(NOISE)), "JPEG")[:1500],
    "JPEG marker alone": b"\xff\xd8\xff",
}


@pytest.mark.parametrize("name", list(NO_IMAGES))
def test_what_is_no_whole_png_or_jpeg_is_malformed(name: str):
    data = NO_IMAGES[name]
    with pytest.raises(RequestError) as caught:
        images.decode(data, _image(64, 64), images.PixelBudget(10_000), ("instances", 0, "image", "b64"))
    error = caught.value
    assert (error.status, error.type, error.loc) == (400, "malformed_body", ("instances", 0, "image", "b64"))
    assert error.message == f"the {len(data)} bytes are no whole PNG or JPEG image: send the file as it is"


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (1, 50_000_001), (50_000_001, 1), (13_000, 13_000)])
def test_too_many_pixels_are_refused_by_the_header_alone(width: int, height: int):
    data = _png(width, height, 8, 2, None)  # to decompress it would be another error
    with pytest.raises(RequestError) as caught:
        images.decode(data, _image(64, 64, resize="bilinear"), images.PixelBudget(50_000_000), ())
    error = caught.value
    assert (error.status, error.type) == (413, "payload_too_large")
    assert error.message == f"image of {width} x {height} pixels: allowed are 50000000 in all (max_image_pixels)"


def test_no_limit_but_ours_counts():
    data = _png(20_000, 10_000, 1, 0, None)  # more pixels than Pillow opens by itself
    with pytest.raises(MalformedBody):  # there are none
        images.decode(data, _image(64, 64, resize="bilinear"), images.PixelBudget(200_000_000), ())
    assert Image.MAX_IMAGE_PIXELS is not None  # as whoever else uses Pillow has it


@pytest.mark.parametrize("side", [20_000, 100_000, 2**31 - 1, 2**32 - 1])
def test_a_huge_declared_size_is_refused(side: int):
    with pytest.raises(RequestError) as caught:
        images.decode(
            _png(side, side, 8, 2, None), _image(64, 64, resize="bilinear"), images.PixelBudget(50_000_000), ()
        )
    assert caught.value.status in (400, 413)


def test_the_pixel_limit_is_the_setting():
    spec = _spec(image={"kind": "image", "size": [4, 6]})
    data = _file(Image.fromarray(COLORS))
    assert _decode(data, "image/png", spec, max_image_pixels=24).rows == 1
    with pytest.raises(RequestError) as caught:
        _decode(data, "image/png", spec, max_image_pixels=23)
    assert (caught.value.status, caught.value.loc) == (413, ())


@pytest.mark.parametrize("channels", ["gray", "rgb", "bgr"])
def test_what_encode_png_writes_decode_reads_back(channels: str):
    spec = _image(4, 6, channels)
    pixels = COLORS[..., : spec.depth]
    data = images.encode_png(pixels, spec)
    np.testing.assert_array_equal(images.decode(data, spec, images.PixelBudget(10_000), ()), pixels)
    np.testing.assert_array_equal(images.decode(bytearray(data), spec, images.PixelBudget(10_000), ()), pixels)
    if channels == "bgr":  # the file itself is red, green, blue, as every PNG
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels[..., ::-1])


def _shape_or_status(data: bytes) -> tuple[int, ...] | int:
    try:
        return images.decode(data, _image(5, 5, resize="bilinear"), images.PixelBudget(10_000), ()).shape
    except RequestError as error:
        return error.status


@settings(max_examples=200, deadline=None, database=None)
@given(at=st.integers(0, 400), new=st.binary(max_size=4), jpeg=st.booleans())
def test_a_damaged_image_is_read_or_refused(at: int, new: bytes, jpeg: bool):
    data = _file(Image.fromarray(COLORS), "JPEG" if jpeg else "PNG")
    data = data[: at % len(data)] + new + data[at % len(data) + len(new) :]
    assert _shape_or_status(data) in ((5, 5, 3), 400, 413)


# --- whole bodies ---------------------------------------------------------------------------------------------------

PICTURE = _spec(image={"kind": "image", "size": [4, 6], "resize": "none"})
TENSOR = _spec(x={"kind": "tensor", "shape": [3]})
FREE = _spec(x={"kind": "tensor", "shape": ["steps", 3]})
TWO_FREE = _spec(x={"kind": "tensor", "shape": ["steps", "width"]})
MANY = _spec(x={"kind": "tensor", "shape": [3]}, image={"kind": "image", "size": [4, 6]})
TEXT = _spec(text={"kind": "text", "tokenizer": "t.json"})
OCTETS = "application/octet-stream"


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg"])
def test_an_image_body_is_one_row_by_itself(content_type: str):
    query = _decode(_file(Image.fromarray(COLORS)), content_type, PICTURE)
    assert query.single
    assert query.rows == 1
    assert query.heads == ("digit", "ink")
    np.testing.assert_array_equal(query.inputs["image"], COLORS[None])


def test_a_tensor_body_is_little_endian():
    query = _decode(struct.pack("<3f", 1.0, -2.5, 3e38), OCTETS, TENSOR)
    assert query.single
    assert query.rows == 1
    values = _values(struct.pack("<3f", 1.0, -2.5, 3e38), TENSOR)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.array([[1.0, -2.5, 3e38]], np.float32))


def test_a_big_endian_body_is_other_numbers():
    values = _values(struct.pack(">3f", 1.0, 2.0, 3.0), TENSOR)
    np.testing.assert_array_equal(values, np.frombuffer(struct.pack(">3f", 1.0, 2.0, 3.0), "<f4")[None])
    assert not np.isin(values, [1.0, 2.0, 3.0]).any()


@pytest.mark.parametrize(
    ("dtype", "code", "values"),
    [
        ("float64", "<2d", (1e300, -0.0)),
        ("float16", "<2e", (65504.0, 6e-8)),
        ("int64", "<2q", (-(2**63), 2**63 - 1)),
        ("int32", "<2i", (-(2**31), 2**31 - 1)),
        ("int8", "<2b", (-128, 127)),
        ("uint8", "<2B", (0, 255)),
        ("bool", "<2?", (True, False)),
    ],
)
def test_every_dtype_is_read_from_bytes(dtype: str, code: str, values: tuple[Any, ...]):
    array = _values(struct.pack(code, *values), _spec(x={"kind": "tensor", "dtype": dtype, "shape": [2]}))
    expected = np.array([values], dtype=dtype)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


def test_a_tensor_body_is_not_copied():
    body = struct.pack("<3f", 1, 2, 3)
    assert np.shares_memory(_values(body, TENSOR), np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("rows", [2, 7])
def test_a_tensor_body_may_be_several_rows(rows: int):
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    query = _decode(values.tobytes(), OCTETS, TENSOR)
    assert (query.rows, query.single) == (rows, False)
    np.testing.assert_array_equal(_values(values.tobytes(), TENSOR), values)


def test_more_rows_than_allowed_are_refused():
    with pytest.raises(PayloadTooLarge, match="3 rows, allowed are 2 a request"):
        _decode(b"\0" * 36, OCTETS, TENSOR, max_rows=2)
    with pytest.raises(PayloadTooLarge, match="3 rows are 36 bytes, allowed are 35"):
        _decode(b"\0" * 36, OCTETS, TENSOR, max_input_bytes=35)


@pytest.mark.parametrize("length", [0, 1, 4, 8, 11, 13, 16, 25, 1201])
def test_another_number_of_bytes_is_refused(length: int):
    with pytest.raises(RequestError) as caught:
        _decode(b"\0" * length, OCTETS, TENSOR)
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "invalid_instance", ())
    assert error.message == f"input 'x': {length} bytes, wanted float32 little-endian of shape [3] (12 bytes)"


@pytest.mark.parametrize(
    ("values", "count"),
    [((float("nan"), 1, 2), 1), ((float("inf"), 1, float("-inf")), 2), ((float("nan"),) * 3, 3)],
)
def test_numbers_that_are_not_finite_are_refused(values: tuple[float, ...], count: int):
    with pytest.raises(RequestError) as caught:  # once the rows of all requests are together
        _values(struct.pack("<3f", *values), TENSOR)
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "input_not_finite", ("instances", 0, "x"))
    assert error.message == f"input 'x': {count} of 3 values are NaN or infinite"


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_free_dimension_is_inferred(steps: int):
    values = np.arange(steps * 3, dtype=np.float32).reshape(steps, 3)
    query = _decode(values.tobytes(), OCTETS, FREE)
    (row,) = query.inputs["x"]
    np.testing.assert_array_equal(row, values)


@pytest.mark.parametrize(
    ("spec", "length", "wanted"),
    [
        (FREE, 0, ", wanted float32 little-endian of shape [steps, 3] (a multiple of 12 bytes)"),
        (FREE, 13, ", wanted float32 little-endian of shape [steps, 3] (a multiple of 12 bytes)"),
        (TWO_FREE, 24, " do not tell the lengths in shape [steps, width]: send JSON"),
    ],
)
def test_bytes_that_make_no_shape_are_refused(spec: ModelSpec, length: int, wanted: str):
    with pytest.raises(RequestError) as caught:
        _decode(b"\0" * length, OCTETS, spec)
    assert caught.value.status == 422
    assert caught.value.message == f"input 'x': {length} bytes{wanted}"


@pytest.mark.parametrize(
    "text", ["turn on the light", "", " ", "Zoë’s café 👩‍👩‍👧 灯", "a\0b", "a\nb\r\n", "\ufeffhello"]
)
@pytest.mark.parametrize("body", [bytes, bytearray])
def test_a_text_body_is_its_utf_8(text: str, body: type):
    query = _decode(body(text.encode()), "text/plain", TEXT)
    assert (query.rows, query.single, query.inputs) == (1, True, {"text": [text]})


@pytest.mark.parametrize(
    ("body", "place"),
    [(b"\xff", 0), (b"caf\xe9 au lait", 3), (b"abc\xc3", 3), (b"\xed\xa0\x80", 0), (b"h\0i\0\xff\xfe", 4)],
    ids=["no byte of UTF-8", "Latin-1", "cut short", "a surrogate", "UTF-16"],
)
def test_a_text_body_in_another_encoding_is_refused(body: bytes, place: int):
    with pytest.raises(RequestError) as caught:
        _decode(body, "text/plain", TEXT)
    error = caught.value
    assert (error.status, error.type, error.loc) == (400, "malformed_body", ())
    assert error.message == f"input 'text': the body is not UTF-8 (byte {place})"


def test_heads_of_a_text_come_in_a_header_too():
    assert _decode(b"hello", "text/plain", TEXT, {"x-polyhead-heads": "ink"}).heads == ("ink",)


@pytest.mark.parametrize(
    ("header", "heads"),
    [("ink", ("ink",)), ("ink,digit", ("ink", "digit")), (" ink ,  digit ", ("ink", "digit")), ("ink,ink", ("ink",))],
)
def test_heads_come_in_a_header(header: str, heads: tuple[str, ...]):
    assert _decode(b"\0" * 12, OCTETS, TENSOR, {"x-polyhead-heads": header}).heads == heads


@pytest.mark.parametrize(("header", "index"), [("nose", 0), ("ink,nose", 1), ("", 0), ("ink,", 1), ("ink;digit", 0)])
def test_unknown_heads_in_the_header_are_refused(header: str, index: int):
    with pytest.raises(RequestError) as caught:
        _decode(b"\0" * 12, OCTETS, TENSOR, {"x-polyhead-heads": header})
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "unknown_head", ("heads", index))
    assert "(heads: digit, ink)" in error.message


@pytest.mark.parametrize(
    ("spec", "content_type", "message"),
    [
        (
            PICTURE,
            OCTETS,
            "media type application/octet-stream does not fit model m, whose inputs are image (image): "
            "send image/png or image/jpeg or application/json",
        ),
        (
            TEXT,
            OCTETS,
            "media type application/octet-stream does not fit model m, whose inputs are text (text): "
            "send text/plain or application/json",
        ),
        (
            TENSOR,
            "text/plain",
            "media type text/plain does not fit model m, whose inputs are x (tensor): "
            "send application/octet-stream or application/json",
        ),
        (
            TENSOR,
            "image/png",
            "media type image/png does not fit model m, whose inputs are x (tensor): "
            "send application/octet-stream or application/json",
        ),
        (
            MANY,
            "image/jpeg",
            "media type image/jpeg does not fit model m, whose inputs are x (tensor), image (image): "
            "send application/json",
        ),
    ],
)
def test_a_media_type_that_does_not_fit_names_those_that_do(spec: ModelSpec, content_type: str, message: str):
    with pytest.raises(RequestError) as caught:
        _decode(b"", content_type, spec)
    error = caught.value
    assert (error.status, error.type, error.loc) == (415, "unsupported_media_type", ())
    assert error.message == message


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        (PICTURE, ("image/png", "image/jpeg")),
        (TENSOR, (OCTETS,)),
        (FREE, (OCTETS,)),
        (TEXT, ("text/plain",)),
        (MANY, ()),
    ],
)
def test_media_types_follow_from_the_only_input(spec: ModelSpec, types: tuple[str, ...]):
    assert media.media_types(spec) == types
