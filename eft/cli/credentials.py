"""Secrets on their way in: from a prompt, standard input or a file, never from the command line, where `ps` and the history show them."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from eft.cli.failure import usage
from eft.cli.session import Session

KEY_LIMIT: Final = 64 * 1024
"""Bytes; a private key is a few kilobytes."""
_OPENSSH_MAGIC: Final = b"openssh-key-v1\0"

PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", help="Read the password from a file.", metavar="PATH")]
AskPassword = Annotated[
    bool, typer.Option("--ask-password", help="Ask for the password, beside a key; without a key it is asked for anyway.")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Private key: OpenSSH or PEM; Ed25519, ECDSA or RSA.", metavar="PATH")]
PassphraseStdin = Annotated[bool, typer.Option("--passphrase-stdin", help="Read the key's passphrase from standard input.")]
PassphraseFile = Annotated[Path | None, typer.Option("--passphrase-file", help="Read the key's passphrase from a file.", metavar="PATH")]
AccessKeyId = Annotated[
    str | None,
    typer.Option("--access-key-id", help="Id of a static key, where no role can be assumed; its secret is asked for.", metavar="ID"),
]
SecretStdin = Annotated[bool, typer.Option("--secret-key-stdin", help="Read the secret access key from standard input.")]
SecretFile = Annotated[Path | None, typer.Option("--secret-key-file", help="Read the secret access key from a file.", metavar="PATH")]


def ssh_credential(
    session: Session,
    *,
    key_file: Path | None,
    password_stdin: bool,
    password_file: Path | None,
    ask_password: bool,
    passphrase_stdin: bool,
    passphrase_file: Path | None,
) -> dict[str, str]:
    """Returns a key, a password, or both, as the API takes them.

    Raises:
        Failure: nothing was given and nobody is there to ask; a file cannot be read; two secrets claim standard input.
    """
    if password_stdin and passphrase_stdin:
        raise usage("Standard input carries one secret", advice="Give the other one with --password-file or --passphrase-file.")
    credential: dict[str, str] = {}
    if key_file is not None:
        credential["private_key"] = _read_key(key_file)
        passphrase = _given(passphrase_file, stdin=passphrase_stdin, option="--passphrase")
        if passphrase is None and is_encrypted(credential["private_key"]):
            passphrase = _ask(session, f"Passphrase of {key_file}", instead="--passphrase-stdin or --passphrase-file")
        if passphrase is not None:
            credential["passphrase"] = passphrase
    elif passphrase_stdin or passphrase_file is not None:
        raise usage("A passphrase goes with a key", advice="Add --key-file.")
    password = _given(password_file, stdin=password_stdin, option="--password")
    if password is None and (ask_password or key_file is None):
        password = _ask(session, "Password", instead="--password-stdin, --password-file or --key-file")
    if password is not None:
        credential["password"] = password
    return credential


def s3_credential(session: Session, *, access_key_id: str | None, secret_stdin: bool, secret_file: Path | None) -> dict[str, str] | None:
    """Returns a static S3 credential as the API takes it, or None where no access key is named.

    Raises:
        Failure: the secret is not given and nobody is there to ask, or it is given without its id.
    """
    secret = _given(secret_file, stdin=secret_stdin, option="--secret-key")
    if access_key_id is None:
        if secret is not None:
            raise usage("A secret access key goes with its id", advice="Add --access-key-id.")
        return None
    if secret is None:
        secret = _ask(session, f"Secret access key of {access_key_id}", instead="--secret-key-stdin or --secret-key-file")
    return {"access_key_id": access_key_id, "secret_access_key": secret}


def is_encrypted(key: str) -> bool:
    """Returns whether a private key needs a passphrase (RFC 1421 and RFC 5958 headers; OpenSSH's PROTOCOL.key names the cipher first)."""
    if "-----BEGIN OPENSSH PRIVATE KEY-----" not in key:
        return "ENCRYPTED" in key
    body = "".join(line for line in key.splitlines() if not line.startswith("-----"))
    try:
        raw = base64.b64decode(body)
    except (binascii.Error, ValueError):
        return False
    start = len(_OPENSSH_MAGIC)
    size = int.from_bytes(raw[start : start + 4], "big")
    return raw[start + 4 : start + 4 + size] != b"none"


def _read_key(path: Path) -> str:
    text = _read(path, option="--key-file")
    if "PRIVATE KEY-----" not in text:
        hint = "That is a public key: give the file without .pub." if text.startswith(("ssh-", "ecdsa-")) else "Convert it with ssh-keygen."
        raise usage(f"{path} holds no OpenSSH or PEM private key", advice=hint)
    return text


def _given(path: Path | None, *, stdin: bool, option: str) -> str | None:
    if path is not None and stdin:
        raise usage("A secret comes from standard input or from a file, not from both", advice=f"Give {option}-stdin or {option}-file.")
    if path is not None:
        return _line(_read(path, option=f"{option}-file"), str(path))
    return _line(sys.stdin.readline(), "standard input") if stdin else None


def _read(path: Path, *, option: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(KEY_LIMIT)
    except UnicodeDecodeError:
        raise usage(f"{option}: {path} is no text") from None
    except OSError as error:
        raise usage(f"{option}: {path} cannot be read: {error.strerror}") from None


def _line(text: str, where: str) -> str:
    secret = text.rstrip("\r\n")
    if not secret:
        raise usage(f"{where} holds no secret")
    return secret


def _ask(session: Session, question: str, *, instead: str) -> str:
    if not session.interactive():
        raise usage(f"{question}: nobody is there to ask", advice=f"Use {instead}.")
    return str(typer.prompt(question, hide_input=True, err=True))
