"""One serving process after the other, by children that do what they are told."""

from dataclasses import replace

import pytest

from app.kernel.exits import UNWRITTEN
from app.supervisor import rolling
from app.supervisor.process import ChildSpec
from app.supervisor.rolling import GONE_WITHIN_S, READY_WITHIN_S, Rolling

pytestmark = pytest.mark.unit


class FakeChild:
    made: list["FakeChild"]

    def __init__(self, spec):
        self.spec = spec
        self.words = b"go"
        self.ready = False
        self.status = None
        self.told = []
        self.pid = 1000 + len(FakeChild.made)
        FakeChild.made.append(self)

    def start(self):
        self.told.append("start")

    def tell(self, words):
        self.told.append(words)

    def leave(self):
        self.told.append("leave")

    def kill(self):
        self.told.append("kill")
        self.status = -9

    def exit_status(self):
        return self.status


class World:
    def __init__(self, monkeypatch, workers):
        FakeChild.made = []
        monkeypatch.setattr(rolling, "Child", FakeChild)
        self.at = 0.0
        self.ended = []
        self.old = [FakeChild(ChildSpec(f"serving process {n}", (), {}, 1.0, ended=self.ended.append, slot=n)) for n in range(workers)]
        self.serving = list(self.old)
        self.rolling = Rolling(self.serving, lambda: self.at)

    @property
    def newest(self):
        return FakeChild.made[-1]


def test_each_leaves_once_its_successor_is_ready_and_the_next_one_waits_until_it_is_gone(monkeypatch):
    world = World(monkeypatch, 2)
    for index in (0, 1):
        world.rolling.step()
        new = world.newest
        assert new.told == ["start", b"go"]
        assert replace(new.spec, slot=index) == world.old[index].spec
        assert world.rolling.step() is None
        assert world.old[index].told == []
        assert world.rolling.children == [new]
        new.ready = True
        assert world.rolling.step() == f"serving process {index} has a successor that is ready (process {new.pid})"
        assert world.old[index].told == ["leave"]
        assert world.serving[index] is new
        assert world.rolling.children == [world.old[index]]
        world.rolling.step()
        assert world.newest is new
        world.old[index].status = 0
        said = world.rolling.step()
    assert said == "all serving processes are new"
    assert world.rolling.done
    assert world.ended == [world.old[0].pid, world.old[1].pid]


def test_no_two_that_run_have_one_slot_however_often_all_are_replaced(monkeypatch):
    world = World(monkeypatch, 3)
    for _ in range(4):
        rolled = Rolling(world.serving, lambda: world.at)
        while not rolled.done:
            rolled.step()
            slots = [child.spec.slot for child in {*world.serving, *rolled.children}]
            assert len(set(slots)) == len(slots)
            assert set(slots) <= {0, 1, 2, 3}
            if FakeChild.made[-1].ready:
                for child in rolled.children:
                    child.status = 0
            FakeChild.made[-1].ready = True


def test_a_child_is_told_its_slot_and_one_without_is_told_nothing():
    spec = ChildSpec("serving process 0", ("python", "--index", "0"), {}, 1.0, slot=2)
    assert spec.whole_command == ("python", "--index", "0", "--slot", "2")
    assert replace(spec, slot=None).whole_command == spec.command


@pytest.mark.parametrize(("status", "why"), [(1, "exited with status 1"), (None, "was not ready within 120 s")])
def test_a_successor_that_does_not_become_ready_is_given_up_and_those_that_run_go_on(monkeypatch, status, why):
    world = World(monkeypatch, 2)
    world.rolling.step()
    world.newest.status = status
    world.at += READY_WITHIN_S + 1
    assert world.rolling.step() == f"the new serving process 0 {why}: those that run go on serving"
    assert world.rolling.done
    assert world.serving == world.old
    assert [child.told for child in world.old] == [[], []]
    assert "kill" in world.newest.told
    assert world.ended == [world.newest.pid]


def test_a_successor_that_was_given_up_is_waited_for_until_it_is_gone(monkeypatch):
    world = World(monkeypatch, 1)
    world.rolling.step()
    new = world.newest
    new.kill = lambda: new.told.append("kill")
    world.at += READY_WITHIN_S + 1
    assert "was not ready" in world.rolling.step()
    assert world.rolling.step() is None
    assert world.rolling.children == [new]
    assert (world.rolling.done, world.ended) == (False, [])
    new.status = -9
    assert world.rolling.step() is None
    assert world.rolling.done
    assert world.ended == [new.pid]
    assert new.told.count("kill") == 1


def test_one_that_does_not_leave_is_killed_once(monkeypatch):
    world = World(monkeypatch, 1)
    world.rolling.step()
    world.newest.ready = True
    world.rolling.step()
    world.old[0].kill = lambda: world.old[0].told.append("kill")
    world.at += GONE_WITHIN_S + 1
    assert "was killed" in world.rolling.step()
    assert world.rolling.step() is None
    assert world.old[0].told == ["leave", "kill"]
    world.old[0].status = -9
    assert world.rolling.step() == "all serving processes are new"


def test_one_that_left_with_records_that_no_disk_took_is_told_loudly(monkeypatch):
    world = World(monkeypatch, 1)
    world.rolling.step()
    world.newest.ready = True
    world.rolling.step()
    world.old[0].status = UNWRITTEN
    assert world.rolling.step() == (
        "error: the old serving process 0 had records in memory that no disk took; how many stands in its log (journal.buffer_lost)"
    )
    assert world.rolling.done
