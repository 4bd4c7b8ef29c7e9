"""What the processor at hand is good at."""

import torch


def fast_bfloat16() -> bool:
    """Whether bfloat16 matrix products are faster than float32 here; without the instructions they are emulated."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capability = torch.backends.cpu.get_cpu_capability()
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "AVX512" in capability and any(getattr(torch.cpu, flag, bool)() for flag in flags)
