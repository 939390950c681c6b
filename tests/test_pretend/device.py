"""A pretend accelerator: real numbers on the CPU, a GPU's rules for who may touch what, and a log.

Registered as torch's PrivateUse1 device under the name ``npu``, one of those that mmengine knows.
Every tensor on it wraps a CPU tensor; every operation passes :func:`execute`, which

* refuses to mix devices, as a GPU does;
* counts a kernel for each operation that would start one, and a host synchronisation for each that
  makes the host wait;
* poisons what a device-to-host copy returns while nobody has waited for it (``non_blocking``).

It knows nothing of time: figures are counts. A process that has called :func:`install` keeps the
device for good, so tests run it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.test_pretend import streams
from tests.test_pretend.log import LOG, place

NAME = 'npu'
POISON = 7
# Where the numbers lie. 'meta' pretends without any: shapes alone, at full size; what the host
# would read, ANSWER says.
HELD = 'cpu'
ANSWER: Callable[[Tensor], Tensor] = torch.zeros_like
# Operations that only describe memory that is there, or take memory without filling it.
_NO_KERNEL = {
    f'aten.{name}'
    for name in (
        'empty.memory_format', 'empty_strided.default', 'empty_like.default', 'new_empty.default',
        'new_empty_strided.default', 'detach.default', 'detach_.default', 'alias.default',
        'lift_fresh.default', '_unsafe_view.default', '_reshape_alias.default', 'resize_.default',
        'is_same_size.default', '_local_scalar_dense.default', 'item.default',
    )
}  # fmt: skip
# Results whose size depends on values: the host waits to learn it.
_DATA_DEPENDENT = ('nonzero.', 'masked_select.', 'unique', '_unique', 'argwhere.', 'equal.')
_INDEXING = ('aten.index.', 'aten.index_put', 'aten._index_put')


class DeviceTensor(torch.Tensor):
    """A tensor on the device; ``held`` is the CPU tensor that has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:  # noqa: D102
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f'DeviceTensor({self.held!r})'

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN206, D105
        return execute(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict) -> DeviceTensor:
        copy = DeviceTensor(self.held.detach().clone()).requires_grad_(self.requires_grad)
        memo[id(self)] = copy
        return copy

    def tolist(self) -> Any:
        """As of a GPU's tensor: the host waits."""
        LOG.synchronise('tolist')
        return (ANSWER(self) if self.held.is_meta else self.held).tolist()

    def numpy(self, **_: object) -> None:
        """As of a GPU's tensor: refused."""
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy")

    __array__ = numpy


class Everywhere(TorchDispatchMode):
    """Sends operations without a device tensor (``torch.zeros(3, device=...)``) here as well."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204, D105
        return execute(func, args, kwargs or {})


def held(value: Any) -> Any:
    """The CPU tensor inside a device tensor; anything else as it is."""
    return value.held if isinstance(value, DeviceTensor) else value


def execute(func: Any, args: tuple, kwargs: dict) -> Any:
    """One operation, with the rules of a device."""
    name = str(func)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    target = kwargs.get('device')
    to_device = target is not None and torch.device(target).type == NAME
    if not ours and not to_device:
        return func(*args, **kwargs)
    options = {key: held(value) for key, value in kwargs.items() if key != 'pin_memory'}
    if to_device:
        options['device'] = HELD
    if name == 'aten._to_copy.default':
        return _converted(func, args[0], options, target, to_device, kwargs)
    theirs = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
    if name == 'aten.copy_.default' and theirs:
        return _copied(*args)
    if ours and any(tensor.dim() for tensor in theirs):
        if not (name.startswith(_INDEXING) and isinstance(args[0], DeviceTensor)):
            raise RuntimeError(
                f'Expected all tensors to be on the same device, but found {NAME}:0 and cpu: {name}'
            )
        LOG.synchronise('indices from the host')
    _note_waits(name, args, kwargs)
    if HELD == 'meta' and name == 'aten._local_scalar_dense.default':
        return ANSWER(args[0]).item()
    result = func(*tree_map(held, args), **tree_map(held, options))
    if name == 'aten.resize_.default':
        return args[0]
    if not func.is_view and name not in _NO_KERNEL:
        LOG.launch(name, _launches(name, args), func, args, kwargs, result)
    wrapped = tree_map(lambda x: DeviceTensor(x) if isinstance(x, Tensor) else x, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if ours else wrapped


def _converted(func, source, options, target, to_device, kwargs) -> Tensor:  # noqa: ANN001
    """``tensor.to(...)``: within the device, from it, or to it."""
    if isinstance(source, DeviceTensor) and target is not None and not to_device:
        if source.held.is_meta:
            real = ANSWER(source)
        else:
            real = func(source.held, **{**options, 'device': 'cpu', 'non_blocking': False})
        if not kwargs.get('non_blocking'):
            LOG.synchronise('copy to the host')
            return real
        LOG.unawaited_copies[place()] += 1
        seen = torch.full_like(real, POISON)
        LOG.unawaited.append((seen, real, place()))
        return seen
    result = func(held(source), **options)
    if isinstance(source, DeviceTensor):
        LOG.launch('cast', 1, func, (source,), {}, result)
    else:
        result = (
            result.clone() if HELD == 'cpu' and result.data_ptr() == source.data_ptr() else result
        )
        _note_arrival(result, bool(kwargs.get('non_blocking')))
        result = streams.under_way(result, POISON)
    return DeviceTensor(result)


def _copied(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    held(target).copy_(held(source))
    if isinstance(target, DeviceTensor):
        _note_arrival(source, non_blocking)
    else:
        LOG.synchronise('copy to the host')
    return target


def _note_arrival(source: Tensor, non_blocking: bool) -> None:
    if source.numel() > 1:
        LOG.copies[place()] += 1
    if not non_blocking:
        LOG.synchronise('copy to the device')


def _note_waits(name: str, args: tuple, kwargs: dict) -> None:
    if name in ('aten._local_scalar_dense.default', 'aten.item.default'):
        LOG.synchronise('item')
    elif name.startswith(tuple(f'aten.{prefix}' for prefix in _DATA_DEPENDENT)):
        LOG.synchronise(name)
    elif name.startswith('aten.repeat_interleave.Tensor') and kwargs.get('output_size') is None:
        LOG.synchronise(name)
    elif name.startswith(_INDEXING):
        indices = [index for index in tree_leaves(args[1]) if isinstance(index, Tensor)]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            LOG.synchronise('boolean index')


def _launches(name: str, args: tuple) -> int:
    """Kernels of one operation; one of many tensors takes about 50 tensors to a launch."""
    if not name.startswith(('aten._foreach', 'aten._fused', 'aten._amp_foreach')):
        return 1
    return -(-len(args[0]) // 50)


def move(module: torch.nn.Module) -> torch.nn.Module:
    """Parameters and buffers onto the device, in place, as ``module.to`` does."""
    module._apply(lambda tensor: DeviceTensor(tensor.detach().to(HELD, copy=True)))
    for part in module.modules():
        if hasattr(part, '_device'):
            part._device = torch.device(NAME, 0)
    return module


class _Backend:
    """What torch asks of a device's module."""

    native_device = NAME

    def __getattr__(self, name: str) -> Any:
        answers = dict(
            is_initialized=True, is_available=True, current_device=0, device_count=1,
            _is_in_bad_fork=False, is_bf16_supported=True, get_amp_supported_dtype=[
                torch.float16, torch.bfloat16
            ],
        )  # fmt: skip
        nothing = ('set_device', 'manual_seed', 'manual_seed_all', 'set_rng_state', 'empty_cache',
                   'reset_peak_memory_stats')  # fmt: skip
        if name in answers:
            return lambda *_: answers[name]
        if name in nothing:
            return lambda *_: None
        raise AttributeError(name)

    def synchronize(self, device: object = None) -> None:
        LOG.synchronise('synchronize')

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.zeros(16, dtype=torch.uint8)

    def get_device_properties(self, device: object = None) -> SimpleNamespace:
        return SimpleNamespace(total_memory=80_000_000_000)

    def max_memory_allocated(self, device: object = None) -> int:
        return 0


def install() -> None:
    """Register the device in this process; call it before mmpretrain is imported."""
    from tests.test_pretend import mixed_precision

    streams.install(_Backend, DeviceTensor)
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    mixed_precision.install()
