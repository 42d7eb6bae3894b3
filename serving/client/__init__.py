"""The Python client: `Client`, and `AsyncClient` beside it. It needs neither torch nor a bundle."""

from polyhead.serving.client.answers import (
    Answer,
    Classification,
    Embedding,
    Entity,
    Multilabel,
    OneShot,
    Regression,
    Row,
    Segmentation,
    Tokens,
)
from polyhead.serving.client.asynchronous import AsyncClient
from polyhead.serving.client.failures import Refused, ServerError, Unavailable, Unreachable
from polyhead.serving.client.synchronous import Client

__all__ = [
    "Answer",
    "AsyncClient",
    "Classification",
    "Client",
    "Embedding",
    "Entity",
    "Multilabel",
    "OneShot",
    "Refused",
    "Regression",
    "Row",
    "Segmentation",
    "ServerError",
    "Tokens",
    "Unavailable",
    "Unreachable",
]
