"""What the processor of this machine computes in, as the system tells it. Imports no TensorFlow.

Linux lists the instruction sets in /proc/cpuinfo, macOS by `sysctl`. The variable
`ONEDNN_MAX_CPU_ISA`, which limits the instruction sets that oneDNN uses, counts as a limit of the
processor: so a smaller processor can be rehearsed on a larger one.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

LIMIT = "ONEDNN_MAX_CPU_ISA"
# Flags of /proc/cpuinfo by which TensorFlow turns oneDNN on by itself, on Linux; see
# `DefaultOneDnnPolicy` in tensorflow/core/util/port.cc.
_NEURAL = ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
_NEOVERSE_V1 = "0xd40"  # "CPU part" of the arm64 processor on which TensorFlow does so
# Flags that a processor must have to compute in a dtype, one of each tuple. The first two are of
# x86, "bf16" of arm64 on Linux, FEAT_BF16 of arm64 on macOS.
_COMPUTES = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16", "feat_bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp", "feat_fp16"),
}
# Flags by which TensorFlow takes oneDNN's kernels of a dtype; see
# `IsDataTypeSupportedByOneDNNOnThisCPU` in tensorflow/core/graph/mkl_graph_util.h.
_KERNELS = {
    "bfloat16": frozenset({"avx512f", "avx_ne_convert"}),
    "float16": frozenset({"avx512_fp16", "amx_fp16", "avx_ne_convert"}),
}
# Values of ONEDNN_MAX_CPU_ISA -> the flags among the above that oneDNN may still use. Another
# value, such as DEFAULT, limits nothing. See oneDNN's documentation, "CPU Dispatcher Control".
_VNNI = ("avx512_vnni",)
_BF16 = (*_VNNI, "avx512_bf16", "avx_vnni")
_FP16 = (*_BF16, "avx512_fp16")
_AMX = (*_FP16, "amx_tile", "amx_int8", "amx_bf16")
_LIMITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), ()),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), ("avx_vnni",)),
    "AVX512_CORE_VNNI": _VNNI,
    "AVX512_CORE_BF16": _BF16,
    **dict.fromkeys(("AVX512_CORE_FP16", "AVX10_1_512"), _FP16),
    **dict.fromkeys(("AVX512_CORE_AMX", "AVX10_1_512_AMX"), _AMX),
}
_VECTORS = ("avx", "avx2", "avx512f")
_TOLD = (*_VECTORS, *_NEURAL, "avx512_fp16", "amx_fp16", "asimd", "sve", "bf16", "asimdhp")


@dataclasses.dataclass(frozen=True)
class Processor:
    """A processor, or what the system and the limit of oneDNN leave of it.

    Attributes:
      system: "linux", "darwin" or another name of an operating system.
      name: name of the processor; "" if the system does not tell it.
      features: instruction sets by the names of /proc/cpuinfo, in lower case; empty if unknown.
      part: "CPU part" of /proc/cpuinfo of an arm64 processor; "" on others.
      limit: value of `ONEDNN_MAX_CPU_ISA`, in upper case; "": no limit.
    """

    system: str = "linux"
    name: str = ""
    features: frozenset[str] = frozenset()
    part: str = ""
    limit: str = ""

    @property
    def usable(self) -> frozenset[str]:
        """Instruction sets that oneDNN may use."""
        if self.limit not in _LIMITS:
            return self.features
        dropped = {*_NEURAL, "avx512_fp16", "amx_fp16", "avx_ne_convert"} - {*_LIMITS[self.limit]}
        if not self.limit.startswith("AVX512") and not self.limit.startswith("AVX10"):
            dropped |= {flag for flag in self.features if flag.startswith("avx512")}
        if self.limit in ("SSE41", "AVX"):
            dropped.add("avx2")
        return self.features - dropped

    @property
    def has_onednn(self) -> bool:
        """Whether TensorFlow has oneDNN's kernels on this system: on Linux."""
        return self.system == "linux"

    @property
    def is_neural(self) -> bool:
        """Whether TensorFlow would turn oneDNN on by itself on such a processor, on Linux."""
        return not self.usable.isdisjoint(_NEURAL) or self.part == _NEOVERSE_V1

    def onednn_aborts(self, dtype: str) -> bool:
        """Returns whether oneDNN would abort the process, because its limit is too low for a dtype.

        TensorFlow takes oneDNN's kernels of 16 bits by the processor, whatever oneDNN is limited
        to, and ends the process where oneDNN has none.

        Args:
          dtype: "float32", "bfloat16" or "float16".
        """
        needed = _KERNELS.get(dtype, frozenset())
        return not self.features.isdisjoint(needed) and self.usable.isdisjoint(needed)

    def computes_in(self, dtype: str) -> bool | None:
        """Returns whether the processor computes in "bfloat16" or "float16"; None if unknown."""
        if not self.features:
            return None
        return not self.usable.isdisjoint(_COMPUTES[dtype])

    @property
    def summary(self) -> str:
        """Instruction sets that matter for speed, of those that oneDNN may use."""
        return " ".join(each for each in _TOLD if each in self.usable) or "features unknown"

    @property
    def described(self) -> str:
        """Name and instruction sets, for display."""
        held = f", oneDNN held to {self.limit}" if self.limit in _LIMITS else ""
        return f"{self.name or 'unknown processor'} ({self.summary}{held})"


def of_cpuinfo(text: str) -> tuple[str, frozenset[str], str]:
    """Returns (name, features, part) of the first processor in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = (fields.get("flags") or fields.get("Features") or "").lower()
    return fields.get("model name", ""), frozenset(flags.split()), fields.get("CPU part", "")


def of_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """Returns (name, features) from the output of `sysctl -a` of macOS.

    Features of arm64 have names such as "feat_bf16".
    """
    name, features = "", set()
    for line in text.splitlines():
        key, _, value = (each.strip() for each in line.partition(":"))
        if key == "machdep.cpu.brand_string":
            name = value
        elif key.startswith("hw.optional.arm.FEAT_") and value == "1":
            features.add(key.removeprefix("hw.optional.arm.").lower())
        elif key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
            features |= {each.lower().replace("avx1.0", "avx") for each in value.split()}
    return name, frozenset(features)


def this_processor(environment: Mapping[str, str] = os.environ) -> Processor:
    """Returns the processor of this machine; the environment may limit what oneDNN uses of it."""
    system, limit = platform.system().lower(), environment.get(LIMIT, "").upper()
    name, features, part = "", frozenset[str](), ""
    try:
        if system == "linux":
            name, features, part = of_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        elif system == "darwin":
            asked = ["sysctl", "machdep.cpu", "hw.optional"]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=10)
            name, features = of_sysctl(done.stdout)
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError):
        pass
    return Processor(system, name, features, part, limit)
