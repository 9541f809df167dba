"""Secrets come from a prompt, standard input or a file, and from nowhere else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from pydantic import SecretStr
from typer.testing import Result

from eft.cli.credentials import is_encrypted
from eft.domain.endpoint import Credential
from tests.cli.conftest import Desk

ADD = ("endpoint", "add", "sftp", "acme", "--host", "sftp.acme.test", "-u", "eft", "--no-test")


def private_key(*, passphrase: str | None = None, pem: bool = False) -> str:
    """Returns the text of a new Ed25519 key."""
    how: KeySerializationEncryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    form = PrivateFormat.PKCS8 if pem else PrivateFormat.OpenSSH
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, form, how).decode()


def kept(desk: Desk, result: Result) -> dict[str, str]:
    """Returns what the secret store holds for the endpoint that was added."""
    assert result.exit_code == 0, result.output
    [endpoint] = [e for e in desk.world.registry.endpoints("acme").items if e.name == "acme"]
    assert endpoint.secret is not None
    credential: Credential = desk.world.secrets.get(endpoint.secret)
    fields = {name: getattr(credential, name) for name in Credential.model_fields}
    return {name: value.get_secret_value() for name, value in fields.items() if isinstance(value, SecretStr)}


@pytest.mark.parametrize("pem", [False, True])
@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_knows_an_encrypted_key(*, passphrase: str | None, pem: bool) -> None:
    """An encrypted private key is told from an open one, in both formats."""
    assert is_encrypted(private_key(passphrase=passphrase, pem=pem)) is (passphrase is not None)


def test_a_broken_key_is_not_taken_for_an_encrypted_one() -> None:
    """Text that is no base64 is left to the API to refuse."""
    assert is_encrypted("-----BEGIN OPENSSH PRIVATE KEY-----\nA\n-----END OPENSSH PRIVATE KEY-----") is False


def test_takes_a_key(desk: Desk) -> None:
    """A private key comes from its file, and no password is asked for."""
    key = private_key()
    assert kept(desk, desk.run(*ADD, "--key-file", desk.file("key", key))) == {"private_key": key}


def test_takes_key_and_password(desk: Desk) -> None:
    """A server that asks for both gets both."""
    key = private_key()
    words = (*ADD, "--key-file", desk.file("key", key), "--password-file", desk.file("password", "pw\n"))
    assert kept(desk, desk.run(*words)) == {"private_key": key, "password": "pw"}


@pytest.mark.parametrize("way", ["--passphrase-file", "--passphrase-stdin", "prompt"])
def test_takes_a_passphrase(desk: Desk, way: str) -> None:
    """The passphrase of an encrypted key comes from a file, from standard input, or from the person who is asked."""
    key = private_key(passphrase="open sesame")
    words = [*ADD, "--key-file", desk.file("key", key)]
    desk.person = way == "prompt"
    words += {"--passphrase-file": [way, desk.file("passphrase", "open sesame\r\n")], "--passphrase-stdin": [way], "prompt": []}[way]
    result = desk.run(*words, typed=None if way == "--passphrase-file" else "open sesame\n")
    assert kept(desk, result) == {"private_key": key, "passphrase": "open sesame"}


def test_asks_a_person_for_the_password(desk: Desk) -> None:
    """Without key or password a person is asked; beside a key only on request."""
    desk.person = True
    assert kept(desk, desk.run(*ADD, typed="pw\n")) == {"password": "pw"}
    desk.run("endpoint", "remove", "acme", "--yes")
    key = private_key()
    words = (*ADD, "--key-file", desk.file("key", key), "--ask-password")
    assert kept(desk, desk.run(*words, typed="pw\n")) == {"private_key": key, "password": "pw"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nobody is there to ask"),
        (("--password-stdin", "--passphrase-stdin", "--key-file", "x"), "carries one secret"),
        (("--password-stdin", "--password-file", "x"), "not from both"),
        (("--passphrase-stdin", "--password-file", "x"), "goes with a key"),
        (("--key-file", "/nowhere/key"), "cannot be read"),
        (("--password-file", "/nowhere/password"), "cannot be read"),
        (("--password-stdin",), "holds no secret"),
    ],
)
def test_says_what_is_wrong_with_a_secret(desk: Desk, words: tuple[str, ...], told: str) -> None:
    """A secret that is missing, given twice or unreadable is a usage error, before anything is sent."""
    result = desk.run(*ADD, *words, typed="")
    assert result.exit_code == 2
    assert told in result.stderr
    assert not [e for e in desk.world.registry.endpoints("acme").items if e.name == "acme"]


def test_an_encrypted_key_needs_somebody_to_ask(desk: Desk) -> None:
    """A script with an encrypted key is told which options give the passphrase."""
    result = desk.run(*ADD, "--key-file", desk.file("key", private_key(passphrase="x")))
    assert result.exit_code == 2
    assert "--passphrase-file" in result.stderr


@pytest.mark.parametrize(("text", "told"), [("ssh-ed25519 AAAA me", "without .pub"), ("hello", "ssh-keygen"), ("\udcff", "no text")])
def test_refuses_what_is_no_private_key(desk: Desk, text: str, told: str) -> None:
    """A public key, or anything else, is told from a private one."""
    made = desk.home / "key"
    made.write_bytes(text.encode(errors="surrogateescape"))
    result = desk.run(*ADD, "--key-file", str(made))
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_wrong_passphrase_is_the_apis_to_refuse(desk: Desk) -> None:
    """The API's refusal names the field, and shows neither key nor passphrase."""
    key = private_key(passphrase="right")
    words = (*ADD, "--key-file", desk.file("key", key), "--passphrase-file", desk.file("passphrase", "wr0ng"))
    result = desk.run(*words)
    assert result.exit_code == 2
    assert "passphrase does not open" in result.stderr
    assert "wr0ng" not in result.output
    assert key.splitlines()[1] not in result.output


S3 = ("endpoint", "add", "s3", "lab", "--bucket", "lab", "--region", "us-east-1", "--no-test")


def test_asks_a_person_for_the_secret_access_key(desk: Desk) -> None:
    """A person is asked for the secret of the access key that they name."""
    desk.person = True
    assert desk.json(*S3, "--access-key-id", "AK", typed="wJalr\n")["endpoint"]["has_credential"] is True


@pytest.mark.parametrize("words", [("--access-key-id", "AK"), ("--secret-key-stdin",)])
def test_an_access_key_is_whole(desk: Desk, words: tuple[str, ...]) -> None:
    """Half of an access key is a usage error."""
    assert desk.run(*S3, *words, typed="wJalr\n").exit_code == 2
