"""As Airflow's SFTPToS3Operator and S3ToSFTPOperator do it: a temporary file, stock paramiko, boto3's upload and download."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import boto3
import paramiko


def main(told: dict[str, Any]) -> None:
    """Moves the files one after the other and prints the seconds that it took, connecting included."""
    began = time.perf_counter()
    ends = [told["source"], told["target"]]
    sftp = _sftp(next(end for end in ends if end["kind"] == "sftp"))
    bucket = next(end for end in ends if end["kind"] == "s3")
    s3 = cast("Any", boto3).client(
        "s3",
        endpoint_url=bucket["url"],
        region_name="us-gov-west-1",
        aws_access_key_id=bucket["access_key"],
        aws_secret_access_key=bucket["secret_key"],
    )
    for path in told["paths"]:
        with tempfile.NamedTemporaryFile(dir=told["temporary"]) as file:
            name = f"{told['into']}/{Path(path).name}"
            if told["source"]["kind"] == "sftp":
                sftp.get(path, file.name)
                s3.upload_file(file.name, bucket["bucket"], name)
            else:
                s3.download_file(bucket["bucket"], path, file.name)
                _make_directory(sftp, told["into"])
                sftp.put(file.name, name)
    sys.stdout.write(f"{time.perf_counter() - began}\n")


def _sftp(end: dict[str, Any]) -> paramiko.SFTPClient:
    transport = paramiko.Transport((end["host"], end["port"]))
    transport.connect(username=end["username"], pkey=paramiko.Ed25519Key.from_private_key_file(end["key_file"]))
    client = paramiko.SFTPClient.from_transport(transport)
    assert client is not None
    return client


def _make_directory(sftp: paramiko.SFTPClient, name: str) -> None:
    try:
        sftp.stat(name)
    except FileNotFoundError:
        sftp.mkdir(name)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
