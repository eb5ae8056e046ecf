"""Finds the /dev/videoN that delivers a camera's frames, by the id that Picamera2 gives it.

A machine has many video nodes, and their numbers change from boot to boot. A persistent name of the node
(/dev/v4l/by-path/…) is preferred.

A sensor on a ribbon is an I2C device without video nodes; the receiver at the other end of the ribbon has them. The
device tree connects the two: the sensor's endpoint names the receiver's by its phandle. The id of a USB camera has its
controller and its ports.
"""

import re
from pathlib import Path

from deploy.system import read_text

# libcamera names a USB camera by its controller, its ports and interface without the bus number, and its product.
_USB_ID = re.compile(r"(.+)-([\d.]+:\d+\.\d+)-[0-9a-f]{4}:[0-9a-f]{4}")


class NotFound(Exception):
    """The node cannot be determined; the message is the reason."""


def find_node(camera_id: str, *, root: Path = Path("/")) -> str:
    """The node's path under /dev. `root` is the folder with sys and dev. Raises NotFound."""
    nodes = [*(root / "sys/class/video4linux").glob("video[0-9]*")]
    tree = root / "sys/firmware/devicetree"
    if not nodes:
        raise NotFound("no video nodes on this machine")
    if usb := _USB_ID.fullmatch(camera_id):
        found = [node for node in nodes if _is_usb(node, tree / usb[1].lstrip("/"), usb[2])]
    elif camera_id.startswith("/base/"):
        receiver = _receiver_of(tree / camera_id.lstrip("/"), tree)
        found = [node for node in nodes if _is_of(node, receiver)]
    else:
        raise NotFound(f"{camera_id} is not in the device tree and not on USB")
    if not found:
        raise NotFound(f"no video node found for {camera_id}")
    name = min(found, key=_place).name
    persistent = (link for link in sorted((root / "dev/v4l/by-path").glob("*")) if link.resolve().name == name)
    return next((f"/dev/v4l/by-path/{link.name}" for link in persistent), f"/dev/{name}")


def _place(node: Path) -> tuple[int, int]:
    """Its place among the nodes of one device, where a receiver's first one has the frames; and its number."""
    return int(read_text(node / "index") or 0), int(node.name.removeprefix("video"))


def _receiver_of(sensor: Path, tree: Path) -> Path:
    """The device-tree node at the other end of the sensor's link."""
    wanted = {path.read_bytes() for path in sensor.rglob("remote-endpoint")}
    if not wanted:
        raise NotFound(f"{sensor.name} has no link in the device tree")
    for phandle in (tree / "base").rglob("phandle"):
        if phandle.read_bytes() in wanted and not phandle.is_relative_to(sensor):
            return phandle.parent
    raise NotFound(f"{sensor.name} is linked to a receiver that is not in the device tree")


def _is_of(node: Path, endpoint: Path) -> bool:
    device = node / "device/of_node"
    return device.exists() and endpoint.resolve().is_relative_to(device.resolve())


def _is_usb(node: Path, controller: Path, interface: str) -> bool:
    """Whether the node belongs to this interface, and to this controller if the device tree has it."""
    device = (node / "device").resolve()
    is_interface = device.name.partition("-")[2] == interface
    above = [(folder / "of_node").resolve() for folder in device.parents]
    return is_interface and (not controller.exists() or controller.resolve() in above)
