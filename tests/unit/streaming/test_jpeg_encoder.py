"""Each wanted picture is made once, of the newest frame, and every frame is given back."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pytest

from softcam.errors import CameraError, NoPicture
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame, NewestFrame
from softcam.streaming import jpeg_encoder
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant
from tests.support.fakes import PATIENCE_S, SIZE, Background, eventually, make_frame, soon_s, waiters

NoLeaks = Callable[[], AbstractContextManager[None]]
USUAL = JpegVariant(0, 80)
WISH = (160, 96)  # of the camera; frames are smaller, to be quick


@dataclass(eq=False)
class Wanted:
    """A channel with viewers."""

    key: JpegVariant = USUAL
    due_s: float = 0.0


class Encoder:
    """Stands in for `jpeg.encode`: held up and refused by the test, it counts what it is asked for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        self.asked: list[tuple[float, tuple[int, int] | None, int, bool]] = []  # the frame is known by its beginning
        self.error: BaseException | None = None
        self._permits: float = float("inf")
        self.inside = 0

    def __call__(
        self, frame: Frame, size: tuple[int, int] | None, quality: int, *, is_quality_asked: bool = False
    ) -> bytes:
        with self._changed:
            assert frame.planes, "the frame was given back before it was encoded"
            self.asked.append((frame.began_s, size, quality, is_quality_asked))
            self.inside += 1
            assert self._changed.wait_for(lambda: self._permits > 0, PATIENCE_S)
            self._permits -= 1
            self.inside -= 1
            if self.error is not None:
                raise self.error
        return b"%.0f" % frame.began_s

    def hold(self) -> None:
        with self._changed:
            self._permits = 0

    def let(self, many: float = float("inf")) -> None:
        with self._changed:
            self._permits += many
            self._changed.notify_all()


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    encoder = Encoder()
    monkeypatch.setattr(jpeg, "encode", encoder)
    return encoder


class Studio:
    """Pictures at work, the slot that feeds them, and what they delivered."""

    def __init__(self) -> None:
        self.slot = NewestFrame()
        self.pictures = JpegEncoderPool(self.slot, WISH)
        self.delivered: list[tuple[JpegVariant, bytes, float, float]] = []
        self.deaths: list[str] = []
        self.frames_out = 0
        self._lock = threading.Lock()  # guards frames_out
        self.pictures.start(self._deliver, self.deaths.append)

    def frame(self, began_s: float, size: tuple[int, int] = SIZE) -> None:
        """The camera gives a frame."""
        with self._lock:
            self.frames_out += 1
        self.slot.put(make_frame(size=size, began_s=began_s, give_back=self._came_back))
        self.pictures.on_frame()

    def wait_for(self, many: int) -> None:
        eventually(lambda: len(self.delivered) >= many, f"{many} deliveries")

    def wait_idle(self) -> None:
        """Until both encoders sleep: whatever was to be done is done."""
        eventually(lambda: waiters(self.pictures._changed) == 2, "that the encoders sleep")

    def end(self) -> None:
        self.pictures.stop(soon_s())
        self.slot.clear()

    def _deliver(self, key: JpegVariant, jpeg: bytes, *, timestamp_s: float, made_s: float) -> None:
        self.delivered.append((key, jpeg, timestamp_s, made_s))

    def _came_back(self) -> None:
        with self._lock:
            self.frames_out -= 1


@pytest.fixture
def studio(no_leaks: NoLeaks) -> Iterator[Studio]:
    with no_leaks():
        studio = Studio()
        yield studio
        studio.end()
    assert studio.deaths == []
    assert studio.frames_out == 0, "every frame is given back"


# Streams


def test_one_encode_for_each_wish_and_frame(encoder: Encoder, studio: Studio) -> None:
    usual, small = Wanted(), Wanted(JpegVariant(16, 50, True))
    studio.pictures.want([usual, small])
    for began_s in range(1, 11):
        studio.frame(began_s)
        studio.wait_for(2 * began_s)
    studio.wait_idle()
    assert Counter(encoder.asked) == Counter(
        wish for began_s in range(1, 11) for wish in ((began_s, None, 80, False), (began_s, (16, 8), 50, True))
    )
    assert studio.pictures.encoded == 20


def test_nothing_is_made_while_nobody_wants_it(encoder: Encoder, studio: Studio) -> None:
    for began_s in range(1, 4):
        studio.frame(began_s)
    studio.pictures.show(["nobody reads this"])
    studio.wait_idle()
    wanted = Wanted()
    studio.pictures.want([wanted])  # gets the newest at once, with no further frame
    studio.wait_for(1)
    studio.pictures.want([])
    studio.frame(4)
    studio.wait_idle()
    assert [asked[0] for asked in encoder.asked] == [3]


def test_what_is_delivered_says_whose_and_when(studio: Studio) -> None:
    key = JpegVariant(16, 50)
    studio.pictures.want([Wanted(key)])
    before_s = time.time()
    studio.frame(time.monotonic() - 100.0)
    studio.wait_for(1)
    delivered_key, picture, timestamp_s, made_s = studio.delivered[0]
    assert delivered_key == key
    assert jpeg.size_of(picture) == (16, 8)
    assert timestamp_s == pytest.approx(before_s - 100.0, abs=PATIENCE_S)
    assert time.monotonic() - made_s == pytest.approx(100.0, abs=PATIENCE_S)


@pytest.fixture
def photo() -> bytes:
    return jpeg.encode(make_frame(), None, 70)


def give_jpeg(studio: Studio, photo: bytes, began_s: float) -> None:
    plane = np.frombuffer(photo, np.uint8)
    studio.slot.put(Frame((plane,), "MJPEG", *SIZE, began_s=began_s))
    studio.pictures.on_frame()


def test_the_camera_s_own_jpeg_goes_on_at_once(studio: Studio, photo: bytes) -> None:
    """By the time the camera's thread is back, and to each channel that wants it so; smaller ones are encoded."""
    larger = JpegVariant(2 * SIZE[0], 40)
    smaller = JpegVariant(SIZE[0] // 2, 80)
    studio.pictures.want([Wanted(), Wanted(larger), Wanted(smaller)])
    studio.wait_idle()
    give_jpeg(studio, photo, 1.0)
    at_once = [(key, picture) for key, picture, *_ in studio.delivered if key != smaller]
    assert at_once == [(USUAL, photo), (larger, photo)]
    studio.wait_for(3)
    (shrunk,) = [picture for key, picture, *_ in studio.delivered if key == smaller]
    assert jpeg.size_of(shrunk)[0] == smaller.width
    studio.wait_idle()
    assert (studio.pictures.encoded, len(studio.delivered)) == (3, 3)


def test_a_jpeg_goes_on_once_however_often_it_is_told_of(studio: Studio, photo: bytes) -> None:
    give_jpeg(studio, photo, 1.0)
    studio.pictures.want([Wanted()])
    studio.wait_for(1)  # whoever comes gets the newest
    studio.pictures.on_frame()
    studio.wait_idle()
    give_jpeg(studio, photo, 2.0)
    assert [made_s for *_, made_s in studio.delivered] == [1.0, 2.0]


def test_a_jpeg_of_another_quality_is_made_where_it_was_asked_for(studio: Studio, photo: bytes) -> None:
    asked = JpegVariant(0, 10, is_quality_asked=True)
    studio.pictures.want([Wanted(), Wanted(asked)])
    studio.wait_idle()
    give_jpeg(studio, photo, 1.0)
    studio.wait_for(2)
    jpeg_encoder = {key: picture for key, picture, *_ in studio.delivered}
    assert jpeg_encoder[USUAL] == photo
    assert jpeg_encoder[asked] != photo


def test_a_damaged_jpeg_costs_itself_alone(studio: Studio, photo: bytes, caplog: pytest.LogCaptureFixture) -> None:
    studio.pictures.want([Wanted()])
    studio.wait_idle()
    give_jpeg(studio, photo[: len(photo) // 2], 1.0)
    assert "could not be encoded" in caplog.text
    give_jpeg(studio, photo, 2.0)
    assert [(made_s, picture) for _, picture, _, made_s in studio.delivered] == [(2.0, photo)]


def test_no_memory_for_a_jpeg_costs_itself_alone(
    studio: Studio, photo: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **_more: object) -> bytes:
        raise MemoryError

    studio.pictures.want([Wanted()])
    studio.wait_idle()
    with monkeypatch.context() as patch:
        patch.setattr(jpeg_encoder.jpeg, "encode", fail)
        give_jpeg(studio, photo, 1.0)
    assert "could not be encoded" in caplog.text
    give_jpeg(studio, photo, 2.0)
    assert [made_s for *_, made_s in studio.delivered] == [2.0]


def test_a_jpeg_does_not_overtake_a_placeholder(studio: Studio, photo: bytes, encoder: Encoder) -> None:
    """Who is told why there is no picture is told so, whatever comes meanwhile."""
    encoder.hold()
    others = [JpegVariant(0, quality, is_quality_asked=True) for quality in (1, 2)]
    studio.pictures.want([Wanted(key) for key in others])
    studio.frame(1.0)
    eventually(lambda: encoder.inside == 2, "that both encoders are busy")
    studio.pictures.want([Wanted()])
    studio.pictures.show(["the camera is away"])
    give_jpeg(studio, photo, 2.0)
    assert studio.delivered == []
    encoder.let()
    eventually(lambda: any(key == USUAL for key, *_ in studio.delivered), "the placeholder")


def test_a_picture_is_never_larger_than_the_frame(studio: Studio) -> None:
    studio.pictures.want([Wanted(JpegVariant(640, 80))])
    studio.frame(1)
    studio.wait_for(1)
    assert jpeg.size_of(studio.delivered[0][1]) == SIZE


def test_a_frame_is_made_once_however_often_viewers_change(encoder: Encoder, studio: Studio) -> None:
    first = Wanted()
    studio.pictures.want([first])
    studio.frame(1)
    studio.wait_for(1)
    for _ in range(10):
        studio.pictures.want([first, Wanted(JpegVariant(0, 10))])
        studio.pictures.want([first])
        studio.pictures.on_frame()
    studio.wait_idle()
    assert [asked for asked in encoder.asked if asked[2] == 80] == [(1, None, 80, False)]


def test_late_encoders_take_the_newest_frame(encoder: Encoder, studio: Studio) -> None:
    studio.pictures.want([Wanted()])
    encoder.hold()
    for began_s in (1, 2):  # both are busy now
        studio.frame(began_s)
        eventually(lambda: encoder.inside == began_s)  # noqa: B023 - called at once
    for began_s in (3, 4, 5):
        studio.frame(began_s)
    assert studio.frames_out == 3  # those that are encoded, and the newest
    encoder.let()
    studio.wait_for(3)
    studio.wait_idle()
    assert [asked[0] for asked in encoder.asked] == [1, 2, 5]


def test_frames_before_the_next_one_is_due_are_left_out(encoder: Encoder, studio: Studio) -> None:
    rare, usual = Wanted(JpegVariant(0, 10)), Wanted(JpegVariant(0, 80))
    studio.pictures.want([rare, usual])
    studio.frame(1)
    studio.wait_for(2)
    rare.due_s = time.monotonic() + 1000.0
    studio.frame(2)
    studio.wait_for(3)
    rare.due_s = 0.0
    studio.frame(3)
    studio.wait_for(5)
    studio.wait_idle()
    assert sorted(asked[0] for asked in encoder.asked if asked[2] == 10) == [1, 3]


def test_channels_take_turns_where_time_does_not_suffice(encoder: Encoder, studio: Studio) -> None:
    channels = [Wanted(JpegVariant(0, quality)) for quality in (10, 20, 30, 40)]
    encoder.hold()
    studio.pictures.want(channels)
    for round_ in range(1, 9):  # two are made for each frame, and the next frame is always there first
        studio.frame(round_)
        eventually(lambda: encoder.inside == 2)
        studio.frame(round_ + 0.5)
        encoder.let(2)
        studio.wait_for(2 * round_)
    assert {key.quality for key, *_ in studio.delivered} == {10, 20, 30, 40}
    encoder.let()


# Trouble


@pytest.mark.parametrize("error", [CameraError("damaged"), ValueError("a bug"), MemoryError()], ids=repr)
def test_a_bad_frame_costs_itself_alone(
    encoder: Encoder, studio: Studio, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    studio.pictures.want([Wanted()])
    encoder.error = error
    for began_s in range(1, 51):
        studio.frame(began_s)
        eventually(lambda: len(encoder.asked) == began_s)  # noqa: B023 - called at once
    studio.wait_idle()
    assert studio.frames_out == 1  # the newest, in the slot
    encoder.error = None
    studio.frame(51)
    studio.wait_for(1)
    (record,) = caplog.records  # of fifty
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_many_bad_frames_are_summed_in_the_log(
    encoder: Encoder, studio: Studio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.error = CameraError("damaged")
    studio.pictures.want([Wanted()])
    for began_s in range(1, 6):
        studio.frame(began_s)
        eventually(lambda: len(encoder.asked) == began_s)  # noqa: B023 - called at once
    studio.wait_idle()
    studio.pictures._complain_at_s = 0.0  # as after a while
    studio.frame(6)
    eventually(lambda: len(caplog.records) == 2)
    assert [record.getMessage() for record in caplog.records] == [
        "1 pictures could not be encoded: damaged",
        "5 pictures could not be encoded: damaged",
    ]
    assert studio.pictures.encoded == 0  # what failed was not made


# The placeholder


def test_the_placeholder_goes_to_everyone_in_their_size(studio: Studio) -> None:
    usual, small = Wanted(), Wanted(JpegVariant(80, 80))
    studio.pictures.want([usual, small])
    studio.pictures.show(["NO PICTURE"])  # before any frame: in the size that was wished for
    studio.wait_for(2)
    studio.frame(1, SIZE)
    studio.wait_for(4)
    studio.slot.clear()
    studio.pictures.show(["NO PICTURE"])
    studio.wait_for(6)
    sizes = {key: [] for key in (usual.key, small.key)}
    for key, picture, _, _ in studio.delivered:
        sizes[key].append(jpeg.size_of(picture))
    assert sizes[usual.key] == [WISH, SIZE, SIZE]
    assert sizes[small.key] == [(80, 48), SIZE, SIZE]


def test_the_placeholder_is_newer_than_every_frame_before_it(studio: Studio) -> None:
    studio.pictures.want([Wanted()])
    studio.frame(time.monotonic())
    studio.wait_for(1)
    studio.pictures.show(["NO PICTURE"])
    studio.wait_for(2)
    assert studio.delivered[1][3] > studio.delivered[0][3]


def test_a_placeholder_that_fails_ends_no_encoder(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise ValueError("a bug")

    studio.pictures.want([Wanted()])
    monkeypatch.setattr(jpeg_encoder, "placeholder", fail)
    studio.pictures.show(["NO PICTURE"])
    studio.wait_idle()
    studio.frame(1)
    studio.wait_for(1)


# Snapshots


def snapshots(studio: Studio, encoder: Encoder, frame: Frame, many: int) -> list[Background]:
    """Several requests for one picture, all of them waiting for its only encode."""
    asking = [Background(lambda: studio.pictures.snapshot(frame, SIZE, 90)) for _ in range(many)]
    eventually(lambda: encoder.inside == 1)
    (shared,) = studio.pictures._shared.values()
    eventually(lambda: waiters(shared._condition) == many - 1)
    return asking


def test_snapshots_of_one_moment_share_one_encode(encoder: Encoder, studio: Studio) -> None:
    frame = make_frame(began_s=7)
    encoder.hold()
    asking = snapshots(studio, encoder, frame, 8)
    encoder.let()
    answers = [call.result() for call in asking]
    assert answers == [b"7"] * 8
    assert studio.pictures.snapshot(frame, SIZE, 90) is answers[0]  # a moment later, too
    assert encoder.asked == [(7, SIZE, 90, False)]


def test_every_other_wish_is_an_encode_of_its_own(encoder: Encoder, studio: Studio) -> None:
    frame, later, larger = make_frame(began_s=7), make_frame(began_s=8), make_frame(began_s=7, size=(64, 32))
    for frame_, size, quality, is_asked in (
        (frame, SIZE, 90, False),
        (frame, SIZE, 90, True),
        (frame, SIZE, 80, False),
        (frame, (16, 8), 90, False),
        (later, SIZE, 90, False),
        (larger, SIZE, 90, False),
    ):
        studio.pictures.snapshot(frame_, size, quality, is_quality_asked=is_asked)
    assert len(encoder.asked) == 6


def test_few_snapshots_are_kept_and_none_when_told(encoder: Encoder, studio: Studio) -> None:
    for began_s in range(20):
        studio.pictures.snapshot(make_frame(began_s=began_s), SIZE, 90)
    assert 0 < len(studio.pictures._shared) <= 4
    studio.pictures.forget()
    assert len(studio.pictures._shared) == 0


class Foreign(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize("error", [CameraError("damaged"), ValueError("a bug"), Foreign()], ids=repr)
def test_nobody_waits_for_an_encode_that_failed(encoder: Encoder, studio: Studio, error: BaseException) -> None:
    frame = make_frame(began_s=7)
    encoder.hold()
    encoder.error = error
    heard: list[BaseException] = []

    def ask() -> None:
        try:
            studio.pictures.snapshot(frame, SIZE, 90)
        except BaseException as told:  # noqa: BLE001 - the one that the encoder raised
            heard.append(told)

    asking = [Background(ask) for _ in range(3)]
    eventually(lambda: encoder.inside == 1)
    (shared,) = studio.pictures._shared.values()
    eventually(lambda: waiters(shared._condition) == 2)
    encoder.let()
    for call in asking:
        call.result()
    assert heard == [error] * 3
    encoder.error = None
    assert studio.pictures.snapshot(frame, SIZE, 90) == b"7"  # the failure is not kept


def test_a_waiting_snapshot_has_a_limit(encoder: Encoder, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = make_frame(began_s=7)
    encoder.hold()
    (owner,) = snapshots(studio, encoder, frame, 1)
    monkeypatch.setattr(jpeg_encoder, "_SHARE_LIMIT_S", 0.01)
    with pytest.raises(NoPicture, match="not encoded within"):
        studio.pictures.snapshot(frame, SIZE, 90)
    encoder.let()
    assert owner.result() == b"7"


def test_another_aspect_ratio_shows_the_middle(studio: Studio) -> None:
    frame = make_frame(size=(64, 32))
    frame.planes[0][:, :16] = 0  # what is cut off is dark
    frame.planes[0][:, 48:] = 0
    square = studio.pictures.snapshot(frame, (32, 32), 90)
    plain = studio.pictures.snapshot(make_frame(size=(32, 32)), (32, 32), 90)
    assert square == plain


# The end


def test_stopping_waits_no_longer_than_it_may(encoder: Encoder, studio: Studio) -> None:
    studio.pictures.want([Wanted()])
    encoder.hold()
    studio.frame(1)
    eventually(lambda: encoder.inside == 1)
    studio.pictures.stop(time.monotonic())  # returns, although one is busy
    encoder.let()
    studio.wait_for(1)


def test_stopping_before_the_start_is_harmless() -> None:
    JpegEncoderPool(NewestFrame(), WISH).stop(soon_s())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encoder")]
