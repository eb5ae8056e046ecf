"""The enabled instances, from folders as `systemctl enable` leaves them, and which of them this process is."""

from pathlib import Path

import pytest

from softcam.config.loader import load
from softcam.system.instances import EnabledInstances, own_instance


def enable(folder: Path, *names: str, target: str = "multi-user.target.wants") -> None:
    (folder / target).mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / target / name).symlink_to("/lib/systemd/system/camera-soft-cam@.service")  # missing in a sandbox


def test_enabled_instances(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    enable(etc, "camera-soft-cam@0.service", "camera-soft-cam@12.service", "ssh.service", "getty@1.service")
    enable(etc, "camera-soft-cam@1.service", target="dev-video0.device.requires")
    enable(etc, "camera-soft-cam@3.service", target="unused")
    enable(etc, *(f"camera-soft-cam@{name}.service" for name in ("01", "100", "", "-1", "x", "²")))
    enable(run, "camera-soft-cam@2.service", "camera-soft-cam@0.service")
    assert EnabledInstances((etc, run)).numbers() == {0, 1, 2, 12}


def test_masked_instances(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    enable(etc, *(f"camera-soft-cam@{number}.service" for number in range(5)))
    (etc / "camera-soft-cam@1.service").symlink_to("/dev/null")
    run.mkdir()
    (run / "camera-soft-cam@2.service").symlink_to("/dev/null")  # until the next boot
    (etc / "camera-soft-cam@3.service").symlink_to("/lib/systemd/system/camera-soft-cam@.service")
    (etc / "camera-soft-cam@4.service").write_text("[Service]\n")  # the owner's unit
    assert EnabledInstances((etc, run)).numbers() == {0, 3, 4}


def test_new_instance_appears(tmp_path: Path) -> None:
    now_s = [100.0]
    instances = EnabledInstances((tmp_path / "later", tmp_path), lambda: now_s[0])
    assert instances.numbers() == set()
    enable(tmp_path, "camera-soft-cam@0.service")
    assert instances.numbers() == set(), "read again within the same second"
    now_s[0] += 5
    assert instances.numbers() == {0}
    (tmp_path / "multi-user.target.wants/camera-soft-cam@0.service").unlink()
    now_s[0] += 5
    assert instances.numbers() == set()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0::/system.slice/system-camera\\x2dsoft\\x2dcam.slice/camera-soft-cam@0.service\n", 0),
        ("12:pids:/x\n1:name=systemd:/system.slice/camera-soft-cam@12.service\n0::/\n", 12),
        ("0::/user.slice/user-1000.slice/session-1.scope\n", None),
        ("0::/system.slice/camera-soft-cam@0.service/inside\n", None),
        ("0::/system.slice/my-camera-soft-cam@0.service\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_own_instance(tmp_path: Path, text: str, number: int | None) -> None:
    cgroup = tmp_path / "cgroup"
    cgroup.write_text(text)
    assert own_instance(cgroup) == number


def test_own_instance_outside_of_systemd(tmp_path: Path) -> None:
    assert own_instance(tmp_path / "missing") is None
    assert own_instance() is None


def test_ports_and_names_of_instances() -> None:
    environ = {"cam1_port": "9000", "cam1_name": "Door", "cam2_enabled": "0", "cam3_port": "http", "cam5_width": "640"}
    settings = load(["--camera", "0"], environ)
    assert settings.cameras_among({0, 1, 2, 3, 4}) == (("Camera 0", 18081), ("Door", 9000), ("Camera 4", 18085))
    assert settings.cameras_among({0}) == ()
    assert settings.cameras_among({0, 2}) == ()
