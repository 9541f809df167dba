"""Enterprise file transfer: the engine. It knows neither Celery nor Flask."""

__version__ = "0.1.0"
