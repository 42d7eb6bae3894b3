"""What a server counts, and the page that Prometheus reads: see docs/metrics.md."""

from polyhead.serving.metrics.observer import Observer, observer

__all__ = ["Observer", "observer"]
