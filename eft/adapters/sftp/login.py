"""The SSH login: algorithms, host key, authentication. Nothing secret is sent before the host key is found to be a pinned one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import paramiko

from eft.adapters.sftp.keys import HOST_KEY_ALGORITHMS, host_key, type_of
from eft.domain.endpoint import Credential, HostKey, SftpEndpoint
from eft.errors import Permanent, Transient

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr")
"""GCM first: it costs half. No CBC, no 3DES."""
DIGESTS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
"""No MD5, no SHA-1."""
EXCHANGES = (
    "mlkem768x25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
)
"""No SHA-1."""
EVERY_HOST_KEY = tuple(algorithm for algorithms in HOST_KEY_ALGORITHMS.values() for algorithm in algorithms)

# What goes wrong is raised; paramiko's own account of it, with tracebacks, would be said twice.
SSH_LOG = "eft.adapters.sftp.ssh"
logging.getLogger(SSH_LOG).setLevel(logging.CRITICAL)


def set_policy(transport: paramiko.Transport, *, patience: float) -> None:
    """Sets the algorithms and deadlines of a transport that has sent nothing yet."""
    transport.set_log_channel(SSH_LOG)
    # Later than `connect.deadline`, which covers all of them: then it is that one that tells what was late.
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = 2 * patience
    options = transport.get_security_options()
    options.ciphers = CIPHERS
    options.digests = DIGESTS
    # The post-quantum and curve exchanges exist only where the cryptography library has them.
    options.kex = tuple(name for name in EXCHANGES if name in options.kex)
    options.compression = ("none",)


def pinned_algorithms(endpoint: SftpEndpoint) -> tuple[str, ...]:
    """Returns the host key algorithms to offer: those of the pinned keys, so that the server shows one of these.

    Raises:
        Permanent: `host_key_unpinned`.
    """
    if not endpoint.host_keys:
        raise Permanent(
            "no host key is pinned: test the endpoint, compare the keys it shows out of band, and pin one",
            reason="host_key_unpinned",
        )
    types = {type_of(pin) for pin in endpoint.host_keys}
    offered = tuple(a for kind, algorithms in HOST_KEY_ALGORITHMS.items() if kind in types for a in algorithms)
    if not offered:
        raise Permanent(
            f"no pinned host key is of a known type; known are {', '.join(HOST_KEY_ALGORITHMS)}",
            reason="host_key_unpinned",
        )
    return offered


def greet(transport: paramiko.Transport, offered: Sequence[str]) -> HostKey:
    """Exchanges keys and returns the host key that the server has proved to hold. Belongs inside `connect.deadline`.

    Raises:
        Permanent: `algorithms_differ` when both sides have none in common.
        paramiko.SSHException: the handshake is not completed, or whatever paramiko meets in a broken one.
    """
    transport.get_security_options().key_types = tuple(offered)
    try:
        transport.start_client()
    except paramiko.ssh_exception.IncompatiblePeer:
        raise Permanent("the server shares no host key type, key exchange or cipher with us", reason="algorithms_differ") from None
    return host_key(transport.get_remote_server_key())


def check_host_key(endpoint: SftpEndpoint, shown: HostKey) -> None:
    """Passes if the key shown is pinned.

    Raises:
        Permanent: `host_key_mismatch`, with the fingerprint seen.
    """
    if shown.key not in {pin.key for pin in endpoint.host_keys}:
        pinned = ", ".join(pin.fingerprint for pin in endpoint.host_keys)
        raise Permanent(
            f"{endpoint.host} shows the host key {shown.algorithm} {shown.fingerprint}, pinned is {pinned}: either the server was "
            "replaced or somebody stands in between; nothing was sent to it",
            reason="host_key_mismatch",
            endpoint=endpoint.id,
        )


def authenticate(endpoint: SftpEndpoint, transport: paramiko.Transport, credential: Credential, key: paramiko.PKey | None) -> None:
    """Authenticates with all that the credential holds and the server asks for, one after the other.

    Raises:
        Permanent: `auth_failed`, with the methods that the server wants.
        Transient: `login_cut` when the server hung up instead of refusing.
    """
    ours = (["publickey"] if key else []) + (["password", "keyboard-interactive"] if credential.password else [])
    wanted, _ = _answer(transport, "none", endpoint.username, credential, key)
    # A server that names none is tried with all.
    wanted = wanted or ours
    tried: list[str] = []
    refused = False
    while not transport.is_authenticated() and transport.is_active():
        method = next((m for m in ours if m in wanted and m not in tried), None)
        if method is None:
            break
        if tried[-1:] == ["password"] and refused:
            # The same password again would only bring the account nearer to being locked.
            break
        tried.append(method)
        next_wanted, refused = _answer(transport, method, endpoint.username, credential, key)
        wanted = next_wanted or wanted
    if transport.is_authenticated():
        return
    if not transport.is_active():
        raise Transient(
            f"{endpoint.host} hung up during the login of user '{endpoint.username}'; some servers refuse a credential that way",
            reason="login_cut",
            endpoint=endpoint.id,
        )
    raise Permanent(
        f"the server refuses user '{endpoint.username}': it wants {' or '.join(wanted) or 'nothing that it names'}, "
        f"tried {', '.join(tried) or 'nothing, for the credential holds none of these'}",
        reason="auth_failed",
        endpoint=endpoint.id,
    )


def _answer(
    transport: paramiko.Transport, method: str, username: str, credential: Credential, key: paramiko.PKey | None
) -> tuple[list[str], bool]:
    """Tries a method; returns the methods that the server wants next, where it names them, and whether it refused this one."""
    try:
        return _try(transport, method, username, credential, key), False
    except paramiko.BadAuthenticationType as error:
        return error.allowed_types, True
    except paramiko.AuthenticationException:
        return [], True


def _try(transport: paramiko.Transport, method: str, username: str, credential: Credential, key: paramiko.PKey | None) -> list[str]:
    if method == "none":
        return transport.auth_none(username)
    if method == "publickey" and key is not None:
        return transport.auth_publickey(username, key)
    password = credential.password.get_secret_value() if credential.password else ""
    if method == "password":
        return transport.auth_password(username, password, fallback=False)

    def answer(_title: str, _instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        # Only what is not shown while it is typed can be the password.
        return ["" if echoed else password for _, echoed in prompts]

    return transport.auth_interactive(username, answer)
