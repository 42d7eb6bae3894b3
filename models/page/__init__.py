"""The page that a training run leaves: how every head learned, how it did on held-out rows, how the tasks got along."""

from polyhead.models.page.document import write_page

__all__ = ["write_page"]
