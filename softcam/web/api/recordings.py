"""Recordings over HTTP: list, start, stop, download with ranges, delete, stills. Runs on the threads of requests."""

from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from softcam.controls.fields import Group
from softcam.errors import NotSupported
from softcam.recording import thumbnail
from softcam.recording.catalog import Recording
from softcam.recording.service import RecordingService
from softcam.recording.timelapse import RunningTimelapse, TimelapseOptions
from softcam.recording.video_run import RecordingOptions, RunningVideo
from softcam.runtime.deadline import Deadline
from softcam.web.api import recording_docs as docs
from softcam.web.api.json_schema import with_note
from softcam.web.api.media import MediaApi, SnapshotOptions
from softcam.web.http import body
from softcam.web.http.downloads import content_disposition, file_stem
from softcam.web.http.messages import (
    AnyResponse,
    HttpError,
    Request,
    Response,
    camera_disabled,
    json_response,
)
from softcam.web.http.ranges import file_response
from softcam.web.http.router import Route

_STOP_LIMIT_S: Final = 15.0  # a slow disk may need some seconds to finish a file
_CONTENT_TYPES: Final = {".mp4": "video/mp4", ".jpg": "image/jpeg"}
_Status = Recording | RunningVideo | RunningTimelapse | None
_NAMES: Final = {"began_s": "began", "interrupted_s": "interrupted", "is_kept": "keep", "size": "bytes"}
_DECIMALS: Final = {"began": 3, "elapsed_s": 1, "duration_s": 3, "interrupted": 3}
# Browsers revalidate each time, and get 304 while the file is unchanged.
_HEADERS: Final = {"Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class RecordingsApi:
    """Handles `/v1/recordings`. `service` is None if no folder is configured; `camera` is the name that was set."""

    service: RecordingService | None
    media: MediaApi
    camera: str | None = None

    @property
    def _video(self) -> Group:
        return docs.video_group(0.0 if self.service is None else self.service.preroll_s)

    def routes(self) -> list[Route]:
        place = "/v1/recordings"
        routes = [
            Route((place,), self.get_list, doc=docs.LIST_DOC),
            Route((f"{place}/start",), self.start, "POST", doc=docs.start_doc(self._video)),
            Route((f"{place}/stop",), self.stop, "POST", doc=docs.STOP_DOC),
            Route((f"{place}/still",), self.still, "POST", doc=docs.STILL_DOC),
            Route((f"{place}/{{name}}",), self.file, doc=docs.FILE_DOC),
            Route((f"{place}/{{name}}",), self.delete, "DELETE", doc=docs.DELETE_DOC),
            Route((f"{place}/{{name}}/keep",), self.keep, "POST", doc=docs.KEEP_DOC),
            Route((f"{place}/{{name}}/keep",), self.keep, "PUT", doc=docs.KEEP_DOC),
            Route((f"{place}/{{name}}/thumbnail",), self.thumbnail, doc=docs.THUMBNAIL_DOC),
        ]
        return [replace(route, is_same_origin=True) for route in routes]

    def status(self) -> dict[str, Any] | None:
        """The field of the camera's status, described by `RECORDING_SHAPE`."""
        service = self.service
        if service is None:
            return None
        return {
            **_running(service),
            "cut_short": _cut_short(service),
            "last_error": service.last_error,
            "not_kept": service.journal.error,
        }

    def get_list(self, request: Request) -> AnyResponse:
        """The list; empty if the folder cannot be read, with the reason in `last_error`."""
        selection = docs.selection(request.query)
        service = self._require_service()
        library = service.library
        entries: list[Recording] = []
        total, has_more, used, free, error_text = 0, False, 0, None, None
        try:
            entries, total, has_more = library.catalog.select(selection)
            used, free = library.catalog.used_bytes(), library.free_bytes()
        except OSError as error:
            error_text = f"the recordings folder {library.folder} cannot be read: {error.strerror or error}"
        content = {
            "recordings": [_fields(entry) for entry in entries],
            "total": total,
            "next": docs.next_page(request.query, entries[-1].name) if entries and has_more else None,
            "running": _running(service),
            "cut_short": _cut_short(service),
            "used_bytes": used,
            "max_bytes": library.max_bytes,
            "free_bytes": free,
            "last_error": error_text or service.last_error,
        }
        return json_response(content)

    def start(self, request: Request) -> AnyResponse:
        """Raises RecordingError if one of this kind is running or nothing can be written."""
        values = dict(body.read(request, self._video, docs.TIMELAPSE))
        service = self._require_service()
        if service.video is None or service.timelapse is None:
            raise camera_disabled()
        if values.pop("kind", None) == "timelapse":
            full_sensor = values.pop("full", False)
            return _result(service.timelapse.start(TimelapseOptions(**values, full_sensor=full_sensor)), service)
        return _result(service.video.start(RecordingOptions(**values)), service)

    def stop(self, request: Request) -> AnyResponse:
        """Stop the recordings; succeeds also if nothing is running."""
        kind = body.read(request, docs.STOP).get("kind")
        service = self._require_service()
        deadline = Deadline.after(_STOP_LIMIT_S)
        ended = [
            recorder.stop(deadline)
            for name, recorder in (("video", service.video), ("timelapse", service.timelapse))
            if recorder is not None and kind in (None, name)
        ]
        return _result(next((status for status in ended if status is not None), None), service)

    def still(self, request: Request) -> AnyResponse:
        """Raises CameraError, and HttpError 409 if the photo cannot be saved."""
        options = SnapshotOptions.of(body.read(request, docs.STILL))
        library = self._require_service().library
        taken = self.media.take_snapshot(options)
        try:
            entry = library.add_still(taken.jpeg, taken.taken_s, thumbnail.of_jpeg(taken.jpeg))
        except OSError as error:
            raise HttpError(HTTPStatus.CONFLICT, f"the photo cannot be saved: {error.strerror}") from error
        return _result(entry)

    def file(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        name = request.path_parameters["name"]
        headers = dict(_HEADERS)
        if docs.DOWNLOAD.read(request.query):
            file_name = name if self.camera is None else f"{file_stem(self.camera)}-{name}"
            headers["Content-Disposition"] = content_disposition("attachment", file_name)
        catalog = self._require_service().library.catalog
        file, view = catalog.open_view(name, has_index=docs.INDEX.read(request.query) or False)
        return file_response(
            request,
            file,
            view.whole,
            _CONTENT_TYPES[name[-4:]],
            headers,
            head=view.head,
            tail=view.tail,
            modified_s=view.modified_s,
        )

    def delete(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        self._require_service().library.delete_recording(request.path_parameters["name"])
        return json_response({"status": "ok"})

    def keep(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        is_kept = body.read(request, docs.KEEP).get("keep", True)
        self._require_service().library.mark(request.path_parameters["name"], is_kept=is_kept)
        return json_response({"status": "ok", "keep": is_kept})

    def thumbnail(self, request: Request) -> AnyResponse:
        """Raises RecordingError."""
        picture = self._require_service().library.catalog.thumbnail(request.path_parameters["name"])
        return Response(picture, "image/jpeg", headers=_HEADERS)

    def _require_service(self) -> RecordingService:
        if self.service is None:
            raise NotSupported("recordings: not configured; set the folder by --recordings or CAMERA_RECORDINGS")
        return self.service


def _result(status: _Status, service: RecordingService | None = None) -> AnyResponse:
    """The response of what changes or adds a recording; `service` is that of a change which a restart must know."""
    reason = None if service is None else service.journal.error
    note = None if reason is None else f"unknown to the next start of the portal: {reason}; saving is retried"
    return json_response(with_note({"status": "ok", "recording": _fields(status)}, note))


def _running(service: RecordingService) -> dict[str, Any]:
    recorders = {"video": service.video, "timelapse": service.timelapse}
    return {name: None if recorder is None else _fields(recorder.running) for name, recorder in recorders.items()}


def _cut_short(service: RecordingService) -> dict[str, float | None]:
    return {kind: None if moment is None else round(moment, 3) for kind, moment in service.cut_short.items()}


def _fields(status: _Status) -> dict[str, Any] | None:
    """The fields for JSON, with names and precision as described."""
    if status is None:
        return None
    fields = {_NAMES.get(name, name): value for name, value in asdict(status).items()}
    for name in _DECIMALS.keys() & fields.keys():
        if fields[name] is not None:
            fields[name] = round(fields[name], _DECIMALS[name])
    return fields
