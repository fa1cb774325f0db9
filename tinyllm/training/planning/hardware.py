"""Machines by name: what their makers say they can do, where that stands, and what they are assumed to cost."""

import dataclasses
import re

from tinyllm.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One kind of device, and how many there are.

    flops: dict precision -> flop/s at the peak, of dense products. link: bytes/s that a device can send, in one
    direction, to devices of its node; network: to others; node: how many devices are in one. utilization: which share
    of the peak training is assumed to reach; assumed: why. price: dollars a device and hour, an assumption. source: of
    the figures. shared: ranks are processes that share one machine's memory and processor, instead of having a device
    each.
    """

    name: str
    title: str
    memory: float
    flops: dict
    bandwidth: float
    link: float
    network: float
    node: int
    utilization: float
    assumed: str
    price: float
    source: str
    shared: bool = False
    count: int = 1

    def sends(self, ranks):
        """Bytes a second that each of so many ranks can send."""
        if self.shared:  # each byte is read and written, by all of them at once
            return self.bandwidth / (2 * ranks)
        return self.link if ranks <= self.node else self.network


TERA, GIGA = 1e12, 1e9
LLM_C = "which llm.c reached; array code is slower"
"""With GPT-2 124M on 8 H100s: 468,000 tokens/s each, 40 % of the peak (modded-nanogpt's records, 2024-10-13)."""
HOPPER = {"fp32": 67 * TERA, "fp16": 989 * TERA, "bf16": 989 * TERA}

DEVICES = {
    device.name: device
    for device in (
        Hardware(
            "laptop", "a laptop: 8 cores, 16 GB", 16 * GIGA,
            # A core: 3 GHz, two fused multiply-adds of eight float32 a cycle. Halves are computed in float32.
            dict.fromkeys(("fp32", "fp16", "bf16"), 8 * 96 * GIGA),
            bandwidth=50 * GIGA, link=25 * GIGA, network=0.1 * GIGA, node=1, utilization=0.5,
            assumed="as with 0.8 M to 11 M parameters here", price=0.02,
            source="a round figure for AVX2 at 3 GHz and two channels of memory; the price is electricity, 60 W",
            shared=True,
        ),
        Hardware(
            "a100", "A100 SXM 80GB", 80 * GIGA, {"fp32": 19.5 * TERA, "fp16": 312 * TERA, "bf16": 312 * TERA},
            bandwidth=2039 * GIGA, link=300 * GIGA, network=25 * GIGA, node=8, utilization=0.4, assumed=LLM_C,
            price=2.0, source="NVIDIA A100 data sheet, 2021: NVLink 600 GB/s both ways; a network of 200 Gb/s a device",
        ),
        Hardware(
            "h100", "H100 SXM 80GB", 80 * GIGA, HOPPER, bandwidth=3350 * GIGA, link=450 * GIGA, network=50 * GIGA,
            node=8, utilization=0.4, assumed=LLM_C, price=3.0,
            source="NVIDIA H100 data sheet, 2023: NVLink 900 GB/s both ways; a network of 400 Gb/s a device",
        ),
        Hardware(
            "h200", "H200 SXM 141GB", 141 * GIGA, HOPPER, bandwidth=4800 * GIGA, link=450 * GIGA, network=50 * GIGA,
            node=8, utilization=0.4, assumed=LLM_C, price=4.0,
            source="NVIDIA H200 data sheet, 2024: NVLink 900 GB/s both ways; a network of 400 Gb/s a device",
        ),
    )
}  # fmt: skip


def hardware(name):
    """The Hardware of that name: a device, or a number of them as `8xh100`. UserError for what is not in the table."""
    match = re.fullmatch(r"(?:(\d+)x)?(.*)", name.strip().lower())
    count, device = int(match[1] or 1), match[2]
    if device not in DEVICES:
        hint = did_you_mean(device, DEVICES) or f"; there are {', '.join(DEVICES)}, and numbers of them as 8xh100"
        raise UserError(f"no hardware is called {name!r}{hint}")
    if count < 1 or (count > 1 and DEVICES[device].shared):
        reason = "its network is no match for its memory" if count else "none is not enough"
        raise UserError(f"--hardware {name}: {reason}; take {device}")
    return dataclasses.replace(DEVICES[device], count=count)
