"""What a run took of electricity, estimated from its time and its devices' rated power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Watts by a word of the name that the driver gives, the most particular first: the makers' data
# sheets, as board power.
RATED = {
    "H100 PCIe": 350, "H100": 700, "H200": 700, "B200": 1000, "A100-PCIE": 250,
    "A100 80GB PCIe": 300, "A100": 400, "L40S": 350, "A10G": 150, "L4": 72, "T4": 70,
    "RTX 3090": 350, "RTX 4090": 450, "RTX 5090": 575, "MI300X": 750,
}  # fmt: skip
CPU_WATTS = 100  # of a run on processors alone: an assumption, a share of a server's


@dataclass(frozen=True)
class Energy:
    """An estimate, and what it is made of."""

    seconds: float
    devices: int
    watts: float  # of one device
    basis: str

    @property
    def kilowatt_hours(self) -> float:
        """Together."""
        return self.seconds * self.devices * self.watts / 3.6e6

    def carbon(self, grams_per_kwh: float) -> float:
        """Grams of CO2 equivalent on a grid."""
        return self.kilowatt_hours * grams_per_kwh


def estimate(
    run: Mapping[str, Any], status: Mapping[str, Any], last: Mapping[str, Any]
) -> Energy | None:
    """Estimate from a run's facts, its status and its last metrics; None without its time."""
    seconds = status.get("seconds") or run.get("seconds")
    if not seconds:
        return None
    devices = int(run.get("processes") or 1)
    if isinstance(last.get("power_w"), int | float):
        return Energy(seconds, devices, last["power_w"], "measured by the driver")
    name = str(run.get("device", ""))
    if str(run.get("device_used", "")).startswith("cuda"):
        for word, watts in RATED.items():
            if word.lower() in name.lower():
                return Energy(seconds, devices, watts, f"rated power of {name}: an upper bound")
        return None
    return Energy(seconds, devices, CPU_WATTS, "assumed for a run on processors alone")
