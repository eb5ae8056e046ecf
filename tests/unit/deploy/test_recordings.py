"""Folders of recordings: which are created or rejected, and the drop-ins for them."""

import time
from pathlib import Path

import pytest

from deploy import host as program
from deploy.system import Failed
from tests.unit.deploy.fake_host import FakeHost, fail_install, install

CREATE = "install -d -g video -m 2770 "


@pytest.fixture
def recording(fake: FakeHost) -> FakeHost:
    """Settings with a folder for recordings; `install -d` creates it."""
    fake.settings = ["CAMERA_RECORDINGS\t/srv/recordings"]

    def create() -> tuple[int, str, str]:
        (fake.root / "srv/recordings").mkdir(parents=True)
        return 0, "", ""

    fake.answer(f"^{CREATE}", create)
    return fake


def drop_in(fake: FakeHost, number: int) -> Path:
    return fake.host().recordings(number)


def test_folder_is_created_and_opened(recording: FakeHost) -> None:
    program.run_command(recording.host(), "plan", "install", "1.0-a")
    assert recording.said().count("would create /srv/recordings for recordings, group video") == 1
    said = install(recording, "1.0-a")
    assert [call for call in recording.calls if call.startswith(CREATE)] == [f"{CREATE}{recording.root}/srv/recordings"]
    assert said.count("created /srv/recordings for recordings; the group video can read them") == 1
    for number in (0, 1):
        text = drop_in(recording, number).read_text()
        assert text.startswith("# Written by deploy.sh for CAMERA_RECORDINGS.")
        assert '\n[Service]\nReadWritePaths="-/srv/recordings"\nUMask=0027\n' in text
    before = recording.files()
    assert "created" not in install(recording, "1.0-a")
    assert recording.files() == before


def test_setting_of_one_camera(recording: FakeHost) -> None:
    recording.settings = ["cam1_recordings\t/srv/recordings"]
    install(recording, "1.0-a")
    assert not drop_in(recording, 0).exists()
    assert "for cam1_recordings." in drop_in(recording, 1).read_text()


def test_drop_in_follows_the_setting(recording: FakeHost) -> None:
    install(recording, "1.0-a")
    install(recording, "2.0-b")
    program.run_command(recording.host(), "rollback")  # the settings stay
    assert drop_in(recording, 0).exists()
    recording.settings = []
    recording.calls.clear()
    time.sleep(0.05)  # the dates of files are coarse
    install(recording, "3.0-c")
    assert not drop_in(recording, 0).exists()
    assert recording.host().binding(0).exists()
    assert recording.has_called("systemctl restart")


def test_failed_deployment_restores_the_drop_in(recording: FakeHost) -> None:
    recording.settings = []
    install(recording, "1.0-a")
    recording.settings = ["CAMERA_RECORDINGS\t/srv/recordings"]
    recording.broken.add("2.0-b")
    assert "rolled back to 1.0-a" in fail_install(recording, "2.0-b")
    assert not drop_in(recording, 0).exists()


def test_uninstall_keeps_recordings(recording: FakeHost) -> None:
    install(recording, "1.0-a")
    program.run_command(recording.host(), "uninstall")
    assert not drop_in(recording, 0).parent.exists()
    assert (recording.root / "srv/recordings").is_dir()


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("recordings", "must be an absolute path"),
        ("/srv/../etc", "must be an absolute path"),
        ("/srv", "must be a separate folder"),
        ("/", "must be a separate folder"),
        ("/home/pi/recordings", "the service cannot see home folders"),
        ("/root", "the service cannot see home folders"),
        ("/tmp/recordings", "the service has a temporary folder that is deleted with it"),
        ("/var/tmp/recordings", "the service has a temporary folder that is deleted with it"),
        ("/run/recordings", "it is emptied at every boot"),
        ("/etc/camera", "it belongs to the system"),
    ],
)
def test_unusable_folder(recording: FakeHost, folder: str, reason: str) -> None:
    recording.settings = [f"CAMERA_RECORDINGS\t{folder}"]
    before = recording.files()
    said = fail_install(recording, "1.0-a")
    file = recording.host().env_file
    cure = "use another folder, such as /srv/recordings. Nothing was changed"
    assert said == f"CAMERA_RECORDINGS={folder} in {file}: {reason}; {cure}"
    assert [name for name in recording.files() if name not in before and "/releases/" not in name] == []


def test_existing_folder(recording: FakeHost) -> None:
    (recording.root / "srv/recordings").mkdir(parents=True)
    recording.answer("test -w /srv/recordings", (1, "", ""))
    with pytest.raises(Failed) as caught:
        program.plan_install(recording.host(), "1.0-a")
    assert "sudo chgrp video /srv/recordings && sudo chmod 2770 /srv/recordings" in str(caught.value)
    recording.answer("test -w /srv/recordings", (0, "", ""))
    install(recording, "1.0-a")
    assert not recording.has_called(CREATE)
    assert drop_in(recording, 0).exists()


def test_path_is_quoted_for_systemd(recording: FakeHost) -> None:
    folder = 'srv/100% "my" clips'
    (recording.root / folder).mkdir(parents=True)
    recording.settings = [f"CAMERA_RECORDINGS\t/{folder}"]
    install(recording, "1.0-a")
    assert 'ReadWritePaths="-/srv/100%% \\"my\\" clips"\n' in drop_in(recording, 0).read_text()
