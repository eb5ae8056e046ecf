"""Focus over HTTP: modes, cycles, range and window."""

from collections.abc import Callable

from tests.conftest import Portal
from tests.support.control_client import SMALL, TELEPHOTO, change, eventually, frames_later
from tests.support.http_client import StreamClient, ask, post, status_of, wait_for_status

Start = Callable[..., Portal]


def test_lens_follows_autofocus_mode(held: Portal) -> None:
    for _ in range(2):
        change(held, "lens_position", {"position": 7.0})
        eventually(held, lambda status: status["lens_position"] == 7.0)
        change(held, "autofocus_mode", {"mode": "manual"})
        assert frames_later(held)["lens_position"] == 7.0
        change(held, "autofocus_mode", {"mode": "continuous"})
        eventually(held, lambda status: status["lens_position"] == 1.8)


def test_manual_focus_survives_reopening(held: Portal) -> None:
    change(held, "lens_position", {"position": 7.0})
    eventually(held, lambda status: status["lens_position"] == 7.0)
    change(held, "autofocus_mode", {"mode": "manual"})
    frames_later(held)
    assert ask(held, "/camera/stop", method="POST").status == 200
    wait_for_status(held, state="closed")
    assert ask(held, "/camera/start", method="POST").status == 200
    assert frames_later(held)["lens_position"] == 7.0


def test_autofocus_range_and_window(held: Portal) -> None:
    assert change(held, "autofocus", {"trigger": True}) == {
        "status": "ok", "trigger": True, "focused": True, "lens_position": 1.8,
    }  # fmt: skip
    change(held, "autofocus_range", {"range_mode": "macro"})
    assert change(held, "autofocus", {"trigger": True, "speed": "fast"})["focused"] is False  # the wall is out of range
    change(held, "autofocus_range", {"range_mode": "full"})
    card = {"x": 0.75, "y": 0.22, "width": 0.14, "height": 0.26}  # the near card
    assert change(held, "autofocus", {"trigger": True, "window": card})["lens_position"] == 5.0
    # Zoomed in on the right half, the card is elsewhere in the image, and the window is relative to the zoom.
    change(held, "roi", {"x": 0.5, "y": 0.0, "width": 0.5, "height": 0.5})
    card = {"x": 0.5, "y": 0.44, "width": 0.28, "height": 0.52}
    assert change(held, "autofocus", {"trigger": True, "window": card})["lens_position"] == 5.0
    assert change(held, "autofocus", {"trigger": True, "window": None})["lens_position"] == 1.8


def test_manual_focus_is_not_overridden(held: Portal) -> None:
    change(held, "lens_position", {"position": 7.0})
    eventually(held, lambda status: status["lens_position"] == 7.0)
    with StreamClient(held) as client:
        client.next()
        assert ask(held, "/snapshot.jpg?autofocus=1").status == 200
        assert status_of(held)["lens_position"] == 7.0
    refused = post(held, "/v1/camera/autofocus", {"trigger": True, "speed": "fast", "window": TELEPHOTO})
    assert refused.status == 409
    assert "the focus is manual" in refused.detail
    fields = ask(held, "/v1/camera/controls").json["controls"]["autofocus"]["fields"]
    assert not any(field["is_set"] for field in fields.values())
    change(held, "autofocus_mode", {"mode": "auto"})
    with StreamClient(held) as client:
        client.next()
        held.wait_for_log("Autofocus for the stream focused")
        assert status_of(held)["autofocus_mode"] == "auto"


def test_autofocus_trigger_with_autofocus_disabled(start_portal: Start) -> None:
    portal = start_portal(*SMALL, "--no-autofocus")
    answer = change(portal, "autofocus", {"trigger": True, "speed": "fast"})  # also opens the camera
    assert (answer["focused"], answer["lens_position"]) == (True, 1.8)
