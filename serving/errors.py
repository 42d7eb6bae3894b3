"""One class per failure. Each carries its HTTP status, and says what, got, and fix.

Nothing here names a path of the machine, a class of ours, or a line of code: these texts go to strangers.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AnswerNotFinite",
    "BundleError",
    "DeployError",
    "DeviceUnavailable",
    "GoldenMismatch",
    "InputNotFinite",
    "InternalError",
    "InvalidInstance",
    "LaunchError",
    "MalformedBody",
    "NoAnswer",
    "NotAcceptable",
    "Overloaded",
    "PayloadTooLarge",
    "Place",
    "PolyheadError",
    "RequestError",
    "RuntimeUnavailable",
    "UnknownHead",
    "UnknownOption",
    "UnsupportedMediaType",
]

Place = tuple[str | int, ...]


class PolyheadError(Exception):
    """Anything Polyhead refuses. The message is one line for a person."""


class BundleError(PolyheadError):
    """A bundle that is not whole, not its own, or not trusted."""


class GoldenMismatch(BundleError):
    """A graph whose answers to the golden samples are not the recorded ones."""


class RuntimeUnavailable(PolyheadError):
    """A runtime that is not installed, or cannot load this graph."""


class DeviceUnavailable(PolyheadError):
    """A device that was asked for by name and is not there."""


class LaunchError(PolyheadError):
    """The server cannot be started, or did not become ready."""


class NoAnswer(LaunchError):
    """A golden sample was not answered in time."""


class Overloaded(LaunchError):
    """The server refuses a golden sample for the moment: nothing is said of whether it could answer."""


class DeployError(PolyheadError):
    """A change of what a running server serves that was not made; what served before serves on."""


class RequestError(PolyheadError):
    """A failure of one request, and of that request alone.

    Args:
        message: what, got, fix.
        loc: where in the request, as `("instances", 3, "text")`.
    """

    status: ClassVar[int] = 400
    phrase: ClassVar[str] = "Bad Request"  # ASCII: TorchServe counts characters where it should count bytes
    type: ClassVar[str] = "bad_request"

    def __init__(self, message: str, loc: Place = ()) -> None:
        super().__init__(message)
        self.message = message
        self.loc = loc

    def body(self) -> dict[str, object]:
        """The error as the JSON of the contract."""
        return {"error": self.message, "type": self.type, "loc": list(self.loc)}


class MalformedBody(RequestError):
    """The body is not what its media type says."""

    type = "malformed_body"


class NotAcceptable(RequestError):
    """No media type that the client accepts can hold the answer."""

    status = 406
    phrase = "Not Acceptable"
    type = "not_acceptable"


class PayloadTooLarge(RequestError):
    """More rows, bytes or pixels than the settings allow."""

    status = 413
    phrase = "Payload Too Large"
    type = "payload_too_large"


class UnsupportedMediaType(RequestError):
    """A media type that this model does not read."""

    status = 415
    phrase = "Unsupported Media Type"
    type = "unsupported_media_type"


class InvalidInstance(RequestError):
    """Well-formed, with the wrong content: a missing input, a wrong shape, a value out of range."""

    status = 422
    phrase = "Unprocessable Entity"
    type = "invalid_instance"


class InputNotFinite(InvalidInstance):
    """NaN or infinity in an input."""

    type = "input_not_finite"


class UnknownHead(InvalidInstance):
    """A head that the model does not have."""

    type = "unknown_head"


class UnknownOption(InvalidInstance):
    """A key or option that is not known."""

    type = "unknown_option"


class AnswerNotFinite(InvalidInstance):
    """The network answered NaN or infinity for a row."""

    type = "answer_not_finite"


class InternalError(RequestError):
    """A fault of ours. The log has the details; the client gets none."""

    status = 500
    phrase = "Internal Server Error"
    type = "internal_error"
