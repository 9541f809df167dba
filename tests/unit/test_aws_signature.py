"""The signature of the short way to AWS is botocore's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import example, given
from hypothesis import strategies as st

from eft.adapters.aws_signature import NOT_SIGNED, UNSIGNED, Signer, host

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SHOWN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
NAMES = st.sampled_from(["Range", "If-Match", "x-amz-meta-eft-transfer", "x-amz-copy-source", "X-Amz-Target", "User-Agent", "Content-Type"])
ORIGINS = [
    "http://127.0.0.1:9000",
    "https://b.s3.us-gov-west-1.amazonaws.com",
    "https://STORE.test:443",
    "http://store.test:80",
    "https://[::1]:8",
]
DAY = datetime(2026, 11, 29)  # noqa: DTZ001 - strategies take bare ones
TIMES = st.just(DAY) | st.datetimes(min_value=DAY.replace(year=2000), max_value=DAY.replace(year=2099))


@dataclass(frozen=True)
class Asked:
    """A request to S3."""

    method: str
    origin: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


ASKED = st.builds(
    Asked,
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST"]),
    origin=st.sampled_from(ORIGINS),
    key=TEXT,
    query=st.dictionaries(TEXT, TEXT, max_size=3),
    headers=st.dictionaries(NAMES, SHOWN, max_size=4),
    body=st.binary(max_size=20),
)
ODD = Asked("POST", ORIGINS[0], "a//b/../ünï ☃~*'()", {"uploads": "", "part-": "2", "part": "1"}, {"Range": " a   b "}, b"")


@given(asked=ASKED, token=st.none() | st.just("a/session+token=="), secret=st.sampled_from(["secret", "another/+="]), at=TIMES)
@example(asked=ODD, token="t", secret="secret", at=DAY)
def test_s3_is_asked_with_the_signature_that_botocore_makes(asked: Asked, token: str | None, secret: str, at: datetime) -> None:
    """Whatever the key, the query, the headers, the credential and the day, S3 sees one signature."""
    url = f"{asked.origin}/bucket/{quote(asked.key, safe='/~')}" + (f"?{urlencode(asked.query, quote_via=quote)}" if asked.query else "")
    payload = UNSIGNED if url.startswith("https:") else hashlib.sha256(asked.body).hexdigest()
    headers = {**asked.headers, "X-Amz-Content-SHA256": payload}
    keys = ReadOnlyCredentials("AKID", secret, token)
    ours = SIGNER.signed(asked.method, url, headers=headers, payload=payload, keys=keys, at=f"{at:%Y%m%dT%H%M%SZ}")
    theirs = S3Auth(keys, "s3", "us-gov-west-1")
    assert ours == _botocores(theirs, AWSRequest(asked.method, url, headers=asked.headers, data=asked.body), at)


@given(body=st.binary(max_size=20), token=st.none() | TEXT, at=TIMES)
def test_dynamodb_is_asked_with_the_signature_that_botocore_makes(body: bytes, token: str | None, at: datetime) -> None:
    """A request in AWS's JSON protocol is signed as botocore signs it, hash of its body included."""
    keys, url = ReadOnlyCredentials("AKID", "secret", token), "https://dynamodb.us-gov-west-1.amazonaws.com/"
    headers = {"X-Amz-Target": "DynamoDB_20120810.GetItem", "Content-Type": "application/x-amz-json-1.0"}
    signer = Signer("dynamodb", "us-gov-west-1")
    payload = hashlib.sha256(body).hexdigest()
    ours = signer.signed("POST", url, headers=headers, payload=payload, keys=keys, at=f"{at:%Y%m%dT%H%M%SZ}")
    theirs = botocore.auth.SigV4Auth(keys, "dynamodb", "us-gov-west-1")
    assert ours == _botocores(theirs, AWSRequest("POST", url, headers=headers, data=body), at)


def test_headers_that_proxies_change_are_not_signed() -> None:
    """No header is signed that botocore leaves out; of those that we send, all others are."""
    assert set(botocore.auth.SIGNED_HEADERS_BLACKLIST) >= NOT_SIGNED
    assert "user-agent" in NOT_SIGNED


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("https://Store.Test", "store.test"),
        ("https://store.test:443", "store.test"),
        ("http://store.test:443", "store.test:443"),
        ("http://[::1]:80", "[::1]"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_a_host_is_named_as_it_is_signed(origin: str, shown: str) -> None:
    """The Host header leaves out the port that a scheme has anyway, as the signed one does."""
    assert host(origin) == shown


class S3Auth(botocore.auth.S3SigV4Auth):
    """Botocore's signer, as our configuration has it decide about bodies."""

    def payload(self, request: Any) -> str:  # noqa: ANN401 - the stubs know no body of bytes
        return UNSIGNED if request.url.startswith("https:") else hashlib.sha256(request.data).hexdigest()


SIGNER = Signer("s3", "us-gov-west-1")
"""One for all requests, as in use: what it keeps of one day or credential serves no other."""


def _botocores(auth: botocore.auth.SigV4Auth, request: AWSRequest, at: datetime) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: at.replace(tzinfo=UTC))
        auth.add_auth(request)
    return {name: str(value) for name, value in request.headers.items()}
