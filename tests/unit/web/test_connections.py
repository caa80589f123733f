"""Which connections stay: deadlines and bounds, by a clock that is set."""

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.connections import ConnectionLimits, Connections, address_key

pytestmark = pytest.mark.unit


class Peer:
    def __init__(self, left=0):
        self.left = left
        self.gone = False

    def unsent(self):
        return self.left

    def hang_up(self):
        self.gone = True


class Told:
    def __init__(self):
        self.reasons = Counter()

    def connection_closed(self, reason):
        self.reasons[reason] += 1


class World:
    def __init__(self, **limits):
        self.at = 100.0
        self.told = Told()
        self.book = Connections(ConnectionLimits(**limits), self.told, lambda: self.at)

    def open(self, address="192.0.2.1"):
        peer = Peer()
        peer.stays = self.book.opened(peer, address)
        return peer

    def rests(self, peer):
        self.book.due.pop(peer, None)
        self.book.idle[peer] = self.book.now

    def later(self, seconds):
        self.at += seconds
        self.book.sweep()


def test_who_sends_no_whole_head_in_time_is_hung_up_on():
    world = World(head_s=10)
    silent, quick = world.open(), world.open()
    world.rests(quick)
    world.later(9.9)
    assert not silent.gone
    world.later(0.2)
    assert (silent.gone, quick.gone) == (True, False)
    assert world.told.reasons == {"head": 1}


def test_who_trickles_gets_no_more_time():
    world = World(head_s=10)
    peer = world.open()
    for _ in range(11):
        world.book.awaits(peer)
        world.later(1)
    assert peer.gone


def test_who_asks_nothing_for_too_long_is_hung_up_on_and_who_asks_now_and_then_is_not():
    world = World(idle_s=75)
    sleeper, asker = world.open(), world.open()
    world.rests(sleeper)
    for _ in range(8):
        world.book.idle.pop(asker, None)
        world.rests(asker)
        world.later(10)
    assert (sleeper.gone, asker.gone) == (True, False)
    assert world.told.reasons == {"idle": 1}


def test_who_takes_nothing_of_an_answer_is_hung_up_on_and_who_takes_it_slowly_is_not():
    world = World(send_s=10)
    stuck, slow = world.open(), world.open()
    for peer in (stuck, slow):
        world.rests(peer)
        peer.left = 1_000_000
        world.book.sends(peer)
    for _ in range(4):
        stuck.left -= 10  # a byte a second
        slow.left -= 20_000
        world.later(10)
    assert (stuck.gone, slow.gone) == (True, False)
    assert world.told.reasons == {"send": 1}


def test_where_there_is_no_room_the_connection_goes_that_was_idle_for_longest():
    world = World(most=3)
    first, second, busy = (world.open() for _ in range(3))
    world.rests(second)
    world.later(1)
    world.rests(first)
    world.book.due.pop(busy)
    new = world.open()
    assert (second.gone, first.gone, busy.gone, new.stays) == (True, False, False, True)
    world.book.closed(second)
    assert world.book.open == 3
    assert world.told.reasons == {"full": 1}


def test_where_there_is_no_room_and_nobody_is_idle_the_new_one_goes():
    world = World(most=2)
    assert [world.open().stays for _ in range(3)] == [True, True, False]


def test_one_address_has_so_many_connections_and_others_theirs():
    world = World(most_of_address=2)
    mine = [world.open("192.0.2.1") for _ in range(3)]
    assert [peer.stays for peer in mine] == [True, True, False]
    assert world.open("192.0.2.2").stays
    for peer in mine:
        world.book.closed(peer)
    assert world.open("192.0.2.1").stays
    assert world.told.reasons == {"address": 1}


def test_the_machine_itself_and_trusted_proxies_are_not_counted():
    world = World(most_of_address=1, trusted=(ip_network("10.0.0.0/8"),))
    for address in ("127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "", "unix"):
        assert [world.open(address).stays for _ in range(3)] == [True] * 3


def test_an_ipv6_network_is_one_address():
    assert address_key("2001:db8:1:2:3::4") == address_key("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert address_key("2001:db8:1:3::9") != address_key("2001:db8:1:2::9")
    assert address_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert address_key("fe80::1%eth0") == "fe80::/64"


@given(st.lists(st.tuples(st.sampled_from(["open", "rest", "ask", "send", "close", "wait"]), st.integers(0, 5)), max_size=60))
def test_whatever_happens_the_book_knows_the_open_ones_and_nobody_else(steps):
    world = World(most=4, most_of_address=3, head_s=2, idle_s=3, send_s=2)
    peers = []
    for what, which in steps:
        if what == "open":
            peers.append(world.open(f"192.0.2.{which}"))
        elif what == "wait":
            world.later(which)
        elif peers:
            peer = peers[which % len(peers)]
            if what == "rest" and peer not in world.book.stuck:
                world.rests(peer)
            elif what == "ask":
                world.book.idle.pop(peer, None)
                world.book.awaits(peer)
            elif what == "send":
                world.book.idle.pop(peer, None)
                peer.left = 10_000
                world.book.sends(peer)
            elif what == "close":
                world.book.closed(peer)
                peers.remove(peer)
    assert world.book.open == len(peers)
    for each in (world.book.idle, world.book.due, world.book.stuck):
        assert set(each) <= set(peers)
    for peer in peers:
        world.book.closed(peer)
    assert (world.book.open, dict(world.book._of_address), world.book._counted) == (0, {}, {})
