"""Errors classed by what to do next; adapters raise nothing else.

Vendor error → these, in the adapter; these → what happens to the row and its message, in `tasks.base`; these → HTTP, in `api.errors`.
"""

from __future__ import annotations

from datetime import timedelta


class EftError(Exception):
    """An error with a machine-readable `reason` (snake_case, stable) and a message fit for a customer.

    `endpoint` names the endpoint at fault, where one is: its circuit breaker counts the error.
    Neither message nor reason ever contains a secret.
    """

    def __init__(self, message: str, *, reason: str = "error", endpoint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.endpoint = endpoint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), str(self), dict(vars(self))))


class Transient(EftError):
    """Worth another try after a pause. `retry_after` is the least pause, where the other side named one."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "transient",
        endpoint: str | None = None,
        retry_after: timedelta | None = None,
        counts: bool = True,
    ) -> None:
        super().__init__(message, reason=reason, endpoint=endpoint)
        self.retry_after = retry_after
        self.counts = counts
        """Whether it uses up one of the transfer's tries (waiting for a slot or a reservation does not)."""


class Permanent(EftError):
    """No retry will help: the transfer is buried with this reason until an operator re-drives it."""


class NotFound(Permanent):
    """The thing named does not exist."""

    def __init__(self, message: str, *, reason: str = "not_found", endpoint: str | None = None) -> None:
        super().__init__(message, reason=reason, endpoint=endpoint)


class Undecidable(EftError):
    """What happened cannot be known from here: the transfer is held for an operator."""


class LostOwnership(EftError):
    """Another worker or region advances this transfer now: drop the work, touch nothing."""

    def __init__(self, message: str, *, reason: str = "lost_ownership", endpoint: str | None = None) -> None:
        super().__init__(message, reason=reason, endpoint=endpoint)


class Conflict(EftError):
    """A conditional write by a caller found another version than the one it had read."""

    def __init__(self, message: str, *, reason: str = "conflict", endpoint: str | None = None) -> None:
        super().__init__(message, reason=reason, endpoint=endpoint)


class SliceOver(Exception):
    """The worker is asked to leave, or the slice has used its time; what is recorded stays recorded."""


def _rebuild(kind: type[EftError], message: str, state: dict[str, object]) -> EftError:
    error = kind(message)
    vars(error).update(state)
    return error
