"""Work done ahead of who needs it, in a thread of its own, as far as there is room for what it makes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")


class _Ahead(Generic[Item]):
    """A bounded queue between a thread that makes items and one that takes them."""

    def __init__(self, made: Iterator[Item], size: Callable[[Item], int], room: int) -> None:
        self._made, self._size, self._room = made, size, room
        self._items: deque[Item] = deque()
        self._held = 0
        self._state = threading.Condition()
        self._over = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._make, name="ahead", daemon=True)
        self._thread.start()

    def _make(self) -> None:
        try:
            for item in self._made:
                with self._state:
                    self._items.append(item)
                    self._held += self._size(item)
                    self._state.notify_all()
                    self._state.wait_for(lambda: self._stopped or self._held < self._room)
                    if self._stopped:
                        break
        except BaseException as error:  # noqa: BLE001 - raised where the item would have been taken
            self._error = error
        finally:
            close = getattr(self._made, "close", None)
            if close is not None:
                close()
            with self._state:
                self._over = True
                self._state.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._items or self._over)
                if not self._items:
                    break
                item = self._items.popleft()
                self._held -= self._size(item)
                self._state.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        with self._state:
            self._stopped = True
            self._state.notify_all()
        self._thread.join()


@contextmanager
def ahead(made: Iterator[Item], size: Callable[[Item], int], room: int) -> Iterator[Iterator[Item]]:
    """The items of an iterator, made in a thread while others are worked on; what it raises is raised in its place.

    Args:
        made: consumed, and closed, by the thread.
        size: of an item, in bytes.
        room: for items that nobody has taken yet; there is always room for one.
    """
    queue = _Ahead(made, size, room)
    try:
        yield iter(queue)
    finally:
        queue.stop()
