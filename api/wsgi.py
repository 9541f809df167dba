"""The app as a server loads it, made from settings: `api.wsgi:application()`."""

from __future__ import annotations

from flask import Flask

from api.app import create_app
from api.auth import AuthSettings
from eft.bootstrap import build_engine
from eft.settings import Settings
from tasks.base import forward


def application(settings: Settings | None = None) -> Flask:
    """Returns the app on the real adapters.

    Raises:
        ValueError: EFT_JWKS is not set: an API that can check no token does not start.
    """
    chosen = settings or Settings()
    if not chosen.jwks:
        raise ValueError("set EFT_JWKS to the address or file of the token issuer's keys")
    auth = AuthSettings(issuer=chosen.jwt_issuer, audience=chosen.jwt_audience, jwks=chosen.jwks)
    return create_app(build_engine(chosen), forward, auth, two_person=chosen.two_person)
