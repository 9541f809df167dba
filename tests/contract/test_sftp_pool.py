"""Connections: reused, bounded across the fleet, renewed, given back, and never shared."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr

from deploy.local.sftp import SftpServer, new_key
from eft.adapters.buffers import SPARE, Buffers
from eft.adapters.sftp import pool
from eft.adapters.sftp.easing import InUse
from eft.domain.endpoint import Credential, SecretRef
from eft.domain.names import remote_path
from eft.domain.parts import WHOLE_UP_TO
from eft.errors import EftError, NotFound, SliceOver, Transient
from eft.ports import Slots
from tests.contract.sftp_bench import Relay, SftpBench, credential_of, pin
from tests.contract.store_suite import content_of, listed, read, uploaded
from tests.running import eventually


@pytest.fixture
def relay(sshd: SftpServer) -> Relay:
    """A relay in front of OpenSSH that counts connections."""
    return Relay(sshd.port)


@pytest.fixture
def bench(sshd: SftpServer, relay: Relay) -> Iterator[SftpBench]:
    """An endpoint behind the relay."""
    with relay.running() as port, SftpBench(sshd.account(uuid4().hex), changes={"port": port, "max_connections": 2}) as bench:
        yield bench


def use(bench: SftpBench) -> None:
    """Opens the endpoint and does something."""
    with bench.open() as store:
        listed(store)


def test_a_connection_is_used_again(bench: SftpBench, relay: Relay) -> None:
    """Blocks that follow each other share one connection and one slot, also after errors that are not the connection's."""
    use(bench)
    with pytest.raises(NotFound), bench.open() as store:
        store.stat(remote_path("none.csv"))
    with pytest.raises(SliceOver), bench.open():
        raise SliceOver
    use(bench)
    assert relay.connections == 1
    assert len(bench.limits.holders(bench.key)) == 1


def test_blocks_at_once_have_connections_of_their_own(bench: SftpBench, relay: Relay) -> None:
    """Two open blocks have two connections and two slots."""
    with bench.open() as one, bench.open() as other:
        assert listed(one) == listed(other) == {}
        assert relay.connections == 2
        assert len(bench.limits.holders(bench.key)) == 2


def test_more_than_the_limit_wait(bench: SftpBench, relay: Relay) -> None:
    """Beyond the endpoint's connections an opening is `endpoint_busy`: transient, with a pause, and not counted as a try."""
    with bench.open(), bench.open():
        with pytest.raises(Transient) as error, bench.open():
            pass
        assert error.value.reason == "endpoint_busy"
        assert error.value.counts is False
        assert error.value.retry_after is not None
        assert error.value.endpoint is None
    use(bench)
    assert relay.connections == 2


def test_slots_taken_elsewhere_count(bench: SftpBench) -> None:
    """Slots that other processes hold leave fewer here."""
    for holder in ("another", "a third"):
        assert bench.limits.acquire(bench.key, limit=2, holder=holder, lease=timedelta(seconds=60))
    with pytest.raises(Transient) as error, bench.open():
        pass
    assert error.value.reason == "endpoint_busy"


def test_idle_connections_are_closed(bench: SftpBench, relay: Relay) -> None:
    """A connection that nobody used for half a minute is closed and its slot given back; one used since then stays."""
    use(bench)
    bench.clock.advance(29)
    bench.connections.close_idle()
    assert len(bench.limits.holders(bench.key)) == 1
    bench.clock.advance(1)
    bench.connections.close_idle()
    assert bench.limits.holders(bench.key) == set()
    use(bench)
    assert relay.connections == 2


def test_a_server_that_has_enough_is_given_fewer_connections(sshd: SftpServer, relay: Relay) -> None:
    """One more than it takes is no failure of the endpoint's: whoever wanted it waits, the fleet asks for fewer, and later for more."""
    with relay.running() as port, SftpBench(sshd.account(uuid4().hex), changes={"port": port, "max_connections": 5}) as bench:
        relay.most = 2
        with bench.open(), bench.open():
            with pytest.raises(Transient) as error, bench.open():
                pass
            assert (error.value.reason, error.value.counts, error.value.endpoint) == ("endpoint_busy", False, None)
            assert error.value.retry_after is not None
            with pytest.raises(Transient) as error, bench.open():
                pass
            assert error.value.reason == "endpoint_busy"
            assert relay.refused == 1
            relay.most = None
            bench.clock.advance(15)
            with bench.open() as third:
                assert listed(third) == {}


def test_a_server_that_is_gone_is_not_taken_for_one_that_has_enough(sshd: SftpServer, relay: Relay) -> None:
    """Where no other connection lives, a refusal is the endpoint's failure, and counts."""
    with relay.running() as port, SftpBench(sshd.account(uuid4().hex), changes={"port": port, "max_connections": 5}) as bench:
        relay.most = 0
        with pytest.raises(Transient) as error, bench.open():
            pass
        assert (error.value.reason, error.value.endpoint) == ("connection_lost", bench.endpoint.id)
        relay.most = None
        with bench.open(), bench.open(), bench.open(), bench.open() as fourth:
            assert listed(fourth) == {}


def test_a_cut_in_use_halves_the_connections(sshd: SftpServer, relay: Relay) -> None:
    """Where others live; whoever has a connection keeps it."""
    with (
        relay.running() as port,
        SftpBench(sshd.account(uuid4().hex), changes={"port": port, "max_connections": 5}) as bench,
        ExitStack() as held,
    ):
        for _ in range(3):
            held.enter_context(bench.open())
        with suppress(Transient), bench.open() as store:
            store.session.wire.broken = True  # type: ignore[attr-defined] # as a cut connection has it
            raise Transient("cut")
        held.pop_all().close()
        bench.connections.close_all()
        held.enter_context(bench.open())
        held.enter_context(bench.open())
        with pytest.raises(Transient) as error, bench.open():
            pass
        assert error.value.reason == "endpoint_busy"


def test_what_large_files_move_is_compared(bench: SftpBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper looks at the connections in use, each with what it has moved of large files; small ones do not count."""
    looks: list[list[InUse]] = []
    # This pool's own: those of earlier tests may still have a keeper.
    monkeypatch.setattr(bench.connections._easing, "compare", lambda used, *, now: looks.append([*used]))
    content = content_of(WHOLE_UP_TO + 1)
    bench.put("large.bin", content)
    bench.put("small.bin", content[:1000])
    with bench.open() as store:
        for name in ("large.bin", "small.bin"):
            read(store, store.stat(remote_path(name)))
        _, commit = uploaded(store, "copy.bin", content)
        uploaded(store, "little.bin", content[:1000], attempt=2)
        looks.clear()
        eventually(lambda: looks)
        look = looks[0]
    ((endpoint, session, taken),) = look
    assert (endpoint, taken) == (bench.endpoint, 1)
    assert session.streamed == {"read": len(content), "written": len(content)}
    assert commit.size == len(content)


def test_slots_that_are_scarce_come_back_sooner(bench: SftpBench) -> None:
    """Idle connections keep at most half of an endpoint's slots from others for longer than five seconds."""
    with bench.open(), bench.open():
        both = bench.limits.holders(bench.key)
    bench.clock.advance(5)
    bench.connections.close_idle()
    assert len(both) == 2
    assert len(bench.limits.holders(bench.key)) == 1


def test_few_slots_that_are_allowed_are_scarce(sshd: SftpServer, relay: Relay) -> None:
    """Of eight that an endpoint may have, two that its server stands are soon wanted by somebody else."""
    with relay.running() as port, SftpBench(sshd.account(uuid4().hex), changes={"port": port, "max_connections": 8}) as bench:
        use(bench)
        assert bench.limits.ease(bench.key, to=1)
        bench.connections.close_all()
        use(bench)
        bench.clock.advance(5)
        bench.connections.close_idle()
        assert bench.limits.holders(bench.key) == set()


def test_slots_that_have_become_scarce_come_back_sooner(bench: SftpBench) -> None:
    """Others' slots are noticed when an idle connection's own is renewed."""
    use(bench)
    assert bench.limits.acquire(bench.key, limit=2, holder="another", lease=timedelta(seconds=600))
    bench.clock.advance(21)
    bench.connections._renew()
    bench.connections.close_idle()
    assert bench.limits.holders(bench.key) == {"another"}


def test_the_keeper_closes_by_itself_and_ends(bench: SftpBench) -> None:
    """Nobody needs to call anything: an idle connection's slot comes back, and no thread stays behind."""
    use(bench)
    keeper = bench.connections._keeper
    assert keeper is not None
    bench.clock.advance(30)
    keeper.join(60)
    assert not keeper.is_alive()
    assert bench.limits.holders(bench.key) == set()


def test_idle_memory_goes_while_there_are_connections(bench: SftpBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper sees to it: what large files left unused is there for whoever holds bytes in another way."""
    buffers = Buffers(size=100)
    taken = [buffers.take() for _ in range(2 * SPARE)]
    for one in taken:
        buffers.give(one)
    monkeypatch.setattr(pool, "BUFFERS", buffers)
    use(bench)
    keeper = bench.connections._keeper
    assert keeper is not None
    bench.clock.advance(30)
    keeper.join(60)
    again = [buffers.take() for _ in taken]
    assert sum(any(one is other for other in taken) for one in again) == SPARE


def test_slots_in_use_are_renewed(bench: SftpBench) -> None:
    """A slot outlives its lease for as long as its connection is in use."""
    with bench.open():
        (holder,) = bench.limits.holders(bench.key)
        for _ in range(4):
            bench.clock.advance(25)
            bench.connections._renew()
        for other in ("another", "a third"):
            bench.limits.acquire(bench.key, limit=2, holder=other, lease=timedelta(seconds=60))
        assert holder in bench.limits.holders(bench.key)
        assert "a third" not in bench.limits.holders(bench.key)


def test_a_lost_slot_ends_its_connection(bench: SftpBench, relay: Relay) -> None:
    """A connection whose slot could not be renewed is not used again: others have it now."""
    with bench.open():
        (holder,) = bench.limits.holders(bench.key)
        bench.limits.release(bench.key, holder=holder)
        for other in ("another", "a third"):
            bench.limits.acquire(bench.key, limit=2, holder=other, lease=timedelta(seconds=600))
        bench.clock.advance(25)
        bench.connections._renew()
    for other in ("another", "a third"):
        bench.limits.release(bench.key, holder=other)
    use(bench)
    assert relay.connections == 2


def test_a_lost_slot_is_not_used_again(bench: SftpBench, relay: Relay) -> None:
    """Not even before the keeper has closed its idle connection."""
    use(bench)
    bench.connections._idling[0].lost = True
    use(bench)
    assert relay.connections == 2
    assert len(bench.limits.holders(bench.key)) == 1


def test_a_slot_given_back_while_it_is_renewed_stays_free(bench: SftpBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper does not take it anew for a connection that is gone."""
    use(bench)
    acquire = bench.limits.acquire

    def late(key: str, *, limit: int, holder: str, lease: timedelta) -> Slots | None:
        bench.connections.close_all()
        assert bench.limits.holders(bench.key) == set()
        return acquire(key, limit=limit, holder=holder, lease=lease)

    bench.clock.advance(25)
    monkeypatch.setattr(bench.limits, "acquire", late)
    bench.connections._renew()
    assert bench.limits.holders(bench.key) == set()


def test_trouble_with_renewal_is_ridden_through(bench: SftpBench, relay: Relay) -> None:
    """A renewal that fails for the moment is tried again; the connection lives on."""
    with bench.open():
        bench.clock.advance(25)
        bench.limits.trip("acquire", Transient("throttled"))
        bench.connections._renew()
        bench.connections._renew()
    use(bench)
    assert relay.connections == 1


def test_a_changed_endpoint_gets_new_connections(bench: SftpBench, relay: Relay) -> None:
    """A new revision is connected to anew, and the old connection's slot is free for it."""
    use(bench)
    bench.endpoint = bench.endpoint.model_copy(update={"revision": 2, "max_connections": 1})
    use(bench)
    assert relay.connections == 2
    assert len(bench.limits.holders(bench.key)) == 1


def test_a_rotated_credential_gets_new_connections(sshd: SftpServer, bench: SftpBench, relay: Relay) -> None:
    """After a rotation no connection of the old credential is used."""
    use(bench)
    second = sshd.account(bench.account.name)
    bench.secrets.put(tenant="t1", endpoint=bench.endpoint.id, credential=credential_of(second))
    use(bench)
    assert relay.connections == 2


def test_a_stale_credential_is_asked_for_anew(bench: SftpBench) -> None:
    """A credential that was rotated behind the cache is refused once, forgotten, and the new one used in the same call."""
    good = credential_of(bench.account)
    stale = Credential(private_key=SecretStr(new_key("ed25519")[0]))
    secrets = bench.secrets
    secrets.put(tenant="t1", endpoint=bench.endpoint.id, credential=stale)
    forget = secrets.forget

    def forget_and_see(ref: SecretRef) -> None:
        forget(ref)
        secrets.put(tenant="t1", endpoint=bench.endpoint.id, credential=good)

    secrets.forget = forget_and_see  # type: ignore[method-assign]
    use(bench)
    assert secrets.calls["forget"] == 1


def test_a_missing_secret_takes_no_slot(bench: SftpBench) -> None:
    """A credential that is not there is the secrets' own error."""
    assert bench.endpoint.secret is not None
    bench.secrets.remove(bench.endpoint.secret)
    with pytest.raises(EftError) as error, bench.open():
        pass
    assert error.value.reason == "secret_missing"
    assert bench.limits.holders(bench.key) == set()


def test_a_connection_that_died_while_idle_is_not_used(bench: SftpBench, relay: Relay) -> None:
    """A connection that the server closed while it waited is replaced without anybody noticing."""
    use(bench)
    (slot,) = bench.connections._idling
    relay.cut()
    slot.connection._transport.join(60)
    use(bench)
    assert relay.connections == 2


def test_an_unknown_error_drops_the_connection(bench: SftpBench, relay: Relay) -> None:
    """After an error that is none of ours nobody knows what state the session is in."""
    with pytest.raises(ZeroDivisionError), bench.open():
        raise ZeroDivisionError
    assert bench.limits.holders(bench.key) == set()
    use(bench)
    assert relay.connections == 2


def test_what_is_left_open_drops_the_connection(bench: SftpBench, relay: Relay) -> None:
    """An iterator that outlives its block can do no harm to the next user of the connection."""
    # More than is asked for ahead: what has arrived by then may still be taken.
    size = 32 << 20
    bench.put("a.bin", bytes(size))
    with bench.open() as store:
        chunks = iter(store.read(store.stat(remote_path("a.bin")), start=0, size=size))
        next(chunks)
    with pytest.raises(EftError):
        list(chunks)
    use(bench)
    assert relay.connections == 2


def test_closing_all_ends_what_is_in_use_later(bench: SftpBench) -> None:
    """Closing all closes idle connections at once and those in use when their block ends; nothing is cut in the middle."""
    use(bench)
    with bench.open() as store:
        bench.connections.close_all()
        assert listed(store) == {}
        assert len(bench.limits.holders(bench.key)) == 1
    assert bench.limits.holders(bench.key) == set()


def test_a_slot_that_cannot_be_given_back_expires(bench: SftpBench) -> None:
    """Trouble with giving a slot back hides no result; the lease ends it."""
    use(bench)
    bench.limits.trip("release", Transient("throttled"))
    bench.connections.close_all()
    bench.clock.advance(61)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(bench.open())


def test_threads_never_share_a_connection(bench: SftpBench) -> None:
    """Many threads over few connections: each reads its own file whole, or is told to wait."""
    for i in range(6):
        bench.put(f"f{i}.bin", bytes([i]) * 300_000)
    wrong: list[object] = []
    done: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            try:
                with bench.open() as store:
                    held = read(store, store.stat(remote_path(f"f{number}.bin")))
            except Transient as error:
                if error.reason != "endpoint_busy":
                    wrong.append(error)
                    return
                threading.Event().wait(0.02)
                continue
            if held != bytes([number]) * 300_000:
                wrong.append(number)
            done.append(number)
            return

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sorted(done) == list(range(6))


def test_a_forked_child_connects_by_itself(bench: SftpBench, relay: Relay) -> None:
    """A child neither uses nor closes its parent's connections, idle or in use: both go on."""
    bench.endpoint = bench.endpoint.model_copy(update={"max_connections": 3})
    bench.put("a.txt", b"seen")
    with bench.open() as store:
        use(bench)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with bench.open() as own:
                    code = 0 if read(own, own.stat(remote_path("a.txt"))) == b"seen" else 2
                bench.connections.close_all()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert relay.connections == 3
        assert read(store, store.stat(remote_path("a.txt"))) == b"seen"
        use(bench)
    assert relay.connections == 3


# -- the connection test -------------------------------------------------------------------------------------------------


def test_a_probe_tells_what_the_server_can_do(bench: SftpBench) -> None:
    """A good endpoint passes each check, and shows its keys and capabilities; no connection or slot stays."""
    bench.put("a.txt", b"seen")
    report = bench.connections.probe(bench.endpoint)
    assert report.ok, report.checks
    assert [c.name for c in report.checks] == ["resolve", "connect", "host_key", "authenticate", "list"]
    assert report.host_keys == (pin(bench.account.host_key),)
    can = report.capabilities
    assert can["software"].startswith("SSH-2.0-OpenSSH")
    assert (can["posix_rename"], can["fsync"], can["limits"], can["rename"]) == ("yes", "yes", "yes", "posix")
    assert can["root"] == str(bench.directory)
    assert int(can["read_size"]) > 200_000
    assert bench.limits.holders(bench.key) == set()


def test_a_probe_without_a_pin_shows_the_keys_and_logs_nobody_in(sshd: SftpServer) -> None:
    """Without a pinned key the keys are shown for confirmation, and the test ends before any login."""
    with SftpBench(sshd.account(uuid4().hex), changes={"host_keys": ()}) as bench:
        report = bench.connections.probe(bench.endpoint)
    assert not report.ok
    assert report.host_keys == (pin(sshd.host_key),)
    assert [c.name for c in report.checks if c.ok] == ["resolve", "connect"]
    assert report.checks[-1].name == "host_key"
    assert pin(sshd.host_key).fingerprint in report.checks[-1].message
    assert report.capabilities == {}


def test_a_probe_of_another_host_key_says_so(sshd: SftpServer) -> None:
    """A server that holds no pinned key fails the check, with what it shows."""
    with SftpBench(sshd.account(uuid4().hex), changes={"host_keys": (pin(new_key("ed25519")[1]),)}) as bench:
        report = bench.connections.probe(bench.endpoint)
    assert not report.ok
    assert report.host_keys == (pin(sshd.host_key),)
    assert "host_key_mismatch" in report.checks[-1].message


@pytest.mark.parametrize(
    ("changes", "credential", "failing", "reason"),
    [
        ({"host": "no-such-host.invalid"}, None, "resolve", "dns_failed"),
        ({"root": "/nowhere/at/all"}, None, "list", "directory_missing"),
        ({}, Credential(private_key=SecretStr(new_key("ed25519")[0])), "authenticate", "auth_failed"),
        ({}, Credential(private_key=SecretStr("rubbish")), "authenticate", "key_unreadable"),
    ],
)
def test_a_probe_stops_where_it_fails(
    sshd: SftpServer, changes: dict[str, object], credential: Credential | None, failing: str, reason: str
) -> None:
    """The last check names the step that fails and why; nothing is raised."""
    with SftpBench(sshd.account(uuid4().hex), changes=changes, credential=credential) as bench:
        report = bench.connections.probe(bench.endpoint)
    assert not report.ok
    assert report.checks[-1].name == failing
    assert not report.checks[-1].ok
    assert f"[{reason}]" in report.checks[-1].message
    assert all(check.ok for check in report.checks[:-1])


def test_a_probe_of_a_closed_port_fails_to_connect(bench: SftpBench, sshd: SftpServer) -> None:
    """A port where nobody listens fails the second step."""
    report = bench.connections.probe(bench.endpoint.model_copy(update={"host": "127.0.0.1", "port": 1}))
    assert [(c.name, c.ok) for c in report.checks] == [("resolve", True), ("connect", False)]
    assert "[unreachable]" in report.checks[-1].message


def test_a_probe_waits_for_no_slot(bench: SftpBench) -> None:
    """A test of an endpoint whose connections are all in use says so."""
    with bench.open(), bench.open():
        report = bench.connections.probe(bench.endpoint)
    assert not report.ok
    assert report.checks[0].name == "endpoint_busy"
