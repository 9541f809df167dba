"""Public holidays, by country and state (the library `holidays` knows them).

It takes 11 MB, so it is loaded by whoever asks first: a worker that moves files never does.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache


def check_holidays(code: str) -> str:
    """Returns the code of a country, or of a country and its state: `US`, `DE-BY`.

    Raises:
        ValueError: no holidays are known for it.
    """
    import holidays  # noqa: PLC0415 - see above

    country, _, state = code.partition("-")
    known = holidays.list_supported_countries()
    if country not in known or (state and state not in known[country]):
        msg = f"no public holidays are known for '{code}'; write a country as ISO 3166 has it, and its state: US, DE-BY"
        raise ValueError(msg)
    return code


def is_holiday(code: str, day: date) -> bool:
    """Returns whether a day is a public holiday."""
    return day in _year(code, day.year)


@lru_cache(maxsize=256)
def _year(code: str, year: int) -> frozenset[date]:
    import holidays  # noqa: PLC0415 - see above

    country, _, state = code.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=state or None, years=year))
