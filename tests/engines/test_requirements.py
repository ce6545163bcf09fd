"""What the engine needs of a machine, judged from captured texts."""

from __future__ import annotations

import pytest

from qiao.engines.requirements import (
    check,
    check_openmp,
    check_platform,
    check_processor,
    features_of_cpuinfo,
    features_of_sysctl,
)
from qiao.errors import StartError

# An AMD EPYC virtual machine, two processors, shortened to the lines that matter.
MODERN = """\
processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC
flags		: fpu vme de pse tsc msr sse sse2 ht syscall nx lm pni ssse3 fma cx16 sse4_1 sse4_2 avx f16c bmi1 avx2 bmi2
bugs		: sysret_ss_attrs

processor	: 1
vendor_id	: AuthenticAMD
flags		: fpu vme de pse tsc msr sse sse2 ht syscall nx lm pni ssse3 fma cx16 sse4_1 sse4_2 avx f16c bmi1 avx2 bmi2
"""
# An Intel Core i5-2500 (Sandy Bridge, 2011).
OLD = """\
processor	: 0
vendor_id	: GenuineIntel
model name	: Intel(R) Core(TM) i5-2500 CPU @ 3.30GHz
flags		: fpu vme de pse tsc msr sse sse2 ss ht tm pbe syscall nx lm pni ssse3 cx16 sse4_1 sse4_2 popcnt aes avx
"""
ARM = """\
processor	: 0
BogoMIPS	: 50.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp
CPU implementer	: 0x41
"""
# An Intel Mac of 2019, `sysctl -n machdep.cpu.features machdep.cpu.leaf7_features`.
MAC = """\
FPU VME DE PSE TSC MSR SSE SSE2 SS HTT SSE3 PCLMULQDQ SSSE3 FMA CX16 SSE4.1 SSE4.2 x2APIC MOVBE POPCNT AES XSAVE AVX1.0
F16C
RDWRFSGS TSC_THREAD_OFFSET SGX BMI1 AVX2 SMEP BMI2 ERMS INVPCID FPU_CSDS MPX RDSEED ADX SMAP CLFSOPT IPT
"""


def test_a_modern_processor_is_good() -> None:
    check_processor(features_of_cpuinfo(MODERN))
    check_processor(features_of_sysctl(MAC))


def test_an_old_one_is_told_what_it_lacks() -> None:
    with pytest.raises(StartError) as raised:
        check_processor(features_of_cpuinfo(OLD))
    assert raised.value.message == (
        "This processor lacks AVX2, FMA, BMI2, F16C, and the embedded engine is compiled for it."
    )
    assert "--upstream" in (raised.value.hint or "")


def test_only_what_all_processors_have_counts() -> None:
    with pytest.raises(StartError, match="lacks AVX2"):
        check_processor(features_of_cpuinfo(MODERN + OLD))


@pytest.mark.parametrize("text", ["", ARM, "garbage\x00: :"])
def test_unknown_is_no_objection(text: str) -> None:
    assert features_of_cpuinfo(text) is None
    check_processor(None)


@pytest.mark.parametrize(
    ("system", "machine"),
    [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"), ("win32", "AMD64")],
)
def test_platforms_with_an_engine(system: str, machine: str) -> None:
    check_platform(system, machine)


@pytest.mark.parametrize(
    ("system", "machine"), [("win32", "ARM64"), ("linux", "riscv64"), ("linux", "ppc64le"), ("freebsd14", "amd64")]
)
def test_platforms_without_one(system: str, machine: str) -> None:
    with pytest.raises(StartError, match=machine):
        check_platform(system, machine)


def test_musl_is_named() -> None:
    with pytest.raises(StartError, match="musl"):
        check_platform("linux", "x86_64", is_musl=True)


def test_a_missing_library_is_named_with_the_packages_that_hold_it() -> None:
    with pytest.raises(StartError, match=r"libgomp-of-nobody\.so\.1 is missing") as raised:
        check_openmp("libgomp-of-nobody.so.1")
    assert "apt-get install libgomp1" in (raised.value.hint or "")


def test_this_machine_is_good() -> None:
    check()
