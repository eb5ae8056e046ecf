"""The command of the Debian package."""

import pytest

from deploy import packaged
from deploy.system import Failed
from tests.unit.deploy.fake_host import UNITS, FakeHost


def test_enable_binds_enables_and_starts(fake: FakeHost) -> None:
    fake.enable(1)
    packaged.enable(fake.host(), [0])
    assert fake.has_called(r"^systemctl --quiet reenable camera-soft-cam@0\.service$")
    assert fake.active == {"camera-soft-cam@0.service"}
    assert (fake.root / UNITS / "camera-soft-cam@0.service.d/binding.conf").exists()


def test_invalid_settings_enable_nothing(fake: FakeHost) -> None:
    fake.answer("--check", (78, "", "CAMERA_FPS: must be a number"))
    with pytest.raises(Failed, match="nothing was changed: CAMERA_FPS: must be a number"):
        packaged.enable(fake.host(), [0])
    assert not fake.has_called("reenable")
    assert list(fake.files()) == ["etc/os-release"]


def test_masked_camera_stays_masked(fake: FakeHost) -> None:
    (fake.root / UNITS / "camera-soft-cam@0.service").symlink_to("/dev/null")
    with pytest.raises(Failed, match="camera 0 is masked; to use it: sudo systemctl unmask camera-soft-cam@0"):
        packaged.enable(fake.host(), [0])


def test_camera_that_does_not_work(fake: FakeHost) -> None:
    fake.answer(r"healthcheck\.py health", (3, "healthy; no snapshot: status 503", ""))
    with pytest.raises(Failed, match="enabled, but it does not work"):
        packaged.enable(fake.host(), [0])
    assert "camera 0: healthy; no snapshot: status 503" in fake.said()


def test_disable(fake: FakeHost) -> None:
    fake.enable(0)
    packaged.disable(fake.host(), [0])
    assert fake.has_called(r"^systemctl --quiet disable --now camera-soft-cam@0\.service$")
    assert fake.said() == "camera 0: stopped and disabled"


def test_list(fake: FakeHost) -> None:
    fake.enable(1)
    fake.enable(3)
    fake.settings = ["cam3_id\tpattern"]
    fake.answer("is-active camera-soft-cam@1", (0, "active\n", ""))
    fake.answer("is-active camera-soft-cam@[03]", (3, "inactive\n", ""))
    packaged.list_cameras(fake.host())
    assert fake.said().splitlines() == [
        "0: imx708 /base/a: disabled, inactive",
        "1: imx477 /base/b: enabled, active",
        "3: no camera pattern: enabled, inactive",
    ]


def test_list_without_cameras(fake: FakeHost) -> None:
    fake.cameras = []
    packaged.list_cameras(fake.host())
    assert fake.said() == "no camera found. Check the ribbon; try: rpicam-hello --list-cameras"


def test_passwords(fake: FakeHost) -> None:
    host = fake.host()
    with pytest.raises(Failed, match="no password and no key is set"):
        packaged.show_passwords(host)
    host.env_file.parent.mkdir(parents=True)
    host.env_file.write_text("#CAMERA_API_KEY=\nCAMERA_VIEW_KEY='view only'\nCAMERA_WIDTH=640\n")
    host.rtsp_file.write_text("cam1_view_key=rtsp-key\n")
    host.nginx_password.write_text("secret\n")
    packaged.show_passwords(host)
    assert fake.said().splitlines() == [
        f"user camera: secret  ({host.nginx_password})",
        f"CAMERA_VIEW_KEY: view only  ({host.env_file})",
        f"cam1_view_key: rtsp-key  ({host.rtsp_file})",
    ]


@pytest.mark.parametrize("number", ["", "a", "-1", "100", "1.0"])
def test_invalid_number(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        packaged.main(["disable", number] if not number.startswith("-") else ["disable", "--", number])
    assert "must be the number of a camera, 0 to 99" in capsys.readouterr().err
