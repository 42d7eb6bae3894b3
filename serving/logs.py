"""The log: lines for people, or one JSON object a line for programs.

A worker's lines pass through TorchServe's log4j to the launcher, which prints them. In JSON, log4j wraps each in an
object of its own (`JSON_PATTERN`); the launcher unwraps what was an object already.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from polyhead.serving.settings import LogFormat

__all__ = ["JSON_PATTERN", "JsonFormatter", "Lines", "configure", "json_line"]

# log4j's; the message and the stack are escaped by it.
JSON_PATTERN = (
    '{"time":"%d{yyyy-MM-dd\'T\'HH:mm:ss.SSS\'Z\'}{UTC}","level":"%p","logger":"%c{1}",'
    '"message":"%enc{%m}{JSON}","exception":"%enc{%xEx}{JSON}"}%n'
)
# What a log call may add by `extra=`, and we print.
EXTRA = ("model", "request", "status", "rows", "heads", "milliseconds")
LEVELS = {"WARN": "warning", "FATAL": "critical"}  # log4j's names for Python's


def json_line(message: str, level: str = "info", logger: str = "polyhead", **rest: object) -> str:
    """One line of the log as JSON, of this moment."""
    return _dump({"time": _time(time.time()), "level": level, "logger": logger, **rest, "message": message})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _dump(content: dict[str, Any]) -> str:
    return orjson.dumps(content, default=str).decode()


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line, a traceback inside of it.

    Args:
        model: `name/version`, where one process serves one model.
    """

    def __init__(self, model: str | None = None) -> None:
        super().__init__()
        self._model = {} if model is None else {"model": model}

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        content: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._model,
            **{name: value for name in EXTRA if (value := getattr(record, name, None)) is not None},
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            content["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            content["stack"] = record.stack_info
        try:
            return _dump(content)
        except (TypeError, ValueError):  # half a character, a number beyond 64 bits
            return _dump({key: ascii(value) for key, value in content.items()})


def configure(log_format: LogFormat, model: str | None = None) -> None:
    """Have every logger of this process print in a format: to the streams it has, else to standard error.

    In JSON, an exception that ends the process is one line too.

    Args:
        model: `name/version`, for a worker.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
    if log_format == "text":
        return
    for handler in root.handlers:
        handler.setFormatter(JsonFormatter(model))
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("polyhead").critical("the process ends: %s", error, exc_info=(kind, error, trace))


class Lines:
    """Prints the lines of TorchServe and its workers, as JSON.

    Args:
        write: one line of JSON.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def __call__(self, line: str) -> None:
        """Print one line, whatever it is."""
        self._write(_dump(unwrapped(line)))


def unwrapped(line: str) -> dict[str, Any]:
    """A line that TorchServe printed, as the object it is or stands for."""
    outer = _parsed(line)
    if outer is None or "message" not in outer:  # Java itself, before log4j runs
        return {"time": _time(time.time()), "level": "info", "logger": "torchserve", "message": line}
    inner = _parsed(str(outer["message"]))
    if inner is not None and {"time", "level", "logger", "message"} <= inner.keys():
        return inner
    level = str(outer.get("level", "INFO"))
    content = {**outer, "level": LEVELS.get(level, level.lower())}
    if not content.get("exception"):
        content.pop("exception", None)
    return content


def _parsed(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
