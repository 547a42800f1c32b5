"""What a processor computes in, read from the texts of Linux and macOS."""

from __future__ import annotations

import subprocess

import pytest

from engine.runtime import processor
from engine.runtime.processor import Processor, of_cpuinfo, of_sysctl, this_processor

ZEN5 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9575F
flags\t\t: fpu sse4_1 avx avx2 avx512f avx512bw avx512_vnni avx512_bf16 avx_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
NEOVERSE = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd asimdhp sve bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
APPLE = """machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.neon: 1
"""


def held(limit, features=ZEN5):
    return Processor("linux", "", of_cpuinfo(features)[1], limit=limit)


def test_cpuinfo_of_x86():
    name, features, part = of_cpuinfo(ZEN5)
    assert (name, part) == ("AMD EPYC 9575F", "")
    assert {"avx2", "avx512_bf16"} <= features


def test_cpuinfo_of_arm():
    name, features, part = of_cpuinfo(NEOVERSE)
    found = Processor("linux", name, features, part)
    assert found.computes_in("bfloat16") and found.computes_in("float16") and found.is_neural


def test_sysctl():
    name, features = of_sysctl(APPLE)
    assert name == "Apple M2" and features == {"feat_bf16", "feat_fp16"}
    found = Processor("darwin", name, features)
    assert found.computes_in("bfloat16") and not found.has_onednn


@pytest.mark.parametrize(
    ("limit", "neural", "bfloat16", "aborts"),
    [
        ("", True, True, False),
        ("DEFAULT", True, True, False),
        ("SSE41", False, False, True),
        ("AVX2", False, False, True),
        ("AVX2_VNNI", True, False, True),
        ("AVX512_CORE", False, False, False),
        ("AVX512_CORE_VNNI", True, False, False),
        ("AVX512_CORE_BF16", True, True, False),
        ("AVX512_CORE_AMX", True, True, False),
    ],
)
def test_limit_of_onednn(limit, neural, bfloat16, aborts):
    found = held(limit)
    assert (found.is_neural, found.computes_in("bfloat16")) == (neural, bfloat16)
    assert found.onednn_aborts("bfloat16") == aborts
    assert not found.onednn_aborts("float32")
    assert not found.onednn_aborts("float16")  # the processor has no such kernels to begin with


def test_limits_hold_bfloat16_of_amx():
    amx = "flags: avx avx2 avx512f avx512_bf16 amx_tile amx_bf16 avx512_fp16"
    assert held("AVX512_CORE_BF16", amx).usable == {"avx", "avx2", "avx512f", "avx512_bf16"}
    assert held("AVX512_CORE_BF16", amx).onednn_aborts("float16")
    assert held("AVX512_CORE_AMX", amx).computes_in("bfloat16")


def test_nothing_is_known():
    assert Processor("linux").computes_in("bfloat16") is None
    assert Processor("linux").summary == "features unknown"


def test_limit_is_read_in_any_case():
    assert this_processor({"ONEDNN_MAX_CPU_ISA": "avx2"}).limit == "AVX2"


def test_processor_that_cannot_be_read(monkeypatch):
    def fails(*args, **kwargs):
        raise OSError

    monkeypatch.setattr(processor.Path, "read_text", fails)
    monkeypatch.setattr(subprocess, "run", fails)
    assert this_processor({}).features == frozenset()
