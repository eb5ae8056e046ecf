"""Which device an instance is bound to, and what is remembered about it."""

import pytest

from deploy import cameras, instances
from tests.unit.deploy.fake_host import FakeHost
from tests.unit.deploy.test_video_node import PI5_CAM0, Tree

NODE = "/dev/v4l/by-path/platform-1f00110000.csi-video-index0"
DEVICE = r"dev-v4l-by\x2dpath-platform\x2d1f00110000.csi\x2dvideo\x2dindex0.device"


@pytest.fixture
def pi5(fake: FakeHost) -> FakeHost:
    """Camera 1 is connected, and its device is known to systemd."""
    tree, receiver = Tree(fake.root), "/base/axi/pcie@120000/rp1/csi@110000"
    tree.link(PI5_CAM0, receiver, 0x31)
    tree.node(3, "platform/1f00110000.csi", of_node=receiver, name="platform-1f00110000.csi-video-index0")
    fake.cameras = [f"1\timx708\t{PI5_CAM0}"]
    fake.active |= {DEVICE, "dev-video3.device"}
    return fake


def bind(fake: FakeHost, bindings: dict[int, str] | None = None, number: int = 1) -> str:
    host = fake.host(bind=bindings)
    instances.bind(host, number, cameras.take_inventory(host))
    return fake.said()


def test_bound_to_the_node_of_the_camera(pi5: FakeHost) -> None:
    assert bind(pi5) == f"camera 1: bound to {NODE}"
    text = pi5.host().binding(1).read_text()
    assert text.startswith("# Written by deploy.sh.\n")
    assert f"\nBindsTo={DEVICE}\nAfter={DEVICE}\n\n[Install]\nWantedBy=\nWantedBy={DEVICE}\n" in text


def test_unplugged_camera_stays_bound(pi5: FakeHost) -> None:
    bind(pi5)
    bound = pi5.host().binding(1).read_text()
    pi5.cameras.clear()
    assert bind(pi5, {0: "none"}) == "camera 1: binding unchanged: the camera is missing"
    assert pi5.host().binding(1).read_text() == bound
    assert bind(pi5, number=2) == "camera 2: not bound to a device: the camera is missing"


def test_requested_binding_is_remembered(pi5: FakeHost) -> None:
    assert bind(pi5, {1: "/dev/video3"}) == "camera 1: bound to /dev/video3"
    assert bind(pi5) == "camera 1: bound to /dev/video3"
    assert pi5.host().binding(1).read_text().startswith("# Written by deploy.sh --bind 1=/dev/video3.\n")
    assert bind(pi5, {1: "none"}) == "camera 1: not bound to a device: as requested"
    assert bind(pi5) == "camera 1: not bound to a device: as requested"
    assert bind(pi5, {1: "auto"}) == f"camera 1: bound to {NODE}"
    assert pi5.host().binding(1).read_text().startswith("# Written by deploy.sh.\n")


@pytest.mark.parametrize(
    ("camera_id", "reason"), [("pattern", "the pattern camera has none"), ("http://x/", "not a camera of this portal")]
)
def test_sources_without_a_device(pi5: FakeHost, camera_id: str, reason: str) -> None:
    pi5.settings = [f"cam1_id\t{camera_id}"]
    assert bind(pi5) == f"camera 1: not bound to a device: {reason}"


def test_device_that_systemd_does_not_know(pi5: FakeHost) -> None:
    pi5.active.clear()
    assert bind(pi5) == f"camera 1: not bound to a device: systemd does not know {NODE}"
    assert pi5.passed_s == 0  # without udev it does not wait
    (pi5.root / "run/udev").mkdir()
    (pi5.root / "run/udev/control").touch()
    bind(pi5)
    assert pi5.passed_s == pytest.approx(4)


def test_device_that_udev_reports_late(pi5: FakeHost) -> None:
    (pi5.root / "run/udev").mkdir()
    (pi5.root / "run/udev/control").touch()
    pi5.active.clear()
    pi5.on_sleep = lambda: pi5.active.add(DEVICE)
    assert bind(pi5) == f"camera 1: bound to {NODE}"
