"""Trees of `/proc` and `/sys` as machines have them, written below a folder of the test.

The contents have the format of Raspberry Pi OS on these models; what no code reads is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

Files = dict[str, str]

MODEL: Final = "proc/device-tree/model"
FLAGS: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
FLAGS_OF_PI_5: Final = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
ALARM: Final = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
ZONE: Final = "sys/class/thermal/thermal_zone0"
BOOT_ID: Final = "7d3bd9b5-1f0c-4a3e-9c1b-62f0a4b8e015"

_STAT: Final = """\
cpu  {busy} 0 {busy} {idle} 2190 0 310 0 0 0
{processors}\
intr 84273642 0 0 0 0 21 0 0 0 0 0
ctxt 142018312
btime 1764489600
processes 31205
procs_running 2
procs_blocked 0
"""
_DEV_HEAD: Final = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier\
 compressed
"""
_ROUTE_HEAD: Final = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
_WIRELESS_HEAD: Final = """\
Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
"""
_LOOPBACK: Final = "    lo:  104213 971 0 0 0 0 0 0 104213 971 0 0 0 0 0 0\n"
_IPV6_LOOPBACK: Final = f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo\n"


def stat(busy: int, idle: int, cores: int = 4) -> str:
    """Ticks since the boot: `busy` in programs and again in the kernel, and `idle`; 2,190 of waiting, 310 of others."""
    processors = "".join(
        f"cpu{core} {busy // cores} 0 {busy // cores} {idle // cores} 547 0 77 0 0 0\n" for core in range(cores)
    )
    return _STAT.format(busy=busy, idle=idle, processors=processors)


def meminfo(total_kb: int, available_kb: int) -> str:
    return (
        f"MemTotal:       {total_kb:8} kB\nMemFree:          102400 kB\nMemAvailable:   {available_kb:8} kB\n"
        "Buffers:           31284 kB\nCached:           301220 kB\nHugePages_Total:       0\n"
    )


def dev(*interfaces: tuple[str, int, int]) -> str:
    """The loopback interface, and others with their bytes received and sent; a packet has 1,000."""
    lines = [
        f"{name:>6}: {received} {received // 1000} 0 3 0 0 0 91 {sent} {sent // 1000} 0 0 0 0 0 0\n"
        for name, received, sent in interfaces
    ]
    return _DEV_HEAD + _LOOPBACK + "".join(lines)


def route(*defaults: tuple[str, int]) -> str:
    """Default routes with their metrics, and the local network of each."""
    lines = [
        f"{name}\t00000000\t0101A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"
        f"{name}\t0001A8C0\t00000000\t0001\t0\t0\t{metric}\t00FFFFFF\t0\t0\t0\n"
        for name, metric in defaults
    ]
    return _ROUTE_HEAD + "".join(lines)


def ipv6_route(*defaults: tuple[str, int]) -> str:
    front = f"{'0' * 32} 00 {'0' * 32} 00 fe800000000000000000000000000001"
    lines = [f"{front} {metric:08x} 00000004 00000000 00450003 {name:>8}\n" for name, metric in defaults]
    return "".join(lines) + _IPV6_LOOPBACK


def wireless(*signals: tuple[str, int]) -> str:
    lines = [
        f"{name:>6}: 0000   62.  {dbm:3}.  -256        0      0      0      0     11        0\n"
        for name, dbm in signals
    ]
    return _WIRELESS_HEAD + "".join(lines)


def zone(millidegrees: int, kind: str = "cpu-thermal", number: int = 0) -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    return {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{millidegrees}\n"}


def hwmon(*names: str, alarm: int | None = None) -> dict[str, str]:
    """Devices in this order; `alarm` is that of `rpi_volt`."""
    files = {f"sys/class/hwmon/hwmon{number}/name": f"{name}\n" for number, name in enumerate(names)}
    if alarm is not None:
        files[f"sys/class/hwmon/hwmon{names.index('rpi_volt')}/in0_lcrit_alarm"] = f"{alarm}\n"
    return files


def _common(up: str, loads: str, ticks: str) -> dict[str, str]:
    return {
        "proc/uptime": f"{up}\n",
        "proc/loadavg": f"{loads} 2/211 4021\n",
        "proc/stat": ticks,
        "proc/sys/kernel/random/boot_id": f"{BOOT_ID}\n",
    }


# Raspberry Pi OS 12, kernel 6.6: all flags. A weak power supply.
PI_3: Final[Files] = {
    MODEL: "Raspberry Pi 3 Model B Plus Rev 1.3\0",
    **_common("93784.21 301265.40", "1.52 1.07 0.61", stat(40_000, 300_000)),
    "proc/meminfo": meminfo(948_012, 512_004),
    "proc/net/dev": dev(("eth0", 0, 0), ("wlan0", 88_120_000, 912_334_000)),
    "proc/net/route": route(("wlan0", 600)),
    "proc/net/wireless": wireless(("wlan0", -58)),
    **zone(58_312),
    **hwmon("cpu_thermal", "rpi_volt", alarm=1),
    FLAGS: "50005\n",
}
# The same, by cable and by Wi-Fi; everything is fine.
PI_4: Final[Files] = {
    MODEL: "Raspberry Pi 4 Model B Rev 1.5\0",
    **_common("345600.00 1300000.00", "0.88 0.62 0.56", stat(90_000, 900_000)),
    "proc/meminfo": meminfo(3_884_712, 3_100_208),
    "proc/net/dev": dev(("eth0", 5_000_000, 7_000_000_000), ("wlan0", 1_000, 2_000)),
    "proc/net/route": route(("wlan0", 600), ("eth0", 100)),
    "proc/net/wireless": wireless(("wlan0", -71)),
    **zone(61_835),
    **hwmon("cpu_thermal", "rpi_volt", alarm=0),
    FLAGS: "0\n",
}
# Raspberry Pi OS 12 on kernel 6.6 with the later device tree; hot.
PI_5_HOT: Final[Files] = {
    MODEL: "Raspberry Pi 5 Model B Rev 1.0\0",
    **_common("3600.50 9000.25", "4.11 3.98 2.75", stat(160_000, 40_000)),
    "proc/meminfo": meminfo(8_245_424, 7_012_352),
    "proc/net/dev": dev(("eth0", 3_000, 4_000)),
    "proc/net/route": route(("eth0", 100)),
    "proc/net/wireless": wireless(),
    **zone(83_250),
    **hwmon("cpu_thermal", "rp1_adc", "pwmfan", "rpi_volt", alarm=0),
    FLAGS_OF_PI_5: "e000e\n",
}
# Raspberry Pi OS 13, kernel 6.12: under-voltage alone; a network without IPv4.
PI_5: Final[Files] = {
    MODEL: "Raspberry Pi 5 Model B Rev 1.1\0",
    **_common("120.75 460.00", "0.20 0.10 0.03", stat(3_000, 40_000)),
    "proc/meminfo": meminfo(16_608_352, 15_000_000),
    "proc/net/dev": dev(("eth0", 0, 0), ("wlan0", 61_000, 52_000)),
    "proc/net/route": route(),
    "proc/net/ipv6_route": ipv6_route(("wlan0", 1024)),
    "proc/net/wireless": wireless(("wlan0", -47)),
    **zone(49_000),
    **hwmon("cpu_thermal", "rp1_adc", "pwmfan", "rpi_volt", alarm=1),
}
# Debian's kernel, without the file of the Wi-Fi signal and without a sensor; an access point has no default route.
ZERO_2_W: Final[Files] = {
    MODEL: "Raspberry Pi Zero 2 W Rev 1.0\0",
    **_common("61.04 120.10", "2.75 0.90 0.31", stat(8_000, 12_000)),
    "proc/meminfo": meminfo(425_832, 88_004),
    "proc/net/dev": dev(("wlan0", 40_000, 7_000), ("wlan1", 0, 0)),
    "proc/net/route": route(),
    "sys/class/net/wlan0/operstate": "up\n",
    "sys/class/net/wlan1/operstate": "down\n",
    "sys/class/net/lo/operstate": "unknown\n",
    **hwmon("rpi_volt", alarm=0),
}
MACHINES: Final[Mapping[str, Files]] = {
    "Pi 3": PI_3,
    "Pi 4": PI_4,
    "Pi 5, hot": PI_5_HOT,
    "Pi 5": PI_5,
    "Zero 2 W": ZERO_2_W,
}


def write_tree(root: Path, files: Files) -> Path:
    """Write the files, and return `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
