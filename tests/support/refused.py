"""Operators that CUDA refuses where results have to repeat, `torch.use_deterministic_algorithms`.

By the name under which the documentation of the installed PyTorch lists them: the operators that
raise, those of a backward pass where only that one does.
"""

import re
from collections.abc import Iterable

import torch

REFUSED = {
    "torch.nn.AvgPool3d": ("avg_pool3d_backward",),
    "torch.nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "torch.nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "torch.nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "torch.nn.MaxUnpool1d": ("max_unpool2d",),
    "torch.nn.MaxUnpool2d": ("max_unpool2d",),
    "torch.nn.MaxUnpool3d": ("max_unpool3d",),
    "torch.nn.functional.interpolate": (
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "upsample_bicubic2d_backward",
        "upsample_trilinear3d_backward",
    ),
    "torch.nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "torch.nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "torch.nn.ReflectionPad3d": ("reflection_pad3d_backward",),
    "torch.nn.NLLLoss": ("nll_loss_forward", "nll_loss2d_forward"),
    "torch.nn.CTCLoss": ("_ctc_loss_backward",),
    "torch.nn.EmbeddingBag": ("_embedding_bag_dense_backward",),
    "torch.Tensor.put_": ("put", "put_"),
    "torch.histc": ("histc",),
    "torch.bincount": ("bincount",),
    "torch.median": ("median.dim", "nanmedian.dim"),
    "torch.nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "torch.Tensor.scatter_reduce": ("scatter_reduce", "scatter_reduce_"),
}
# Refused only with so many tensors: counts with weights.
_TENSORS = {"bincount": 2}
# What `ebmref` calls all the same, and why it may.
ALLOWED = {
    "nll_loss_forward": "of the two kernels behind the name only nll_loss2d_forward raises",
}


def refused(called: Iterable[tuple[torch._ops.OpOverload, int]]) -> set[str]:
    """Names of those among the operators, each with its number of tensors, that CUDA refuses."""
    names = {name for operators in REFUSED.values() for name in operators}
    return {
        name
        for func, n_tensors in called
        for name in (func._schema.name.removeprefix("aten::"), str(func).removeprefix("aten."))
        if name in names and n_tensors >= _TENSORS.get(name, 0)
    }


def documented() -> set[str]:
    """What the documentation lists for CUDA."""
    text = torch.use_deterministic_algorithms.__doc__
    text = text.partition("operations will throw a")[2].partition("In addition")[0]
    items = [" ".join(item.split()) for item in text.split("* :")[1:]]
    of_cuda = [x for x in items if not re.search(r"MPS|quantized", x) or "CUDA" in x]
    return {re.search("`(.*?)`", item)[1] for item in of_cuda}
