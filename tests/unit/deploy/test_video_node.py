"""The video node of a camera, found in trees as Raspberry Pis have them."""

from pathlib import Path

import pytest

from deploy.video_node import NotFound, find_node

PI5_CAM0 = "/base/axi/pcie@120000/rp1/i2c@88000/imx708@1a"
PI5_CAM1 = "/base/axi/pcie@120000/rp1/i2c@80000/imx477@1a"
USB_ID = "/base/axi/pcie@120000/rp1/usb@200000-1:1.0-046d:0825"


class Tree:
    """A sysfs to which devices and nodes are added."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def link(self, sensor: str, receiver: str, phandle: int) -> None:
        """A ribbon cable: the sensor's endpoint names the receiver's."""
        base = self.root / "sys/firmware/devicetree"
        near, far = base / f"{sensor.lstrip('/')}/port/endpoint", base / f"{receiver.lstrip('/')}/port/endpoint"
        for folder in (near, far):
            folder.mkdir(parents=True)
        (near / "remote-endpoint").write_bytes(phandle.to_bytes(4, "big"))
        (near / "phandle").write_bytes((phandle + 1000).to_bytes(4, "big"))
        (far / "phandle").write_bytes(phandle.to_bytes(4, "big"))
        (far / "remote-endpoint").write_bytes((phandle + 1000).to_bytes(4, "big"))

    def node(self, number: int, device: str, *, of_node: str | None = None, index: int = 0, name: str = "") -> None:
        folder = self.root / "sys/devices" / device
        node = folder / "video4linux" / f"video{number}"
        node.mkdir(parents=True)
        (node / "index").write_text(f"{index}\n")
        (node / "device").symlink_to(folder)
        if of_node is not None and not (folder / "of_node").exists():
            target = self.root / "sys/firmware/devicetree" / of_node.lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            (folder / "of_node").symlink_to(target)
        entry = self.root / f"sys/class/video4linux/video{number}"
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.symlink_to(node)
        if name:
            link = self.root / "dev/v4l/by-path" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../video{number}")
        (self.root / "dev").mkdir(exist_ok=True)
        (self.root / f"dev/video{number}").touch()

    def found(self, camera_id: str) -> str:
        return find_node(camera_id, root=self.root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def pi5(tree: Tree) -> Tree:
    """Two cameras; the processor's nodes have the lowest numbers."""
    first, second = "/base/axi/pcie@120000/rp1/csi@110000", "/base/axi/pcie@120000/rp1/csi@128000"
    tree.link(PI5_CAM0, first, 0x31)
    tree.link(PI5_CAM1, second, 0x32)
    for number in range(3):
        tree.node(number, "platform/1000880000.pisp_be", of_node="/base/axi/pisp_be@880000", index=number)
    for number in (8, 9, 10):
        tree.node(number, "platform/rp1/1f00128000.csi", of_node=second, index=number - 8)
    tree.node(12, "platform/rp1/1f00110000.csi", of_node=first, index=1)
    tree.node(13, "platform/rp1/1f00110000.csi", of_node=first, index=0)
    return tree


def test_pi5_first_node_of_the_receiver(pi5: Tree) -> None:
    assert pi5.found(PI5_CAM0) == "/dev/video13"
    assert pi5.found(PI5_CAM1) == "/dev/video8"


def test_persistent_name_is_preferred(pi5: Tree) -> None:
    name = "platform-1f00128000.csi-video-index0"
    (pi5.root / "dev/v4l/by-path").mkdir(parents=True)
    (pi5.root / "dev/v4l/by-path" / name).symlink_to("../../video8")
    assert pi5.found(PI5_CAM1) == f"/dev/v4l/by-path/{name}"
    assert pi5.found(PI5_CAM0) == "/dev/video13"


def test_pi4(tree: Tree) -> None:
    sensor, receiver = "/base/soc/i2c0mux/i2c@1/imx219@10", "/base/soc/csi@7e801000"
    tree.link(sensor, receiver, 7)
    tree.node(10, "platform/bcm2835-codec", of_node="/base/soc/codec")
    tree.node(0, "platform/fe801000.csi", of_node=receiver, name="platform-fe801000.csi-video-index0")
    tree.node(1, "platform/fe801000.csi", of_node=receiver, index=1)
    assert tree.found(sensor) == "/dev/v4l/by-path/platform-fe801000.csi-video-index0"


def test_usb_camera(pi5: Tree) -> None:
    pi5.node(20, "platform/usb1/1-2/1-2:1.0")
    pi5.node(22, "platform/usb1/1-1/1-1:1.0", index=1)
    pi5.node(21, "platform/usb1/1-1/1-1:1.0", index=0)
    assert pi5.found(USB_ID) == "/dev/video21"


def test_usb_cameras_in_the_same_port_of_two_controllers(pi5: Tree) -> None:
    for number, controller in ((20, "usb@300000"), (21, "usb@200000")):
        node = pi5.root / "sys/firmware/devicetree/base/axi/pcie@120000/rp1" / controller
        node.mkdir(parents=True)
        pi5.node(number, f"platform/{controller}/usb{number}/{number}-1/{number}-1:1.0")
        (pi5.root / f"sys/devices/platform/{controller}/of_node").symlink_to(node)
    assert pi5.found(USB_ID) == "/dev/video21"


@pytest.mark.parametrize(
    ("camera_id", "why"),
    [
        ("/base/axi/pcie@120000/rp1/i2c@90000/imx219@10", "imx219@10 has no link in the device tree"),
        ("/base/axi/pcie@120000/rp1/usb@200000-3:1.0-046d:0825", "no video node found for"),
        ("Virtual0", "Virtual0 is not in the device tree and not on USB"),
    ],
)
def test_node_not_found(pi5: Tree, camera_id: str, why: str) -> None:
    with pytest.raises(NotFound, match=why):
        pi5.found(camera_id)


def test_machine_without_nodes(tree: Tree) -> None:
    with pytest.raises(NotFound, match="no video nodes on this machine"):
        tree.found(PI5_CAM0)


def test_receiver_without_a_driver(tree: Tree) -> None:
    tree.link(PI5_CAM0, "/base/axi/pcie@120000/rp1/csi@110000", 1)
    tree.node(0, "platform/other", of_node="/base/other")
    with pytest.raises(NotFound, match="no video node found for"):
        tree.found(PI5_CAM0)


def test_receiver_that_is_not_in_the_tree(pi5: Tree) -> None:
    endpoint = pi5.root / f"sys/firmware/devicetree/{PI5_CAM0.lstrip('/')}/port/endpoint/remote-endpoint"
    endpoint.write_bytes(b"9999")
    with pytest.raises(NotFound, match="imx708@1a is linked to a receiver that is not in the device tree"):
        pi5.found(PI5_CAM0)
