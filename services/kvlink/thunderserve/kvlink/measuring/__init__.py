"""How fast links and codecs are, and what follows from it for a transfer's wire mode."""

from __future__ import annotations

from thunderserve.kvlink.measuring.choice import Choice, choose_mode
from thunderserve.kvlink.measuring.estimate import LinkEstimate, Window
from thunderserve.kvlink.measuring.meter import LinkMeter
from thunderserve.kvlink.measuring.modes import WireModes
from thunderserve.kvlink.measuring.probe import Probe, probe_link
from thunderserve.kvlink.measuring.speeds import CodecSpeeds

__all__ = [
    "Choice",
    "CodecSpeeds",
    "LinkEstimate",
    "LinkMeter",
    "Probe",
    "Window",
    "WireModes",
    "choose_mode",
    "probe_link",
]
