"""The state of the machine over HTTP. Runs on the threads of requests.

Names and units of most fields are those of Pi Camera Service 2.5: mebibytes as `mb`, gibibytes as `gb`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from softcam.system.advice import advice, temperature_status
from softcam.system.disk import DiskSpace
from softcam.system.monitor import MachineState, SystemMonitor
from softcam.system.network import WifiSignal
from softcam.system.resources import Memory
from softcam.system.throttling import CONDITIONS, Throttling
from softcam.web.api.json_schema import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STATUS_OK,
    STRING,
    Schema,
    json_ok,
    note,
    nullable,
    record,
)
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Route

_MIB: Final = 2**20
_GIB: Final = 2**30
_DAY_S: Final = 86_400
# Lower limit of the signal in dBm.
_SIGNALS: Final = ((-50, "excellent"), (-60, "good"), (-70, "fair"))
_WEAK: Final = "weak"

_NUMBER: Final = nullable("number")
_BOOLEAN: Final = nullable("boolean")
_TEMPERATURE: Final = {"cpu_c": NUMBER, "status": {"enum": ["normal", "warm", "hot", "critical"]}}
_LOAD: Final = dict.fromkeys(("1min", "5min", "15min"), NUMBER)
_CPU: Final = {
    "usage_percent": _NUMBER | note("of all cores together"),
    "load_average": record(_LOAD) | nullable("object"),
    "cores": nullable("integer"),
}
_MEMORY: Final = {
    "total_mb": NUMBER | note("in MiB, as the others"),
    "used_mb": NUMBER,
    "available_mb": NUMBER,
    "percent": NUMBER,
}
_WIFI: Final = {
    "signal_dbm": INTEGER,
    "quality_percent": NUMBER | note("0 at -100 dBm, 100 at -50 dBm"),
    "status": {"enum": [*(name for _, name in _SIGNALS), _WEAK]},
    "interface": STRING,
}
_COUNTERS: Final = ("bytes_sent", "bytes_received", "packets_sent", "packets_received")
_NETWORK: Final = {
    "interface": nullable("string") | note("that of the default route"),
    **{name: nullable("integer") | note("of this interface, since the boot") for name in _COUNTERS},
    "wifi": record(_WIFI) | note("absent without a Wi-Fi connection"),
}
_DISK: Final = {
    "total_gb": NUMBER | note("in GiB, as the others"),
    "used_gb": NUMBER,
    "free_gb": NUMBER | note("for this process"),
    "percent": NUMBER,
    "path": STRING | note("the folder of recordings if one is configured, else that of saved controls"),
    "device": nullable("string") | note("what is mounted there, for example /dev/mmcblk0p2"),
    "file_system": nullable("string"),
}
_UPTIME: Final = {
    "service_seconds": NUMBER,
    "system_seconds": _NUMBER,
    "system_days": _NUMBER,
    "boot_id": nullable("string") | note("another one after each boot"),
}
_FLAGS: Final = record(dict.fromkeys(CONDITIONS, _BOOLEAN))
_THROTTLED: Final = {
    "currently_throttled": _BOOLEAN,
    "under_voltage_detected": _BOOLEAN,
    "frequency_capped": _BOOLEAN,
    "currently_throttled_temperature": _BOOLEAN | note("slowed down, and not because of under-voltage"),
    "has_occurred": {"type": "boolean"} | note("any of them, since the boot"),
    "raw_value": nullable("string") | note("as vcgencmd get_throttled prints it; null if only under-voltage is known"),
    "now": _FLAGS | note("null: not reported"),
    "since_boot": _FLAGS | note("what was noticed; everything in the last observed_seconds"),
    "observed_seconds": NUMBER | note("how long nothing was missed: since the boot, or since the portal has run"),
}
_WARNING: Final = {
    "code": {
        "enum": [
            "under_voltage",
            "under_voltage_occurred",
            "throttled",
            "throttled_occurred",
            "critical_temperature",
            "hot",
            "disk_nearly_full",
        ]
    },
    "message": STRING,
    "remedy": STRING,
    "is_current": BOOLEAN | note("false: it was so before, since the boot"),
}


def _optional(schema: Schema, name: str) -> Schema:
    return schema | {"required": [each for each in schema["required"] if each != name]}


SYSTEM_SCHEMA: Final = record(
    {
        **STATUS_OK,
        "temperature": record(_TEMPERATURE) | nullable("object") | note("below 60 normal, 70 warm, 80 hot"),
        "cpu": record(_CPU) | nullable("object"),
        "memory": record(_MEMORY) | nullable("object"),
        "network": _optional(record(_NETWORK), "wifi") | nullable("object"),
        "disk": record(_DISK) | nullable("object"),
        "uptime": record(_UPTIME),
        "throttled": record(_THROTTLED) | nullable("object") | note("null if nothing is reported"),
        "warnings": {"type": "array", "items": record(_WARNING)} | note("what is wrong, and what to do"),
    }
)
_DOC: Final = Doc(
    "State of the machine",
    "system",
    json_ok(SYSTEM_SCHEMA),
    "Temperature, load, memory, network, disk, uptime and throttling of the machine that the portal runs on, at most a"
    " second old. Null where the machine does not have it. Pages of other origins cannot read it.",
)


@dataclass(frozen=True, slots=True)
class SystemApi:
    """Handles `/v1/system/status`. `has_quota`: old recordings are deleted before the disk is full."""

    monitor: SystemMonitor
    has_quota: bool = False

    def routes(self) -> list[Route]:
        return [Route(("/v1/system/status", "/system/status"), self.status, is_same_origin=True, doc=_DOC)]

    def status(self, _request: Request) -> AnyResponse:
        return json_response(self.content())

    def content(self) -> dict[str, Any]:
        """The fields that `SYSTEM_SCHEMA` describes."""
        state = self.monitor.state()
        temperature_c, load = state.temperature_c, state.load_average
        return {
            "status": "ok",
            "temperature": None
            if temperature_c is None
            else {"cpu_c": round(temperature_c, 1), "status": temperature_status(temperature_c)},
            "cpu": None
            if state.cores is None and load is None
            else {
                "usage_percent": _rounded(state.busy_percent),
                "load_average": None if load is None else dict(zip(_LOAD, load, strict=True)),
                "cores": state.cores,
            },
            "memory": None if state.memory is None else _memory(state.memory),
            "network": _network(state),
            "disk": None if state.disk is None else _disk(state.disk),
            "uptime": {
                "service_seconds": round(state.service_uptime_s, 1),
                "system_seconds": _rounded(state.uptime_s),
                "system_days": None if state.uptime_s is None else round(state.uptime_s / _DAY_S, 1),
                "boot_id": state.boot_id,
            },
            "throttled": None if state.throttling is None else _throttled(state.throttling),
            "warnings": [asdict(each) for each in advice(state, has_quota=self.has_quota)],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _memory(memory: Memory) -> Mapping[str, float]:
    used = memory.total - memory.available
    return {
        "total_mb": round(memory.total / _MIB, 1),
        "used_mb": round(used / _MIB, 1),
        "available_mb": round(memory.available / _MIB, 1),
        "percent": round(100 * used / memory.total, 1),
    }


def _network(state: MachineState) -> Mapping[str, Any] | None:
    network, wifi = state.network, state.wifi
    if network is None and wifi is None:
        return None
    counters = (
        (None,) * len(_COUNTERS)
        if network is None
        else (network.sent_bytes, network.received_bytes, network.sent_packets, network.received_packets)
    )
    return {
        "interface": None if network is None else network.interface,
        **dict(zip(_COUNTERS, counters, strict=True)),
        **({} if wifi is None else {"wifi": _wifi(wifi)}),  # clients look whether it is there
    }


def _wifi(signal: WifiSignal) -> Mapping[str, Any]:
    return {
        "signal_dbm": signal.dbm,
        "quality_percent": max(0, min(100, 2 * (signal.dbm + 100))),
        "status": next((name for limit, name in _SIGNALS if signal.dbm >= limit), _WEAK),
        "interface": signal.interface,
    }


def _disk(disk: DiskSpace) -> Mapping[str, Any]:
    return {
        "total_gb": round(disk.total / _GIB, 1),
        "used_gb": round(disk.used / _GIB, 1),
        "free_gb": round(disk.free / _GIB, 1),
        "percent": round(disk.percent, 1),
        "path": disk.folder,
        "device": disk.device,
        "file_system": disk.file_system,
    }


def _throttled(throttling: Throttling) -> Mapping[str, Any]:
    now = throttling.by_name(throttling.now)
    is_hot: bool | None = None
    if now["throttled"] is not None:
        is_hot = throttling.has("soft_temperature_limit") or (
            throttling.has("throttled") and not throttling.has("under_voltage")
        )
    return {
        "currently_throttled": now["throttled"],
        "under_voltage_detected": now["under_voltage"],
        "frequency_capped": now["frequency_capped"],
        "currently_throttled_temperature": is_hot,
        "has_occurred": throttling.has_occurred(*CONDITIONS),
        "raw_value": None if throttling.raw is None else hex(throttling.raw),
        "now": now,
        "since_boot": throttling.by_name(throttling.since_boot),
        "observed_seconds": round(throttling.observed_s, 1),
    }
