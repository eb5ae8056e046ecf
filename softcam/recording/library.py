"""The folder of recordings, as recorders and the API use it. Starts no thread; any thread may call."""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from softcam.errors import NoRecording, RecordingError
from softcam.mp4.index import InvalidMp4, Mp4Info, has_no_frames, read_mp4, write_index
from softcam.recording import names
from softcam.recording.catalog import VIEW_S, Catalog, Recording
from softcam.recording.disk import Disk
from softcam.recording.files import (
    NOT_FOUND,
    is_locked,
    is_whole_jpeg,
    lock_file,
    open_file,
    read_jpeg_ends,
    repair_jpeg,
)
from softcam.recording.folder import Folder
from softcam.recording.names import Kind
from softcam.recording.order import Order
from softcam.runtime.atomic_file import GROUP_FOLDER, sync_directory, write_file

log = logging.getLogger(__name__)

# FAT32 limits files to 4 GiB: this leaves room for the index and for the frames until the next keyframe.
MAX_FILE_BYTES: Final = 4_000_000_000
_SLACK_PARTS: Final = 100  # of the quota: one may be freed beyond what is needed
_SHARES: Final = 8  # of the quota: one for each file while it is written, because whole files are deleted


class Library:
    """Creates, deletes and recovers recordings, and keeps to the size limit; `catalog` lists and reads them."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int | None,
        read_file: Callable[[int], Mp4Info] = read_mp4,
        max_file_bytes: int = MAX_FILE_BYTES,
        view_s: float = VIEW_S,
        *,
        title: str | None = None,
    ) -> None:
        """Create the folder if possible; it may also appear later, as a USB stick does.

        `max_bytes` limits the size of all recordings; `quota` is that limit, or what the disk has room for if that is
        less, and `share` is how much of it a recorder may write to one file. All are None without a limit. Recorders
        begin another file before one exceeds `share` or `max_file_bytes`. `title` is that of the videos.
        """
        self.folder = folder
        self.title = title
        self._contents = Folder(folder)
        self.catalog = Catalog(self._contents, read_file, view_s)
        self.max_bytes = max_bytes
        self.quota = max_bytes
        self.share = None if max_bytes is None else max_bytes // _SHARES
        self.max_file_bytes = max_file_bytes
        self._saving_still = threading.Lock()  # held from making room for a still until it is written; acquired first
        self._enforcing = threading.Lock()  # one thread at a time deletes or marks, and replaces `quota` and `share`
        self._disk = Disk(folder)
        self._order = Order(folder)
        try:
            folder.mkdir(mode=GROUP_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("Recordings folder %s is not available: %s", folder, error.strerror)
        with contextlib.suppress(OSError):
            self._disk.require_mounted()

    # --- writing ----------------------------------------------------------------------------------------------

    def create_recording(self, kind: Kind, began_s: float) -> tuple[str, int]:
        """A new empty file: its name and a locked descriptor, which the caller closes before `close_recording`.

        Raises OSError.
        """
        self._disk.require_mounted()
        for number in range(1, names.MAX_PER_SECOND + 1):
            name = names.format_name(kind, began_s, number)
            try:
                descriptor = self.catalog.create_file(name)
            except FileExistsError:
                continue
            try:
                lock_file(descriptor, name)
                is_present = os.fstat(descriptor).st_nlink > 0
            except BaseException:
                os.close(descriptor)
                self.close_recording(name)
                raise
            if is_present:
                return name, descriptor
            # Another portal started, and removed the file as one that a crash left empty. The name may be its own now.
            os.close(descriptor)
            self.catalog.remove_running(name)
        raise OSError(errno.EEXIST, "too many recordings start in one second")

    def require_present(self, name: str) -> None:
        """Raises OSError if a running file is no longer in the folder: it was removed, or is hidden by another disk."""
        file = self.catalog.running_file(name)
        try:
            is_same = file is not None and os.path.samestat((self.folder / name).lstat(), os.fstat(file.descriptor))
        except FileNotFoundError:
            self.folder.stat()  # raises its own error if the folder is missing
            is_same = False
        if is_same:
            return
        self._disk.require_mounted()
        if file is not None and self.folder.stat().st_dev != os.fstat(file.descriptor).st_dev:
            raise FileNotFoundError(errno.ENOENT, "another disk was mounted over the folder, which hides the file")
        raise FileNotFoundError(errno.ENOENT, "the file was removed while it was written")

    def lower_file_limit(self, size: int) -> None:
        """The file system has failed to make a file larger than `size` bytes: files end before they have that size."""
        self.max_file_bytes = min(self.max_file_bytes, size * 9 // 10)

    def require_writable(self) -> None:
        """Raises OSError if no file can be created and written in the folder."""
        self._disk.require_mounted()
        with tempfile.TemporaryFile(dir=self.folder, prefix=".") as file:
            file.write(b"x")

    def close_recording(self, name: str) -> None:
        """The recording is finished; a file without content is removed."""
        if not self.catalog.remove_running(name).whole:
            self._remove(name)
            return
        with contextlib.suppress(OSError):
            self._disk.require_mounted()
            self._order.append([name])

    def add_still(self, jpeg: bytes, taken_s: float, thumbnail: bytes | None = None) -> Recording:
        """Save a JPEG, which is on the disk when this returns. Raises OSError."""
        with self.saving_still():
            self.enforce_quota(len(jpeg) + len(thumbnail or b""))
            name, descriptor = self.create_recording("still", taken_s)
            try:
                write_file(self.folder / name, jpeg)
                self.catalog.update_progress(name, len(jpeg))
                if thumbnail is not None:
                    self.set_thumbnail(name, thumbnail)
            finally:
                os.close(descriptor)
                self.close_recording(name)
        return self.catalog.entry(name)

    def saving_still(self) -> contextlib.AbstractContextManager[object]:
        """One thread at a time makes room for a still and writes it: else two stills could use the same room."""
        return self._saving_still

    def add_to_timelapse(self, name: str, number: int, jpeg: bytes) -> None:
        """Save a still to the folder of a running time-lapse. Raises OSError."""
        folder = self.folder / names.stills_of(name)
        if not folder.is_dir():
            folder.mkdir(mode=GROUP_FOLDER, exist_ok=True)
            sync_directory(self.folder)
        size = self._contents.stills_bytes(name) + len(jpeg)
        write_file(folder / f"{number:06}.jpg", jpeg)
        self._contents.set_stills_bytes(name, size)

    def set_thumbnail(self, name: str, jpeg: bytes) -> None:
        """Save the thumbnail of a running recording, once. If that fails, the recording has none."""
        try:
            write_file(self.folder / names.thumbnail_of(name), jpeg)
        except OSError as error:
            log.debug("No thumbnail of %s: %s", name, error)

    # --- deleting and recovering ------------------------------------------------------------------------------

    def delete_recording(self, name: str) -> None:
        """It does not return after a power cut. Raises NoRecording, and RecordingError while it is being written."""
        try:
            self._delete(name)
            sync_directory(self.folder)
        except OSError as error:
            raise RecordingError(f"{name} cannot be deleted: {error.strerror}") from error

    def _delete(self, name: str) -> None:
        """Raises OSError, RecordingError."""
        path = self.catalog.path_of(name)
        if self.catalog.running_file(name) is not None or (path.suffix == ".mp4" and is_locked(path)):
            raise RecordingError(f"{name} is being written; stop the recording first")
        if not self._has_content(name):
            raise NoRecording(NOT_FOUND)
        self._remove(name)

    def mark(self, name: str, *, is_kept: bool) -> None:
        """Set whether a recording may be deleted to free space. Raises NoRecording, RecordingError."""
        self.catalog.path_of(name)
        mark = self.folder / names.keep_mark_of(name)
        with self._enforcing:  # else it may be deleted between check and mark
            if not self._has_content(name):
                raise NoRecording(NOT_FOUND)
            try:
                if is_kept:
                    write_file(mark, b"not deleted to free space\n")
                else:
                    mark.unlink(missing_ok=True)
                    sync_directory(self.folder)
            except OSError as error:
                raise RecordingError(f"{name} cannot be marked: {error.strerror}") from error

    def _has_content(self, name: str) -> bool:
        """Also the stills of a time-lapse whose MP4 file is missing."""
        stills = self.folder / names.stills_of(name)
        return (self.folder / name).exists() or (names.is_timelapse(name) and stills.is_dir())

    def free_bytes(self) -> int:
        """What the disk has available for recordings. Raises OSError."""
        return self._disk.space()[0]

    def enforce_quota(self, needed: int = 0) -> None:
        """Make sure that `needed` bytes may be written. Raises OSError if the disk or the limit is reached.

        With a limit the recordings that ended first are deleted, except those that are marked to keep, also where the
        disk is smaller than the limit; without one, nothing is ever deleted, and with one only if that makes enough
        room. Small recordings are deleted many at once, because the folder has to be read again after each time.
        """
        with self._enforcing:
            self._disk.require_mounted()
            free, reserve = self._disk.space()
            excess = needed + reserve - free
            if self.max_bytes is None:
                if excess > 0:
                    raise OSError(errno.ENOSPC, f"the disk is full, {free // 1_000_000} MB free")
                return
            sizes, kept = self.catalog.sizes(), self.catalog.kept_names()
            used = sum(sizes.values())
            self.quota = min(self.max_bytes, max(0, used + free - reserve))
            self.share = max(0, self.quota - sum(sizes[name] for name in kept & sizes.keys())) // _SHARES
            excess = max(excess, used + needed - self.max_bytes)
            # Also without need: what is found now counts as older than what ends later.
            ended = self._order.arrange(sizes.keys() - self.catalog.running_names())
            if excess <= 0:
                return
            room = sum(sizes[name] for name in ended if name not in kept)
            if room < excess or self._delete_first(ended, sizes, excess) > 0:
                raise OSError(errno.ENOSPC, "no space left, and no older recording to delete")

    def _delete_first(self, ended: Sequence[str], sizes: Mapping[str, int], excess: int) -> int:
        """Delete at least `excess` bytes, and what fits in the slack; returns how many are still missing.

        Called with the lock held. Raises OSError.
        """
        slack = (self.quota or 0) // _SLACK_PARTS
        deleted: list[str] = []
        for name in ended:
            if excess <= 0 and sizes[name] - excess > slack:
                break
            if self.catalog.is_kept(name):
                continue
            try:
                self._delete(name)
            except (OSError, RecordingError) as error:
                log.debug("Recording not deleted: %s", error)
                continue
            excess -= sizes[name]
            deleted.append(name)
        if len(deleted) == 1:
            log.info("Deleted %s, the oldest recording, to free space", deleted[0])
        elif deleted:
            freed = sum(sizes[name] for name in deleted) / 1e6
            span = f"{deleted[0]} to {deleted[-1]}"
            log.info("Deleted %d recordings, the oldest, to free space: %s, %.1f MB", len(deleted), span, freed)
        if deleted:
            self._contents.discard(deleted)
            sync_directory(self.folder)
        return excess

    def recover(self) -> int:
        """Recover what a crash or a power cut interrupted, and remove what has no content.

        Videos lose their incomplete end and get an index, images that end early are completed. Returns the number of
        recordings that were recovered. Raises OSError if the folder cannot be read.
        """
        recovered = 0
        present = {entry.name for entry in os.scandir(self.folder)}
        self._order.arrange(self.catalog.sizes().keys() - self.catalog.running_names())
        for name in sorted(present, reverse=True):  # hidden files last
            try:
                if names.is_recording(name):
                    recovered += self.catalog.running_file(name) is None and self._recover_recording(name)
                elif names.is_timelapse(mp4 := f"{name}.mp4") and mp4 not in present:
                    self._recover_stills(mp4)
                else:
                    self._remove_leftover(name)
            except InvalidMp4 as error:
                log.debug("File %s is not a recording: %s", name, error)
            except BlockingIOError:
                log.debug("File %s is being written by another portal", name)
            except (OSError, RecordingError) as error:
                log.warning("Failed to recover %s: %s", name, error)
        self._order.forget_others(self.catalog.sizes().keys() - self.catalog.running_names())
        return recovered

    def _recover_recording(self, name: str) -> bool:
        if names.kind_of(name) == "still":
            return repair_jpeg(self.folder / name)
        with open_file(self.folder / name, os.O_RDWR) as file:
            if self.catalog.read_info(name, file).is_finished:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while another portal is writing the file
            self._recover_stills(name)
            if has_no_frames(file.fileno()):
                (self.folder / name).unlink()
                log.info("Removed %s: interrupted before its first frames were saved", name)
                return False
            mp4 = write_index(file.fileno())
        if mp4.is_finished:
            log.info("Recovered interrupted recording %s (%.1f s)", name, mp4.duration_s)
        return mp4.is_finished

    def _recover_stills(self, name: str) -> None:
        """The stills of an interrupted time-lapse."""
        stills = self.folder / names.stills_of(name)
        for path in list(stills.iterdir()) if names.is_timelapse(name) and stills.is_dir() else []:
            if path.name.startswith("."):
                path.unlink()  # `write_file` was interrupted
            elif path.suffix == ".jpg":
                repair_jpeg(path)

    def _remove_leftover(self, name: str) -> None:
        """Remove a file that was not written to its end, and a thumbnail that is damaged or has no recording."""
        owner, path = names.owner_of(name), self.folder / name
        if owner is None or self.catalog.running_file(owner) is not None:
            return
        is_whole = name == names.keep_mark_of(owner)
        if name == names.thumbnail_of(owner):
            with open_file(path) as file:
                is_whole = is_whole_jpeg(read_jpeg_ends(file))
        if not is_whole or not self._has_content(owner):
            path.unlink()

    def _remove(self, name: str) -> None:
        """Remove the file with its thumbnail and stills. Raises OSError."""
        (self.folder / names.thumbnail_of(name)).unlink(missing_ok=True)
        (self.folder / names.keep_mark_of(name)).unlink(missing_ok=True)
        if names.is_timelapse(name):
            shutil.rmtree(self.folder / names.stills_of(name), ignore_errors=True)
        (self.folder / name).unlink(missing_ok=True)
