"""A ring of units: where its readers begin, and what they lose."""

from dataclasses import dataclass

from softcam.h264.ring import Reader, Ring, RingLimits

LIMITS = RingLimits()
FRAME_S = 0.1


@dataclass(frozen=True)
class Unit:
    number: int
    is_keyframe: bool
    began_s: float
    made_s: float


class Stage:
    """A ring to which the test appends units."""

    def __init__(self) -> None:
        self.requests = 0
        self.ring = Ring[Unit](self._request_keyframe)
        self.now_s = 100.0
        self.count = 0

    def append(self, kinds: str, frame_s: float = FRAME_S) -> None:
        """`K` is a keyframe, everything else is not."""
        for kind in kinds:
            self.count += 1
            self.now_s += frame_s
            self.ring.append(Unit(self.count, kind == "K", self.now_s, self.now_s))

    def reader(self) -> Reader[Unit]:
        return self.ring.new_reader(self.now_s)

    def take(self, reader: Reader[Unit]) -> list[int]:
        """The numbers of all units that the reader gets now."""
        numbers = []
        while (unit := reader.take_unit(self.now_s)) is not None:
            numbers.append(unit.number)
        return numbers

    def _request_keyframe(self) -> None:
        self.requests += 1


def test_begin_before_there_is_a_unit() -> None:
    stage = Stage()
    reader = stage.reader()
    assert stage.take(reader) == []
    stage.append("-")
    assert stage.take(reader) == []
    stage.append("K-")
    assert stage.take(reader) == [2, 3]
    assert (reader.received, reader.dropped, stage.requests) == (2, 0, 0)


def test_begin_with_a_fresh_keyframe() -> None:
    """And get what followed it at once; an older keyframe is not used, though it is in the ring."""
    stage = Stage()
    stage.append("K-K-")
    fresh = stage.reader()
    stage.append("--")
    old = stage.reader()
    assert old.keyframe is None
    assert stage.take(fresh) == [3, 4, 5, 6]
    stage.append("-K")
    assert stage.take(old) == [8]
    assert stage.take(fresh) == [7, 8]
    assert (old.dropped, fresh.dropped) == (0, 0)


def test_unit_may_be_accepted_instead_of_taken() -> None:
    stage = Stage()
    stage.append("K")
    reader = stage.reader()
    assert not reader.accept(stage.ring.unit(1))  # it begins with a keyframe that it takes
    assert stage.take(reader) == [1]
    stage.append("--")
    assert not reader.accept(stage.ring.unit(3))
    assert reader.accept(stage.ring.unit(2))
    assert not reader.accept(stage.ring.unit(2))
    assert stage.take(reader) == [3]
    assert reader.received == 3


def test_late_reader_loses_nothing() -> None:
    stage = Stage()
    stage.append("K")
    reader = stage.reader()
    stage.append("------")
    assert stage.take(reader) == [1, 2, 3, 4, 5, 6, 7]


def test_slow_reader_continues_with_the_latest_keyframe() -> None:
    stage = Stage()
    stage.append("K")
    reader = stage.reader()
    assert stage.take(reader) == [1]
    stage.append("-----K---K-")
    assert stage.take(reader) == [11, 12]
    assert (reader.received, reader.dropped, stage.requests) == (3, 9, 0)


def test_slow_readers_request_a_keyframe_once_a_second() -> None:
    stage = Stage()
    stage.append("K")
    readers = [stage.reader() for _ in range(3)]
    for reader in readers:
        assert stage.take(reader) == [1]
    stage.append("---------")
    for reader in readers:
        assert stage.take(reader) == []
        assert reader.dropped == 9
    assert stage.requests == 1
    stage.append("-K-")
    assert [stage.take(reader) for reader in readers] == [[12, 13]] * 3
    assert {reader.dropped for reader in readers} == {10}
    stage.append("---------")
    assert stage.take(readers[0]) == []
    assert stage.requests == 2


def test_ring_has_three_units_at_any_rate() -> None:
    stage = Stage()
    stage.append("K")
    reader = stage.reader()
    assert stage.take(reader) == [1]
    stage.append("---", frame_s=10 * LIMITS.length_s)
    assert stage.take(reader) == [2, 3, 4]


def test_cleared_ring_begins_with_the_next_keyframe() -> None:
    stage = Stage()
    stage.append("K-")
    stage.ring.clear()
    reader = stage.reader()
    assert stage.take(reader) == []
    stage.append("-K")
    assert stage.take(reader) == [4]
