"""Instances bound to real device nodes: at boot, when a device is removed or returns, and access by the cgroup.

The virtual machine ran the checks (`inside_vm.sh`); these tests evaluate its report.
"""

from collections.abc import Mapping

import pytest

Report = Mapping[str, str]


def test_udev_rule_makes_nodes_known_to_systemd(vm_report: Report) -> None:
    assert vm_report["known before the rule"] == "inactive"
    assert vm_report["known after it"] == "active"


def test_instances_bound_to_a_number_and_to_a_persistent_name(vm_report: Report) -> None:
    assert (vm_report["deployed 0"], vm_report["deployed 1"]) == ("active", "active")
    # Wanted by their devices only.
    assert vm_report["enabled"].split() == [
        r"./dev-v4l-by\x2dpath-platform\x2dvivid.0\x2dvideo\x2dindex0.device.wants/camera-soft-cam@1.service",
        "./dev-video0.device.wants/camera-soft-cam@0.service",
    ]


def test_instance_follows_its_device(vm_report: Report) -> None:
    assert (vm_report["gone 0"], vm_report["gone 1"]) == ("inactive", "inactive")
    assert vm_report["back 0"] == "active"


def test_missing_camera_is_not_retried_until_its_device_returns(vm_report: Report) -> None:
    assert (vm_report["back but missing 1"], vm_report["exit of 1"]) == ("failed", "66")
    assert vm_report["still missing 1"] == "failed, 0 restarts"
    assert vm_report["back again 1"] == "active"


def test_bound_instances_start_at_boot(vm_report: Report) -> None:
    assert (vm_report["at boot 0"], vm_report["at boot 1"]) == ("active", "active")
    assert vm_report["status line"] == "closed"


def test_memory_limit(vm_report: Report) -> None:
    assert vm_report["memory limit"] == str(512 * 1024 * 1024)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("may use video0", "yes"),
        ("may use media0", "yes"),
        ("may use udmabuf", "yes"),
        ("may read the disk", "no"),
        ("may read the kernel log", "no"),
    ],
)
def test_access_to_camera_devices_only(vm_report: Report, device: str, expected: str) -> None:
    assert vm_report[device] == expected


def test_portal_is_in_group_video(vm_report: Report) -> None:
    assert vm_report["group video"] in vm_report["groups"].removeprefix("Groups:").split()
