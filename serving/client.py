"""A client of the HTTP protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from polyhead.serving.errors import PolyheadError
from polyhead.serving.protocol.media import HEADS_HEADER

__all__ = ["Client", "ServerError"]


class ServerError(PolyheadError):
    """The server cannot be reached, or answered with an error.

    Attributes:
        status: the HTTP status, None where there was no answer.
        body: the JSON of the error, empty where there was none.
    """

    def __init__(self, message: str, status: int | None = None, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = dict(body or {})


class Client:
    """Asks one server.

    Args:
        url: of the inference API, as `http://127.0.0.1:8080`.
        timeout: seconds for one answer.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        # A proxy of the environment is for other machines.
        local = httpx.URL(self.url).host in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(timeout=timeout, trust_env=not local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def predict(
        self,
        model: str,
        instances: Sequence[Any],
        heads: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Send rows as JSON; returns each row's answers by head.

        Args:
            model: `name` or `name/version`.
            instances: one row each, as the contract's JSON has them.
            heads: the heads wanted; all of them where None.
            options: `top_k`, `scores`, `raw`.

        Raises:
            ServerError: no answer, or an error.
        """
        body: dict[str, Any] = {"instances": list(instances)}
        if heads is not None:
            body["heads"] = list(heads)
        if options:
            body["options"] = dict(options)
        predictions = self._post(model, json=body).get("predictions")
        if not isinstance(predictions, list):
            raise ServerError(f"{model}: 200: an answer without predictions: {self.url} is no Polyhead server")
        return predictions

    def predict_file(
        self, model: str, data: bytes, media_type: str, heads: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Send one row as the body, such as an image file; returns its answers by head.

        Raises:
            ServerError: no answer, or an error.
        """
        headers = {"Content-Type": media_type}
        if heads is not None:
            headers[HEADS_HEADER] = ",".join(heads)
        return self._post(model, content=data, headers=headers)

    def _post(self, model: str, **request: Any) -> dict[str, Any]:
        try:
            response = self._http.post(f"{self.url}/predictions/{model}", **request)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ServerError(f"no answer from {self.url} ({error}): is it running? polyhead serve BUNDLE") from None
        try:
            content = response.json()
        except ValueError:
            content = None
        body: dict[str, Any] = content if isinstance(content, dict) else {}
        if response.status_code != httpx.codes.OK or not body:
            # TorchServe's own errors carry a message, ours an error.
            message = body.get("error") or body.get("message") or response.text[:200]
            place = ".".join(str(part) for part in body.get("loc") or ())
            raise ServerError(
                f"{model}: {response.status_code}: {message}{f' (at {place})' if place else ''}",
                response.status_code,
                body,
            )
        return body
