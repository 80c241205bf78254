"""A CPU as verl's platform, for its own FSDP2 engine on this machine.

verl imports it by VERL_USE_EXTERNAL_MODULES, which the scripts set.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _nothing(*told: Any, **others: Any) -> int:
    return 0


_CALLS = (
    *("max_memory_allocated", "max_memory_reserved", "memory_allocated"),
    *("memory_reserved", "current_device", "empty_cache", "synchronize"),
    *("reset_peak_memory_stats", "set_device", "manual_seed_all"),
)
"""Of a module such as torch.cuda, where there is nothing to do."""


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """What verl asks of a device, of a machine that has none."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = SimpleNamespace(
        **dict.fromkeys(_CALLS, _nothing),
        manual_seed=torch.manual_seed,
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_name=lambda *_: "cpu",
        mem_get_info=lambda *_: (0, 0),
    )
    synchronize = set_device = set_allocator_settings = empty_cache = _nothing
    manual_seed_all = profiler_start = profiler_stop = cudart = _nothing
    is_available = is_ipc_supported = staticmethod(lambda: True)
    is_platform_available = staticmethod(lambda use_smi_check=False: True)
    manual_seed = staticmethod(torch.manual_seed)
    device_count = staticmethod(lambda: 1)
    get_device_capability = staticmethod(lambda device_index=0: (None, None))
    communication_backend_name = staticmethod(lambda: "gloo")
    visible_devices_envvar = staticmethod(lambda: "CUDA_VISIBLE_DEVICES")
    nvtx_range = staticmethod(lambda msg: contextlib.nullcontext())
    ray_resource_name = staticmethod(lambda: "CPU")
    ray_noset_envvars = staticmethod(list)

    def current_device(self) -> str:  # type: ignore[override]
        """Return what verl moves tensors to."""
        return "cpu"
