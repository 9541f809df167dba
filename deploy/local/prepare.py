"""`python -m deploy.local.prepare DIRECTORY API_URL`: what the containers of docker-compose.yml need before they start.

Makes the engine's resources in the AWS stand-in, a customer's bucket, and in the directory the token issuer of a local stack and
the address of its API, where `eft token` finds them. Running it again changes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import boto3

from deploy.local.identity import create_identity
from deploy.local.provision import make_bucket, provision
from eft.settings import Settings

CUSTOMER_BUCKET: Final = "customer"


def prepare(directory: Path, settings: Settings, *, api_url: str) -> None:
    """Makes what is missing. The credential for the stand-in comes from boto3's default chain.

    Raises:
        ValueError: the settings name no stand-in; nothing here is meant for AWS itself.
    """
    if settings.aws_endpoint is None:
        raise ValueError("set EFT_AWS_ENDPOINT to the address of an AWS stand-in")
    session = boto3.Session(region_name=settings.region)
    provision(session, endpoint_url=settings.aws_endpoint, prefix=settings.prefix, staging_bucket=settings.staging_bucket)
    make_bucket(session.client("s3", endpoint_url=settings.aws_endpoint), CUSTOMER_BUCKET)
    create_identity(directory / "identity")
    (directory / "api-url").write_text(f"{api_url}\n", encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Settings(), api_url=sys.argv[2])
