"""LoRA layers computed as one matrix: W + scale · B A, merged whenever the adapter has changed.

Beside its two thin products, an adapter that is computed apart costs a cast, a scaling and an addition of each layer's
whole output, forward and backward. On a CPU these take as long as a good part of the product with W. The gradients of A
and B follow from the layer's input and the gradient of its output (Hu et al. 2021, arXiv 2106.09685, eq. 3).
"""

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer


def merge(model: PeftModel) -> None:
    """Have every adapted layer of `model` computed so, with the one adapter that it has.

    Raises `ValueError` for layers other than plain linear ones, and for dropout, which a merged matrix cannot have.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        [adapter] = layer.active_adapters
        if not isinstance(layer, Linear) or not isinstance(layer.lora_dropout[adapter], torch.nn.Identity):
            raise ValueError(f"{name}: an adapter that cannot be merged")  # noqa: TRY004  # of any kind
        layer.forward = _Merged(layer, adapter)


class _Merged:
    """The forward of one layer."""

    def __init__(self, layer: Linear, adapter: str) -> None:
        self._layer = layer
        self._base = layer.base_layer
        self._a, self._b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        self._scale = float(layer.scaling[adapter])
        self._of: tuple[torch.Tensor, torch.Tensor] | None = None
        self._weight = torch.empty(0)

    def __call__(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if self._layer.disable_adapters:
            return torch.nn.functional.linear(
                x.to(self._base.weight.dtype), self._base.weight, self._base.bias
            )
        output: torch.Tensor = _Linear.apply(  # type: ignore[no-untyped-call]  # torch's own
            x, self._now(), self._base.bias, self._a, self._b, self._scale
        )
        return output

    @torch.no_grad()
    def _now(self) -> torch.Tensor:
        # By value: torch's fused optimisers change a tensor without counting up its version.
        if self._of is None or not (torch.equal(self._a, self._of[0]) and torch.equal(self._b, self._of[1])):
            weight = self._base.weight
            a, b = self._a.to(weight.dtype), self._b.to(weight.dtype)  # as autocast computes with them
            self._weight = torch.addmm(weight, b, a, alpha=self._scale)
            self._of = self._a.clone(), self._b.clone()
        return self._weight


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        x = x.to(weight.dtype)
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, None, None, torch.Tensor, torch.Tensor, None]:
        x, weight, a, b = ctx.saved_tensors
        rows, out = x.flatten(0, -2), gradient.flatten(0, -2)
        through_b = out @ b.to(out.dtype)
        through_a = rows @ a.to(rows.dtype).T
        to_a = (through_b.T @ rows).to(a.dtype) * ctx.scale
        to_b = (out.T @ through_a).to(b.dtype) * ctx.scale
        return gradient @ weight if ctx.needs_input_grad[0] else None, None, None, to_a, to_b, None
