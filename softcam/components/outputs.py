"""Builds the RTSP publisher, the RTSP server and the recorders. Runs on the main thread."""

from dataclasses import dataclass
from pathlib import Path

from softcam.components.camera import CameraParts, OnCrash
from softcam.components.media import MediaParts
from softcam.config.settings import Settings
from softcam.imaging.snapshot import Snapshot
from softcam.recording import thumbnail as thumbnails
from softcam.recording.journal import Journal
from softcam.recording.library import Library
from softcam.recording.recorder import VideoRecorder
from softcam.recording.service import RecordingService, automatic_options
from softcam.recording.timelapse import TimelapseRecorder
from softcam.rtsp.publisher.publisher import Publisher
from softcam.rtsp.server.handler import HandlerLimits
from softcam.rtsp.server.server import RtspServer, ServerLimits
from softcam.rtsp.server.stream import RtpStream
from softcam.web.api.media import SnapshotOptions


@dataclass(frozen=True, slots=True)
class OutputParts:
    """The RTSP publisher, the RTSP server and the recorders; None where they are not configured."""

    publisher: Publisher | None
    rtsp: RtspServer | None
    recorders: RecordingService | None


def build_outputs(settings: Settings, source: CameraParts, media: MediaParts, on_crash: OnCrash) -> OutputParts:
    """The publisher and the recorders, with the folder of recordings, which is created."""
    publisher: Publisher | None = None
    if source.manager is not None and settings.rtsp_url is not None:
        publisher = Publisher(settings.rtsp_url, media.video, source.manager, on_crash, name=settings.name or "")
    recorders = (
        None
        if settings.recordings is None
        else _build_recorders(settings, Path(settings.recordings), source, media, on_crash)
    )
    return OutputParts(publisher, _build_rtsp(settings, source, media, on_crash), recorders)


def _build_rtsp(settings: Settings, source: CameraParts, media: MediaParts, on_crash: OnCrash) -> RtspServer | None:
    manager = source.manager
    if settings.rtsp_port is None or manager is None:
        return None
    stream = RtpStream(media.video, media.loop, on_crash, bitrate=media.video.bitrate)
    streams = dict.fromkeys(("", "stream", f"cam{source.number}"), stream)
    if media.substream is not None:
        substream = media.substream
        streams["sub"] = RtpStream(substream, media.loop, on_crash, bitrate=substream.bitrate)
    return RtspServer(
        media.loop,
        streams,
        lambda: manager.lease("rtsp").release,
        tuple(key for key in (settings.api_key, settings.view_key) if key is not None),
        lambda: str(manager.state),
        on_crash,
        ServerLimits(HandlerLimits(max_viewers=settings.max_clients, max_per_address=settings.max_clients_per_address)),
        name=settings.name or "",
        check_key=media.brake.check,
    )


def _build_recorders(
    settings: Settings, folder: Path, source: CameraParts, media: MediaParts, on_crash: OnCrash
) -> RecordingService:
    manager, controls = source.manager, source.controls
    library = Library(folder, settings.recordings_max_bytes, title=settings.name)
    state = source.state_folder
    journal = Journal(
        None if state is None else state / f"recordings-{source.state_name}.json", source.state_writer.submit_job
    )
    preroll_s = settings.recordings_preroll_s
    video = timelapse = None
    if manager is not None:
        frames = manager.frames

        def orientation() -> int:
            return controls.orientation

        def thumbnail() -> bytes | None:
            return thumbnails.of_newest(frames, orientation())

        def still(full_sensor: bool) -> Snapshot:
            return media.api.take_snapshot(SnapshotOptions(full_sensor=full_sensor), is_of_series=False)

        video = VideoRecorder(
            media.video, manager, library, preroll_s, thumbnail, on_crash, orientation, journal=journal
        )
        timelapse = TimelapseRecorder(library, still, media.video.bitrate, on_crash, orientation, journal=journal)
    autostart = automatic_options(settings.recordings_autostart)
    return RecordingService(library, preroll_s, video, timelapse, autostart, journal)
