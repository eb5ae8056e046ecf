"""`JpegEncoderPool`: each variant is encoded once per frame, of the latest frame, and every frame is released."""

import logging
import threading
import time
from collections import Counter

import numpy as np
import pytest

from softcam.errors import CameraError
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame, NewestFrame
from softcam.runtime.deadline import Deadline
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.streaming import jpeg_encoder
from softcam.streaming.jpeg_encoder import JpegEncoderPool, JpegVariant
from tests.support.background import eventually, soon
from tests.support.fakes import SIZE, make_frame
from tests.support.jpeg_pool import DEFAULT, REQUESTED_SIZE, Encoder, FakeChannel, Pool
from tests.support.timeouts import PATIENCE_S
from tests.unit.streaming.conftest import NoLeaks

# Streams


def test_one_encode_per_variant_and_frame(encoder: Encoder, pool: Pool) -> None:
    default, small = FakeChannel(), FakeChannel(JpegVariant(16, 50, True))
    pool.encoders.set_channels([default, small])
    for began_s in range(1, 11):
        pool.frame(began_s)
        pool.wait_for(2 * began_s)
    pool.wait_idle()
    assert Counter(encoder.calls) == Counter(
        call for began_s in range(1, 11) for call in ((began_s, None, 80, False), (began_s, (16, 8), 50, True))
    )
    assert pool.encoders.encoded_count == 20


def test_nothing_is_encoded_without_channels(encoder: Encoder, pool: Pool) -> None:
    for began_s in range(1, 4):
        pool.frame(began_s)
    pool.encoders.show_notice(["without clients"])
    pool.wait_idle()
    channel = FakeChannel()
    pool.encoders.set_channels([channel])  # gets the latest frame at once
    pool.wait_for(1)
    pool.encoders.set_channels([])
    pool.frame(4)
    pool.wait_idle()
    assert [call[0] for call in encoder.calls] == [3]


def test_published_variant_and_times(pool: Pool) -> None:
    variant = JpegVariant(16, 50)
    pool.encoders.set_channels([FakeChannel(variant)])
    before_s = time.time()
    pool.frame(time.monotonic() - 100.0)
    pool.wait_for(1)
    published_variant, picture, timestamp_s, made_s = pool.published[0]
    assert published_variant == variant
    assert jpeg.size_of(picture) == (16, 8)
    assert timestamp_s == pytest.approx(before_s - 100.0, abs=PATIENCE_S)
    assert time.monotonic() - made_s == pytest.approx(100.0, abs=PATIENCE_S)


@pytest.fixture
def photo() -> bytes:
    return jpeg.encode(make_frame(), None, 70)


def send_camera_jpeg(pool: Pool, photo: bytes, began_s: float) -> None:
    plane = np.frombuffer(photo, np.uint8)
    pool.slot.put_frame(Frame((plane,), "MJPEG", *SIZE, began_s=began_s))
    pool.encoders.on_frame()


def test_camera_jpeg_is_published_unchanged(pool: Pool, photo: bytes) -> None:
    """On the camera's thread, to each channel that needs no other size; smaller ones are encoded."""
    larger = JpegVariant(2 * SIZE[0], 40)
    smaller = JpegVariant(SIZE[0] // 2, 80)
    pool.encoders.set_channels([FakeChannel(), FakeChannel(larger), FakeChannel(smaller)])
    pool.wait_idle()
    send_camera_jpeg(pool, photo, 1.0)
    at_once = [(variant, picture) for variant, picture, *_ in pool.published if variant != smaller]
    assert at_once == [(DEFAULT, photo), (larger, photo)]
    pool.wait_for(3)
    (shrunk,) = [picture for variant, picture, *_ in pool.published if variant == smaller]
    assert jpeg.size_of(shrunk)[0] == smaller.width
    pool.wait_idle()
    assert (pool.encoders.encoded_count, len(pool.published)) == (3, 3)


def test_camera_jpeg_is_published_once(pool: Pool, photo: bytes) -> None:
    send_camera_jpeg(pool, photo, 1.0)
    pool.encoders.set_channels([FakeChannel()])
    pool.wait_for(1)  # a new channel gets the latest one
    pool.encoders.on_frame()
    pool.wait_idle()
    send_camera_jpeg(pool, photo, 2.0)
    assert [made_s for *_, made_s in pool.published] == [1.0, 2.0]


def test_camera_jpeg_is_encoded_again_for_explicit_quality(pool: Pool, photo: bytes) -> None:
    explicit = JpegVariant(0, 10, quality_is_explicit=True)
    pool.encoders.set_channels([FakeChannel(), FakeChannel(explicit)])
    pool.wait_idle()
    send_camera_jpeg(pool, photo, 1.0)
    pool.wait_for(2)
    pictures = {variant: picture for variant, picture, *_ in pool.published}
    assert pictures[DEFAULT] == photo
    assert pictures[explicit] != photo


def test_damaged_camera_jpeg(pool: Pool, photo: bytes, caplog: pytest.LogCaptureFixture) -> None:
    pool.encoders.set_channels([FakeChannel()])
    pool.wait_idle()
    send_camera_jpeg(pool, photo[: len(photo) // 2], 1.0)
    assert "Failed to encode a JPEG" in caplog.text
    send_camera_jpeg(pool, photo, 2.0)
    assert [(made_s, picture) for _, picture, _, made_s in pool.published] == [(2.0, photo)]


def test_camera_jpeg_without_memory(
    pool: Pool, photo: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **_more: object) -> bytes:
        raise MemoryError

    pool.encoders.set_channels([FakeChannel()])
    pool.wait_idle()
    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "encode", fail)
        send_camera_jpeg(pool, photo, 1.0)
    assert "Failed to encode a JPEG" in caplog.text
    send_camera_jpeg(pool, photo, 2.0)
    assert [made_s for *_, made_s in pool.published] == [2.0]


def test_camera_jpeg_does_not_replace_a_pending_notice(pool: Pool, photo: bytes, encoder: Encoder) -> None:
    """A notice is published even if a frame arrives first."""
    encoder.block()
    others = [JpegVariant(0, quality, quality_is_explicit=True) for quality in (1, 2)]
    pool.encoders.set_channels([FakeChannel(variant) for variant in others])
    pool.frame(1.0)
    eventually(lambda: encoder.inside == 2, "that both encoders are busy")
    pool.encoders.set_channels([FakeChannel()])
    pool.encoders.show_notice(["NO CAMERA"])
    send_camera_jpeg(pool, photo, 2.0)
    assert pool.published == []
    encoder.release()
    eventually(lambda: any(variant == DEFAULT for variant, *_ in pool.published), "the placeholder")


def test_jpeg_is_not_larger_than_the_frame(pool: Pool) -> None:
    pool.encoders.set_channels([FakeChannel(JpegVariant(640, 80))])
    pool.frame(1)
    pool.wait_for(1)
    assert jpeg.size_of(pool.published[0][1]) == SIZE


def test_frame_is_encoded_once_while_channels_change(encoder: Encoder, pool: Pool) -> None:
    first = FakeChannel()
    pool.encoders.set_channels([first])
    pool.frame(1)
    pool.wait_for(1)
    for _ in range(10):
        pool.encoders.set_channels([first, FakeChannel(JpegVariant(0, 10))])
        pool.encoders.set_channels([first])
        pool.encoders.on_frame()
    pool.wait_idle()
    assert [call for call in encoder.calls if call[2] == 80] == [(1, None, 80, False)]


def test_late_encoders_continue_with_latest_frame(encoder: Encoder, pool: Pool) -> None:
    pool.encoders.set_channels([FakeChannel()])
    encoder.block()
    for began_s in (1, 2):  # both are busy now
        pool.frame(began_s)
        eventually(lambda: encoder.inside == began_s)  # noqa: B023 - called at once
    for began_s in (3, 4, 5):
        pool.frame(began_s)
    assert pool.frames_out == 3  # two being encoded, and the latest
    encoder.release()
    pool.wait_for(3)
    pool.wait_idle()
    assert [call[0] for call in encoder.calls] == [1, 2, 5]


def test_frames_before_due_time_are_dropped(encoder: Encoder, pool: Pool) -> None:
    rare, default = FakeChannel(JpegVariant(0, 10)), FakeChannel(JpegVariant(0, 80))
    pool.encoders.set_channels([rare, default])
    pool.frame(1)
    pool.wait_for(2)
    rare.due_s = time.monotonic() + 1000.0
    pool.frame(2)
    pool.wait_for(3)
    rare.due_s = 0.0
    pool.frame(3)
    pool.wait_for(5)
    pool.wait_idle()
    assert sorted(call[0] for call in encoder.calls if call[2] == 10) == [1, 3]


def test_channels_take_turns_under_overload(encoder: Encoder, pool: Pool) -> None:
    channels = [FakeChannel(JpegVariant(0, quality)) for quality in (10, 20, 30, 40)]
    encoder.block()
    pool.encoders.set_channels(channels)
    for round_ in range(1, 9):  # two JPEGs per frame, and the next frame arrives before they are done
        pool.frame(round_)
        eventually(lambda: encoder.inside == 2)
        pool.frame(round_ + 0.5)
        encoder.release(2)
        pool.wait_for(2 * round_)
    assert {variant.quality for variant, *_ in pool.published} == {10, 20, 30, 40}
    encoder.release()


# Errors


@pytest.mark.parametrize("error", [CameraError("damaged"), ValueError("a bug"), MemoryError()], ids=repr)
def test_bad_frame_does_not_affect_the_next(
    encoder: Encoder, pool: Pool, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    pool.encoders.set_channels([FakeChannel()])
    encoder.error = error
    for began_s in range(1, 51):
        pool.frame(began_s)
        eventually(lambda: len(encoder.calls) == began_s)  # noqa: B023 - called at once
    pool.wait_idle()
    assert pool.frames_out == 1  # the latest one, in the slot
    encoder.error = None
    pool.frame(51)
    pool.wait_for(1)
    (record,) = caplog.records  # of fifty
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_repeated_errors_are_logged_at_a_limited_rate(
    encoder: Encoder, no_leaks: NoLeaks, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    with no_leaks():
        pool = Pool(errors=RateLimitedLogger(logging.getLogger("softcam"), 10.0, clock=lambda: now_s))
        encoder.error = CameraError("damaged")
        pool.encoders.set_channels([FakeChannel()])
        for began_s in range(1, 6):
            pool.frame(began_s)
            eventually(lambda: len(encoder.calls) == began_s)  # noqa: B023 - called at once
        pool.wait_idle()
        now_s = 10.0
        pool.frame(6)
        eventually(lambda: len(caplog.records) == 2)
        pool.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "Failed to encode a JPEG: damaged",
        "Failed to encode a JPEG: damaged (4 more suppressed)",
    ]
    assert pool.encoders.encoded_count == 0  # failed ones are not counted


# The placeholder


def test_placeholder_in_the_size_of_each_channel(pool: Pool) -> None:
    default, small = FakeChannel(), FakeChannel(JpegVariant(80, 80))
    pool.encoders.set_channels([default, small])
    pool.encoders.show_notice(["NO PICTURE"])  # before any frame: in the requested size
    pool.wait_for(2)
    pool.frame(1, SIZE)
    pool.wait_for(4)
    pool.slot.clear()
    pool.encoders.show_notice(["NO PICTURE"])
    pool.wait_for(6)
    sizes: dict[JpegVariant, list[tuple[int, int]]] = {key: [] for key in (default.variant, small.variant)}
    for variant, picture, _, _ in pool.published:
        sizes[variant].append(jpeg.size_of(picture))
    assert sizes[default.variant] == [REQUESTED_SIZE, SIZE, SIZE]
    assert sizes[small.variant] == [(80, 48), SIZE, SIZE]


def test_placeholder_is_newer_than_frames_before_it(pool: Pool) -> None:
    pool.encoders.set_channels([FakeChannel()])
    pool.frame(time.monotonic())
    pool.wait_for(1)
    pool.encoders.show_notice(["NO PICTURE"])
    pool.wait_for(2)
    assert pool.published[1][3] > pool.published[0][3]


def test_failing_placeholder_does_not_end_the_encoder(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise ValueError("a bug")

    pool.encoders.set_channels([FakeChannel()])
    monkeypatch.setattr(jpeg_encoder, "placeholder", fail)
    pool.encoders.show_notice(["NO PICTURE"])
    pool.wait_idle()
    pool.frame(1)
    pool.wait_for(1)


# Stopping


def test_stop_waits_until_its_deadline(encoder: Encoder, pool: Pool) -> None:
    pool.encoders.set_channels([FakeChannel()])
    encoder.block()
    pool.frame(1)
    eventually(lambda: encoder.inside == 1)
    pool.encoders.stop(Deadline.after(0.0))  # returns, although an encoder is busy
    encoder.release()
    pool.wait_for(1)


def test_stop_before_start() -> None:
    JpegEncoderPool(NewestFrame(), REQUESTED_SIZE).stop(soon())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encoder")]
