"""`JpegEncoderPool.snapshot`: concurrent requests share one encode."""

import threading

import pytest

from softcam.errors import CameraError, NoPicture
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame
from tests.support.background import Background, eventually
from tests.support.fakes import SIZE, make_frame
from tests.support.jpeg_pool import Encoder, Pool
from tests.support.timeouts import PATIENCE_S
from tests.unit.streaming.conftest import NoLeaks


def snapshots(pool: Pool, encoder: Encoder, frame: Frame, count: int) -> list[Background]:
    """Several requests for one snapshot, while its only encode is in progress."""
    requests = [Background(lambda: pool.encoders.snapshot(frame, SIZE, 90)) for _ in range(count)]
    eventually(lambda: encoder.inside == 1)
    return requests


def test_concurrent_snapshots_share_one_encode(encoder: Encoder, pool: Pool) -> None:
    frame = make_frame(began_s=7)
    encoder.block()
    requests = snapshots(pool, encoder, frame, 8)
    encoder.release()
    results = [call.result() for call in requests]
    assert results == [b"7"] * 8
    assert pool.encoders.snapshot(frame, SIZE, 90) is results[0]  # also shortly afterwards
    assert encoder.calls == [(7, SIZE, 90, False)]


def test_different_snapshots_are_encoded_separately(encoder: Encoder, pool: Pool) -> None:
    frame, later, larger = make_frame(began_s=7), make_frame(began_s=8), make_frame(began_s=7, size=(64, 32))
    for frame_, size, quality, is_explicit in (
        (frame, SIZE, 90, False),
        (frame, SIZE, 90, True),
        (frame, SIZE, 80, False),
        (frame, (16, 8), 90, False),
        (later, SIZE, 90, False),
        (larger, SIZE, 90, False),
    ):
        pool.encoders.snapshot(frame_, size, quality, quality_is_explicit=is_explicit)
    assert len(encoder.calls) == 6


def test_kept_snapshots_are_limited_and_can_be_cleared(encoder: Encoder, pool: Pool) -> None:
    for began_s in range(20):
        pool.encoders.snapshot(make_frame(began_s=began_s), SIZE, 90)
    for began_s, count in ((19, 20), (16, 20), (15, 21)):  # the last four are kept
        pool.encoders.snapshot(make_frame(began_s=began_s), SIZE, 90)
        assert len(encoder.calls) == count
    pool.encoders.clear_snapshots()
    pool.encoders.snapshot(make_frame(began_s=15), SIZE, 90)
    assert len(encoder.calls) == 22


class Foreign(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize("error", [CameraError("damaged"), ValueError("a bug"), Foreign()], ids=repr)
def test_failed_encode_is_reported_to_all_requests(encoder: Encoder, pool: Pool, error: BaseException) -> None:
    frame = make_frame(began_s=7)
    encoder.block()
    encoder.error = error
    raised: list[BaseException] = []

    def request() -> None:
        try:
            pool.encoders.snapshot(frame, SIZE, 90)
        except BaseException as caught:  # noqa: BLE001 - the error of the encoder
            raised.append(caught)

    requests = [Background(request) for _ in range(3)]
    eventually(lambda: encoder.inside == 1)
    encoder.release()
    for call in requests:
        call.result()
    assert [repr(each) for each in raised] == [repr(error)] * 3
    assert len(set(raised)) == 3, "each thread has its own, to which it adds its traceback"
    encoder.error = None
    assert pool.encoders.snapshot(frame, SIZE, 90) == b"7"  # the failure is not kept


def test_failed_encode_leaves_a_later_one_of_the_same_snapshot(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    started, fails, calls = threading.Event(), threading.Event(), list[Frame]()

    def encode(frame: Frame, *_: object, **__: object) -> bytes:
        calls.append(frame)
        if len(calls) > 1:
            return b"later"
        started.set()
        assert fails.wait(PATIENCE_S)
        raise CameraError("damaged")

    monkeypatch.setattr(jpeg, "encode", encode)
    frame = make_frame(began_s=7)
    failing = Background(lambda: pool.encoders.snapshot(frame, SIZE, 90))
    assert started.wait(PATIENCE_S)
    pool.encoders.clear_snapshots()
    assert pool.encoders.snapshot(frame, SIZE, 90) == b"later"
    fails.set()
    with pytest.raises(CameraError, match="damaged"):
        failing.result()
    assert pool.encoders.snapshot(frame, SIZE, 90) == b"later"
    assert len(calls) == 2, "the later one is shared"


def test_waiting_for_a_shared_snapshot_times_out(encoder: Encoder, no_leaks: NoLeaks) -> None:
    with no_leaks():
        pool = Pool(snapshot_timeout_s=0.01)
        frame = make_frame(began_s=7)
        encoder.block()
        (owner,) = snapshots(pool, encoder, frame, 1)
        with pytest.raises(NoPicture, match="not encoded within"):
            pool.encoders.snapshot(frame, SIZE, 90)
        encoder.release()
        assert owner.result() == b"7"
        pool.stop()


def test_snapshot_with_other_aspect_ratio_is_cropped(pool: Pool) -> None:
    frame = make_frame(size=(64, 32))
    frame.planes[0][:, :16] = 0  # the cropped parts are dark
    frame.planes[0][:, 48:] = 0
    square = pool.encoders.snapshot(frame, (32, 32), 90)
    plain = pool.encoders.snapshot(make_frame(size=(32, 32)), (32, 32), 90)
    assert square == plain
