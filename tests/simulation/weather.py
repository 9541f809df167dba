"""Which faults a seed has, how often, and where they strike."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any, Final

from eft.errors import EftError, Transient

if TYPE_CHECKING:
    from tests.simulation.kernel import Kernel

PROCESS: Final = ("crash", "crash_after", "pause", "pause_after", "leave", "clock_jump")
"""What may befall a process at any call, before or after its effect."""
ROWS: Final = ("throttled", "rows_lost_answer", "rows_retried", "index_lag")
LINK: Final = ("link_lost_answer", "link_slow")
STORE: Final = ("store_refused", "store_lost_answer", "store_late_effect", "connection_cut")
SFTP: Final = (*STORE, "rename_half_done", "stale_listing")
SQS: Final = ("send_refused", "send_unheard", "duplicated", "swallowed", "delayed", "visibility_lapsed", "delete_lost")

BASE: Final[Mapping[str, float]] = {
    "crash": 0.002,
    "crash_after": 0.002,
    "pause": 0.002,
    "pause_after": 0.002,
    "leave": 0.001,
    "clock_jump": 0.002,
    "throttled": 0.006,
    "rows_lost_answer": 0.004,
    "rows_retried": 0.006,
    "index_lag": 0.05,
    "link_lost_answer": 0.02,
    "link_slow": 0.01,
    "store_refused": 0.004,
    "store_lost_answer": 0.004,
    "store_late_effect": 0.004,
    "connection_cut": 0.004,
    "rename_half_done": 0.08,
    "stale_listing": 0.1,
    "send_refused": 0.03,
    "send_unheard": 0.03,
    "duplicated": 0.1,
    "swallowed": 0.03,
    "delayed": 0.1,
    "visibility_lapsed": 0.1,
    "delete_lost": 0.05,
}
"""Chance per call, in weather of strength 1."""
STRENGTHS: Final = (0.0, 0.0, 0.3, 1.0, 1.0, 4.0)
CRITICAL: Final = frozenset(
    {"rename_posix", "rename_plain", "complete", "put_object", "intend", "save", "change", "adopt", "remove", "abort", "claim", "renounce"}
)
"""Calls at which promises are kept or broken: a seed may have its crashes and pauses here."""
LAZY: Final = frozenset({"unsettled", "intents", "journals", "scheduled_flows"})
"""Calls of ports that yield: what they find is what stands there when they are called."""
WRITES: Final = frozenset(
    {"crash", "crash_after", "pause", "pause_after", "rows_lost_answer", "store_lost_answer", "store_late_effect", "link_lost_answer"}
)


@dataclass(frozen=True, slots=True)
class Weather:
    """Chance per call of each kind of fault, and how much likelier processes fail at critical calls."""

    rates: Mapping[str, float] = field(default_factory=dict)
    focus: float = 1.0


CALM: Final = Weather()


def weather_of(random: Random) -> Weather:
    """Returns a seed's weather: each kind is absent, light, usual or heavy, apart from the others."""
    rates = {kind: rate * random.choice(STRENGTHS) for kind, rate in BASE.items()}
    return Weather(rates=rates, focus=random.choice([1.0, 1.0, 10.0, 40.0]))


@dataclass(frozen=True, slots=True)
class Request:
    """A call on its way to its effect."""

    site: Site
    call: str
    found: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]

    def do(self, **more: object) -> Any:  # noqa: ANN401 - a port's answer
        """Carries it out, unless the place cannot be reached."""
        self.site.refuse(self.call)
        result = self.found(*self.args, **{**self.named, **more})
        return iter(list(result)) if self.call in LAZY else result

    def other(self, name: str) -> Callable[..., Any] | None:
        """Returns another method of what is asked, if it has that."""
        return getattr(getattr(self.found, "__self__", None), name, None)


class Site:
    """A kind of place where calls go, with the faults that it knows."""

    def __init__(self, kernel: Kernel, name: str, kinds: Sequence[str], *, slowest: int = 60) -> None:
        self.kernel, self.name, self.kinds, self.slowest = kernel, name, kinds, slowest
        self._of: dict[str, Site] = {}
        self.set(kernel.weather)

    def set(self, weather: Weather, *, focus: float = 1.0) -> None:
        """Takes a weather."""
        rates = [(kind, weather.rates.get(kind, 0.0) * (focus if kind in WRITES else 1.0)) for kind in self.kinds]
        self._faults = [kind for kind, rate in rates if rate]
        total, self._bounds = 0.0, []
        for _, rate in rates:
            if rate:
                total += rate
                self._bounds.append(total)
        self.most = total
        for special in self._of.values():
            special.set(weather, focus=weather.focus)

    def of(self, call: str) -> Site:
        """Returns the place as one call finds it."""
        if call not in CRITICAL or self.kernel.weather.focus == 1.0:
            return self
        if call not in self._of:
            special = self.copy()
            special.set(self.kernel.weather, focus=self.kernel.weather.focus)
            self._of[call] = special
        return self._of[call]

    def copy(self) -> Site:
        """Returns the same place once more."""
        raise NotImplementedError

    def fault(self, roll: float) -> str:
        """Returns the fault that a roll below `most` means."""
        return self._faults[min(bisect(self._bounds, roll), len(self._faults) - 1)]

    def latency(self, random: Random) -> int:
        """Returns the milliseconds until the effect of a call."""
        roll = random.random()
        return 1 + int(roll * roll * self.slowest)

    def refuse(self, call: str) -> None:
        """Raises what a call meets that cannot reach the place at all."""

    def faulty(self, fault: str, request: Request) -> Any:  # noqa: ANN401 - a port's answer
        """Carries a call out with a fault of the place's own."""
        raise NotImplementedError


class RowsSite(Site):
    """A DynamoDB table of the process's own region."""

    def __init__(self, kernel: Kernel, name: str, kinds: Sequence[str] = (*PROCESS, *ROWS), *, slowest: int = 25) -> None:
        super().__init__(kernel, name, kinds, slowest=slowest)

    def copy(self) -> Site:
        return type(self)(self.kernel, self.name, self.kinds, slowest=self.slowest)

    def faulty(self, fault: str, request: Request) -> Any:  # noqa: ANN401
        if fault == "index_lag":
            stale = request.other(f"stale_{request.call}")
            if stale is None:
                return request.do()
            self.kernel.fire(fault)
            return replace(request, found=stale).do()
        self.kernel.fire(fault)
        if fault == "rows_retried":
            return self._retried(request)
        if fault == "rows_lost_answer":
            with suppress(EftError):
                request.do()
            raise Transient(f"{self.name} does not answer as it should", reason="aws_unavailable")
        raise Transient(f"{self.name} asks to slow down", reason="throttled")

    def _retried(self, request: Request) -> Any:  # noqa: ANN401
        """The answer is lost below the adapter, which sends the request once more: its effect may happen twice."""
        try:
            first = request.do()
        except EftError:
            return request.do()
        self.kernel.sleep(self.kernel.random.choice([20, 200, 2000]))
        again = request.other("again")
        return request.do() if again is None else again(request.call, first, request.found, request.args, request.named)


class LinkSite(RowsSite):
    """The same table, of the other region, over a link that may be cut."""

    def __init__(self, kernel: Kernel, name: str, reach: Callable[[], bool], *, reason: str) -> None:
        self._reach, self._reason = reach, reason
        super().__init__(kernel, name, (*PROCESS, *LINK), slowest=120)

    def copy(self) -> Site:
        return LinkSite(self.kernel, self.name, self._reach, reason=self._reason)

    def refuse(self, call: str) -> None:
        if not self._reach():
            self.kernel.fired["link_cut"] += 1
            raise self._unreachable()

    def faulty(self, fault: str, request: Request) -> Any:  # noqa: ANN401
        self.refuse(request.call)
        self.kernel.fire(fault)
        if fault == "link_slow":
            self.kernel.sleep(self.kernel.random.randrange(500, 9000))
            return request.do()
        with suppress(EftError):
            request.do()
        raise self._unreachable()

    def _unreachable(self) -> Transient:
        return Transient("the peer region does not answer", reason=self._reason, counts=self._reason != "peer_unreachable")


class StoreSite(Site):
    """A customer's server, or a bucket."""

    def __init__(self, kernel: Kernel, name: str, kinds: Sequence[str], down: Callable[[], bool], *, endpoint: str | None) -> None:
        self._down, self._endpoint = down, endpoint
        super().__init__(kernel, name, (*PROCESS, *kinds), slowest=80)
        self._own = kinds

    def copy(self) -> Site:
        return StoreSite(self.kernel, self.name, self._own, self._down, endpoint=self._endpoint)

    def refuse(self, call: str) -> None:
        if self._down():
            self.kernel.fired["server_down"] += 1
            raise Transient(f"{self.name} does not answer", reason="unreachable", endpoint=self._endpoint)

    def lost(self) -> Transient:
        """Returns the error of a connection that ended before the answer."""
        return Transient(f"the connection to {self.name} was lost", reason="connection_lost", endpoint=self._endpoint)

    def faulty(self, fault: str, request: Request) -> Any:  # noqa: ANN401
        self.refuse(request.call)
        kernel = self.kernel
        if (fault, request.call) == ("stale_listing", "listing"):
            kernel.fire(fault)
            return request.do(stale=True)
        if fault == "stale_listing" or (fault == "rename_half_done" and request.call != "rename_plain"):
            return request.do()
        kernel.fire(fault)
        if fault == "rename_half_done":
            request.do(unlink=False)
        elif fault == "store_lost_answer":
            with suppress(EftError):
                request.do()
        elif fault == "store_late_effect":
            kernel.at(kernel.now + kernel.random.choice([50, 1500, 20_000, 120_000]), lambda: _late(kernel, request))
        raise self.lost()


def _late(kernel: Kernel, request: Request) -> None:
    """A server carries out a request whose sender has given up."""
    result: Any
    try:
        result = request.do()
    except EftError as error:
        result = error
    kernel.trace.append((kernel.now, "late", request.site.name, request.call, request.args, request.named, result))
