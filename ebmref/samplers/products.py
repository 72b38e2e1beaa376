"""Products of a network's layers inside a compiled loop, on a CPU: by the faster library.

PyTorch multiplies matrices of single precision with MKL, which on processors of other makers than
its own keeps to half the width of the registers. oneDNN takes all of it, and a tanh on the way out
costs less than one afterwards; but a call costs 10 us more. So the graph sends its large products
there. Both add up the same numbers in another order: the last digit may differ, nothing else.

Read only when something is compiled: it needs PyTorch's compiler.
"""

import torch
from torch import Tensor
from torch._inductor import ir, mkldnn_ir
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.lowering import register_lowering
from torch.fx import Graph, Node

aten = torch.ops.aten
# Multiplications from which oneDNN wins, on one core: at half of it the two are equal.
_LARGE = 1 << 19


@torch.library.custom_op("ebmref::linear", mutates_args=())
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    """`then(x @ weight.T + bias)` by oneDNN: x `(n, k)`, weight `(m, k)`; then: "none", "tanh"."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")


@linear.register_fake
def _shaped(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return x.new_empty(len(x), len(weight))


@register_lowering(torch.ops.ebmref.linear.default, type_promotion_kind=None)
def _lowered(x, weight, bias, then):
    """A call from C++. PyTorch's own lowering wants a weight that never changes."""
    kernel = mkldnn_ir.LinearUnary
    x = kernel.require_contiguous(kernel.realize_input(x))
    inputs, constants = [x, kernel.realize_input(weight)], [then, [-1], ""]
    if bias is None:
        constants.insert(0, None)
    else:
        inputs.append(kernel.require_contiguous(kernel.realize_input(bias)))
    size = [x.get_size()[0], inputs[1].get_size()[0]]
    layout = ir.FixedLayout(device=x.get_device(), dtype=x.get_dtype(), size=size)
    made = kernel(layout=layout, inputs=inputs, constant_args=constants)
    return ir.TensorBox.create(mkldnn_ir._create_output_node(made))


class ByOneDNN(CustomGraphPass):
    """Sends the large products of a graph of aten's operators to oneDNN."""

    def __call__(self, graph: Graph) -> None:
        if not torch.backends.mkldnn.is_available():
            return
        for node in list(graph.nodes):
            if node.target is aten.mm.default:
                _replace(graph, node, None, *node.args)
            elif node.target is aten.addmm.default and not node.kwargs:
                _replace(graph, node, *node.args)

    def uuid(self) -> bytes:
        return get_hash_for_files((__file__,))


def _replace(graph: Graph, node: Node, bias: Node | None, one: Node, two: Node) -> None:
    """Put in place of `bias + one @ two` what computes it faster, if anything does."""
    left, right, out = one.meta["val"], two.meta["val"], node.meta["val"]
    if out.dtype != torch.float32 or out.device.type != "cpu":
        return

    def call(operator, *args, like=out) -> Node:
        made = graph.call_function(operator, args)
        made.meta["val"] = like
        return made

    with graph.inserting_before(node):
        if right.shape[0] == 1:  # a column by a row: no sum, and the compiler can fuse it
            made = call(aten.mul.Tensor, one, two)
        elif left.shape[0] * right.numel() >= _LARGE:
            then, inside = "none", None
            if bias is None or bias.meta["val"].dim() == 1:
                inside, bias = bias, None
                if [user.target for user in node.users] == [aten.tanh.default]:
                    then, (tanh,) = "tanh", node.users
                    tanh.replace_all_uses_with(node)
                    graph.erase_node(tanh)
            turned = call(aten.permute.default, two, [1, 0], like=right.t())
            made = call(torch.ops.ebmref.linear.default, one, turned, inside, then)
        else:
            return
        if bias is not None:
            made = call(aten.add.Tensor, made, bias)
    node.replace_all_uses_with(made)
    graph.erase_node(node)
