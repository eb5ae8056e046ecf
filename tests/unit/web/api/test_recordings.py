"""The recordings API with the real recorders, a fake camera and real packets."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from softcam.errors import CameraError, NotSupported, PortalError
from softcam.h264.bitrate import fixed_bitrate
from softcam.imaging import jpeg
from softcam.recording.journal import Journal
from softcam.recording.library import Library
from softcam.recording.recorder import VideoRecorder
from softcam.recording.service import RecordingService
from softcam.recording.timelapse import TimelapseRecorder
from softcam.web.api.media import SnapshotOptions
from softcam.web.api.recordings import RecordingsApi
from softcam.web.http.errors import error_response
from softcam.web.http.messages import AnyResponse, FileResponse, Request, Response, parse_target
from softcam.web.http.router import Router
from tests.support.background import Background, eventually, soon
from tests.support.h264_samples import FPS, FakeSource
from tests.support.raw_http import Site
from tests.support.web_app import Scene

TRAVERSALS = (
    "..%2F2026-11-20_23-15-02.mp4",
    "../2026-11-20_23-15-02.mp4",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "..",
    "%00",
    "2026-11-20_23-15-02.mp4%00.jpg",
    ".2026-11-20_23-15-02.mp4.jpg",
    "%C0%AE%C0%AE%2F2026-11-20_23-15-02.mp4",
)


class Client:
    """Sends requests to the API without a socket."""

    def __init__(self, scene: Scene, folder: Path | None, preroll_s: float, journal: Journal | None) -> None:
        self.source = FakeSource()
        self.scene = scene
        recorders = None
        if folder is not None:
            library = Library(folder, None)
            video = VideoRecorder(
                self.source,
                scene.manager,
                library,
                preroll_s,
                lambda: None,
                scene.deaths.append,
                lambda: 1,
                journal=journal,
            )
            timelapse = TimelapseRecorder(
                library,
                lambda full: scene.media.take_snapshot(SnapshotOptions(full_sensor=full)),
                fixed_bitrate(10**6),
                scene.deaths.append,
                lambda: 1,
                journal=journal,
            )
            recorders = RecordingService(library, preroll_s, video, timelapse, journal=journal or Journal())
            recorders.open(scene.deaths.append)
        self.recorders = recorders
        self.api = RecordingsApi(recorders, scene.media)
        self.routes = Router(self.api.routes())

    def ask(
        self, target: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> AnyResponse:
        message = Message()
        for name, value in (headers or {}).items():
            message[name] = value
        path, query = parse_target(target)
        content = b"" if body is None else json.dumps(body).encode()
        route = self.routes.find(method, path, query)
        return route.handle(
            Request(method, path, query, message, "192.0.2.1", content, self.routes.path_parameters(path))
        )

    def json(self, target: str, method: str = "GET", body: Any = None) -> dict[str, Any]:
        answer = self.ask(target, method, body)
        assert isinstance(answer, Response)
        assert answer.status == 200
        content: dict[str, Any] = json.loads(answer.body)
        return content

    def bytes(self, target: str, **headers: str) -> bytes:
        answer = self.ask(target, headers=headers)
        if isinstance(answer, FileResponse):
            with answer.file as file:
                file.seek(answer.begin)
                return file.read(answer.length)
        assert isinstance(answer, Response)
        return answer.body

    def running(self, kind: str) -> dict[str, Any]:
        """The field of the camera's status."""
        status = self.api.status()
        assert status is not None
        running: dict[str, Any] = status[kind]
        return running

    def refusal(self, target: str, method: str = "GET", body: Any = None) -> tuple[int, str]:
        with pytest.raises(PortalError) as raised:
            self.ask(target, method, body)
        return error_response(raised.value).status, str(raised.value)

    def record(self, **options: Any) -> dict[str, Any]:
        """Start a recording and send one second of packets."""
        started = Background(lambda: self.json("/v1/recordings/start", "POST", options))
        eventually(lambda: self.source.sinks or started.is_over)
        self.source.give(int(FPS))
        content: dict[str, Any] = started.result()
        eventually(lambda: self.json("/v1/recordings")["running"]["video"]["bytes"])
        return content


@contextmanager
def listener(folder: Path | None, preroll_s: float = 0.0, journal: Journal | None = None) -> Iterator[Client]:
    with Scene() as scene, scene.camera.flowing():
        listener = Client(scene, folder, preroll_s, journal)
        yield listener
        if listener.recorders is not None:
            listener.recorders.close(soon())


@pytest.mark.parametrize("kind", ["video", "timelapse"])
def test_recording_that_a_restart_would_not_resume(tmp_path: Path, kind: str) -> None:
    state = tmp_path / "state"
    state.write_text("a file in place of the folder")
    retries: list[Callable[[], bool]] = []
    with listener(tmp_path / "recordings", journal=Journal(state / "journal.json", retries.append)) as d:
        client = Background(lambda: d.json("/v1/recordings/start", "POST", {"kind": kind}))
        if kind == "video":
            eventually(lambda: d.source.sinks)
            d.source.give(int(FPS))
        note = f"unknown to the next start of the portal: {state / 'journal.json'}: File exists; saving is retried"
        assert client.result()["note"] == note
        status = d.api.status()
        assert status is not None
        assert status["not_kept"] in note
        state.unlink()
        assert retries[0]()
        assert len(Journal(state / "journal.json").load()) == 1
        assert (d.api.status() or {})["not_kept"] is None
        assert "note" not in d.json("/v1/recordings/stop", "POST")


def test_empty_list(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        content = d.json("/v1/recordings")
        assert content.pop("free_bytes") > 0
        assert content == {
            "recordings": [],
            "total": 0,
            "next": None,
            "running": {"video": None, "timelapse": None},
            "cut_short": {"video": None, "timelapse": None},
            "used_bytes": 0,
            "max_bytes": None,
            "last_error": None,
        }
        nothing = {"video": None, "timelapse": None}
        assert d.api.status() == {**nothing, "cut_short": nothing, "last_error": None, "not_kept": None}
        assert d.json("/v1/recordings/stop", "POST") == {"status": "ok", "recording": None}


def test_not_supported_without_folder(tmp_path: Path) -> None:
    with listener(None) as d:
        assert d.api.status() is None
        name = "/v1/recordings/2026-11-20_23-15-02.mp4"
        for method, target in (
            ("GET", "/v1/recordings"),
            ("POST", "/v1/recordings/start"),
            ("POST", "/v1/recordings/stop"),
            ("POST", "/v1/recordings/still"),
            ("GET", name),
            ("DELETE", name),
            ("GET", f"{name}/thumbnail"),
        ):
            with pytest.raises(NotSupported, match="--recordings"):  # which is 409
                d.ask(target, method)


def test_video_from_start_to_delete(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        started = d.record()
        assert started["status"] == "ok"
        name = started["recording"]["name"]
        assert d.scene.leases["recording"] == 1
        assert d.running("video")["name"] == name
        assert d.refusal("/v1/recordings/start", "POST") == (409, "a video recording is already running; stop it first")
        (entry,) = d.json("/v1/recordings")["recordings"]
        assert (entry["name"], entry["kind"], entry["is_running"]) == (name, "video", True)
        assert d.refusal(f"/v1/recordings/{name}", "DELETE")[0] == 409
        assert d.bytes(f"/v1/recordings/{name}")[4:8] == b"ftyp"
        stopped = d.json("/v1/recordings/stop", "POST")["recording"]
        assert (stopped["name"], stopped["segments"]) == (name, 1)
        (entry,) = d.json("/v1/recordings")["recordings"]
        assert entry["duration_s"] == pytest.approx(1.0, abs=0.01)
        whole = d.bytes(f"/v1/recordings/{name}")
        assert len(whole) == entry["bytes"]
        assert d.bytes(f"/v1/recordings/{name}", Range="bytes=4-7") == b"ftyp"
        assert d.json(f"/v1/recordings/{name}", "DELETE") == {"status": "ok"}
        assert d.refusal(f"/v1/recordings/{name}", "DELETE")[0] == 404
        assert d.refusal(f"/v1/recordings/{name}")[0] == 404
        assert d.json("/v1/recordings")["recordings"] == []


def test_timelapse_and_video(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        d.record()
        lapse = d.json("/v1/recordings/start", "POST", {"kind": "timelapse", "interval_s": 0.5, "full": True})
        assert lapse["recording"]["interval_s"] == 0.5
        assert d.refusal("/v1/recordings/start", "POST", {"kind": "timelapse"})[0] == 409
        eventually(lambda: d.json("/v1/recordings")["running"]["timelapse"]["stills"])
        assert set(d.json("/v1/recordings")["running"]) == {"video", "timelapse"}
        name = d.json("/v1/recordings")["running"]["timelapse"]["name"]
        assert d.json("/v1/recordings/stop", "POST", {"kind": "timelapse"})["recording"]["name"] == name
        assert d.json("/v1/recordings")["running"]["video"] is not None
        d.json("/v1/recordings/stop", "POST")
        kinds = [entry["kind"] for entry in d.json("/v1/recordings")["recordings"]]
        assert sorted(kinds) == ["timelapse", "video"]
        assert jpeg.size_of(d.bytes(f"/v1/recordings/{name}/thumbnail"))[0] <= 320


def test_stop_without_kind_stops_all(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        d.json("/v1/recordings/start", "POST", {"kind": "timelapse"})
        assert d.json("/v1/recordings/stop", "POST", {"kind": "video"})["recording"] is None
        assert "stills" in d.json("/v1/recordings/stop", "POST")["recording"]
        assert d.json("/v1/recordings")["running"] == {"video": None, "timelapse": None}


def test_still(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        entry = d.json("/v1/recordings/still", "POST", {"width": 16, "quality": 50, "autofocus": False})["recording"]
        assert (entry["kind"], entry["width"], entry["height"]) == ("still", 16, 8)
        assert jpeg.size_of(d.bytes(f"/v1/recordings/{entry['name']}")) == (16, 8)
        assert entry["has_thumbnail"]
        full = d.json("/v1/recordings/still", "POST", {"full": True})["recording"]
        assert (full["width"], full["height"]) == (64, 32)


def test_keep(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        name = d.json("/v1/recordings/still", "POST")["recording"]["name"]
        target = f"/v1/recordings/{name}/keep"
        for method, body, expected in (
            ("POST", None, True),
            ("PUT", {"keep": False}, False),
            ("PUT", {"keep": True}, True),
            ("POST", {"keep": False}, False),
        ):
            assert d.json(target, method, body) == {"status": "ok", "keep": expected}
            assert [entry["keep"] for entry in d.json("/v1/recordings")["recordings"]] == [expected]
        assert d.refusal(target, "POST", {"keep": 2})[0] == 400
        assert d.refusal("/v1/recordings/2026-11-20_23-15-02.jpg/keep", "POST")[0] == 404


def test_failed_still_leaves_no_file(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        d.scene.camera.fail_next("open", CameraError("no such luck"))
        with pytest.raises(CameraError):
            d.ask("/v1/recordings/still", "POST")
        assert d.json("/v1/recordings")["recordings"] == []
        d.scene.held.take_failure()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"kind": "audio"}, "kind: must be one of video, timelapse"),
        ({"segment_s": 1}, "segment_s: must be a number from 2 to 3600"),
        ({"preroll_s": 6}, "preroll_s: must be a number from 0 to 5 (set by --recordings-preroll)"),
        ({"duration_s": "x"}, "duration_s: must be a number from 0.5 to 31622400"),
        ({"interval_s": 1}, "'interval_s': unknown field; the body may have kind, duration_s, segment_s, preroll_s"),
        (
            {"kind": "timelapse", "segment_s": 9},
            "'segment_s': unknown field; the body may have kind, interval_s, fps, full, duration_s",
        ),
        ({"kind": "timelapse", "interval_s": 0.4, "fps": 0}, "interval_s: must be a number from 0.5 to 86400; fps: "),
        ({"kind": ["timelapse"]}, "kind: must be one of video, timelapse"),
        ([], "body: must be a JSON object"),
    ],
)
def test_invalid_options_are_400(body: Any, expected: str, tmp_path: Path) -> None:
    with listener(tmp_path, preroll_s=5.0) as d:
        status, detail = d.refusal("/v1/recordings/start", "POST", body)
        assert status == 400
        assert detail.startswith(expected)
        assert d.json("/v1/recordings")["running"] == {"video": None, "timelapse": None}


def test_list_in_pages(tmp_path: Path) -> None:
    names = [f"2026-11-2{day}_12-00-0{second}.jpg" for day in (2, 1, 0) for second in (1, 0)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with listener(tmp_path) as d:
        found, target = list[str](), "/v1/recordings?limit=4"
        for size, following in ((4, names[3]), (2, None)):
            content = d.json(target)
            assert (len(content["recordings"]), content["next"]) == (size, following)
            found += [entry["name"] for entry in content["recordings"]]
            assert content["total"] == len(names)
            target = f"/v1/recordings?limit=4&before={content['next']}"
        assert found == names
        for query, total in (
            ("day=2026-11-21", 2),
            ("kind=video", 0),
            ("kind=still&after=1795348801", 1),
            ("before=0", 0),
        ):
            assert d.json(f"/v1/recordings?{query}")["total"] == total, query


def test_recording_that_was_cut_short(tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        assert d.recorders is not None
        assert d.recorders.video is not None
        d.recorders.video.report_cut_short(1000.12345, "its duration is over")
        expected = {"video": 1000.123, "timelapse": None}
        assert d.json("/v1/recordings")["cut_short"] == expected
        status = d.api.status()
        assert status is not None
        assert status["cut_short"] == expected
        d.record()
        assert d.json("/v1/recordings")["cut_short"]["video"] is None


@pytest.mark.parametrize(
    ("selection", "before", "places"),
    [
        ("", "", [0, 1, 2, 3, 4, 5]),
        ("kind=still", "", [0, 1, 2, 3, 4, 5]),
        ("day=2026-11-21", "", [2, 3]),
        ("after=2026-11-21_12-00-00.jpg", "", [0, 1, 2, 3]),
        ("kind=still", "1795262401", [3, 4, 5]),
        ("after=2026-11-21_12-00-00.jpg", "1795348800.5", [1, 2, 3]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 3, 6])
def test_total_is_that_of_the_selection_on_every_page(
    selection: str, before: str, places: list[int], limit: int, tmp_path: Path
) -> None:
    """Also of a time that `before` selects, which `next` repeats."""
    names = [f"2026-11-2{day}_12-00-0{second}.jpg" for day in (2, 1, 0) for second in (1, 0)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with listener(tmp_path) as d:
        found = list[str]()
        following: str | None = before
        while following is not None:
            content = d.json(
                f"/v1/recordings?limit={limit}&{selection}" + (f"&before={following}" if following else "")
            )
            assert content["total"] == len(places)
            found += [entry["name"] for entry in content["recordings"]]
            following = content["next"]
    assert found == [names[place] for place in places]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "kind=movies",
        "day=2026-02-31",
        "day=20261120",
        "before=yesterday",
        "before=2026-11-21_12-00-00.jpg,",
        "before=2026-11-21_12-00-00.jpg,yesterday",
        "before=1795348801,2026-11-21_12-00-00.jpg",
        "after=-1",
        "after=1e20",
    ],
)
def test_invalid_page_is_400(query: str, tmp_path: Path) -> None:
    with listener(tmp_path) as d:
        status, detail = d.refusal(f"/v1/recordings?{query}")
        assert (status, detail.partition(": must be ")[0]) == (400, query.partition("=")[0])


def test_missing_folder_is_an_empty_list_with_error(tmp_path: Path) -> None:
    with listener(tmp_path / "folder") as d:
        (tmp_path / "folder").rmdir()
        content = d.json("/v1/recordings")
        assert (content["recordings"], content["free_bytes"]) == ([], None)
        assert "No such file" in content["last_error"]
        status, detail = d.refusal("/v1/recordings/still", "POST")
        assert (status, "No such file" in detail) == (409, True)
        assert d.refusal("/v1/recordings/start", "POST")[0] == 409


@pytest.mark.parametrize("name", TRAVERSALS)
def test_path_traversal_is_404(name: str, tmp_path: Path) -> None:
    (tmp_path / "2026-11-20_23-15-02.mp4").write_text("secret")
    (tmp_path / "folder").mkdir()
    with listener(tmp_path / "folder") as d, Site(d.api.routes()) as site:
        for target in (f"/v1/recordings/{name}", f"/v1/recordings/{name}/thumbnail"):
            assert site.ask(target).status == 404
        assert site.ask(f"/v1/recordings/{name}", method="DELETE").status in (404, 405)
    assert (tmp_path / "2026-11-20_23-15-02.mp4").exists()


def test_file_headers(tmp_path: Path) -> None:
    with listener(tmp_path) as d, Site(d.api.routes()) as site:
        name = d.json("/v1/recordings/still", "POST")["recording"]["name"]
        target = f"/v1/recordings/{name}"
        reply = site.ask(target, headers={"Range": "bytes=0-1"})
        assert (reply.status, reply.body) == (206, b"\xff\xd8")
        assert reply.headers["Content-Type"] == "image/jpeg"
        assert reply.headers["Accept-Ranges"] == "bytes"
        assert "Content-Disposition" not in reply.headers
        assert site.ask(target, headers={"If-None-Match": reply.headers["ETag"]}).status == 304
        assert site.ask(f"{target}?download=1").headers["Content-Disposition"] == f'attachment; filename="{name}"'
        with Site(RecordingsApi(d.recorders, d.scene.media, "Gärten 庭").routes()) as named:
            file_name = named.ask(f"{target}?download=1").headers["Content-Disposition"]
        quoted = f"G%C3%A4rten-%E5%BA%AD-{name}"
        assert file_name == f"attachment; filename=\"Garten-_-{name}\"; filename*=UTF-8''{quoted}"
        assert site.ask(f"{target}?download=perhaps").status == 400
        head = site.ask(target, method="HEAD")
        assert int(head.headers["Content-Length"]) == len(site.ask(target).body)
        assert site.ask(target, headers={"Range": "bytes=99999999-"}).status == 416
