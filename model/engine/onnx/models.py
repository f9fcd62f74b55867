"""The two ONNX models of the network: the encoder with the decoder's memory projections, and one decode step.

The weights of a domain (norms, adapters) are inputs, so that one session serves all domains and batches that mix them:
one entry [...] for all rows, or one per row [B, ...]. Prompts and tokens are embedded by torch.
"""

# B rows, n beams, S source length, t tokens decoded before, H heads, E head width, D width, R bottleneck, V vocabulary

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.engine.onnx.model_writer import CONTRIB, ModelWriter
from model.network.banks import RMSNormBank
from model.network.network import Vip5Network
from model.network.projection import Projection
from model.network.stacks import Branch, DecoderBlock, FeedForward

Precision = Literal["float32", "int8"]
"""Of the products of the encoder's layers, and of the head.
With int8, rows are rounded one by one, so that they do not depend on the batch."""

_LARGEST_WEIGHT = 127
_LARGEST_PAIR = 128
"""Processors without VNNI add the products of two neighbouring inputs, each at most 255, in 16 bits with a sign.
Nothing overflows if no two neighbouring weights of the same sign add up to more than this."""

_SIGNED = (
    np.array(1 / 127, np.float32),
    np.array(128, np.uint8),
)  # scale and zero of a row that was divided by its largest magnitude
_POSITIVE = (np.array(1 / 255, np.float32), np.array(0, np.uint8))
_SMALLEST_ROW = np.array(1e-30, np.float32)  # divisor of a row of zeros

_MASKED_SCORE = float(np.finfo(np.float32).min)  # score of a masked position


def encoder_model(network: Vip5Network, precision: Precision) -> ProjectionWriter:
    """Embedded prompts [B, S, D] → `key.l` and `value.l` of every decoder layer l, [B, H, S, E].

    Inputs: `x`, `bias` [1, H, S, S] of the positions, `is_token` [B, S], and the weights of the domain.
    """
    writer = _NetworkWriter(network, precision)
    x, bias, is_token = writer.input("x"), writer.input("bias"), writer.mask("is_token")
    for number, block in enumerate(network.encoder.layers):
        name = f"encoder.{number}"
        normed = writer.norm(x, f"{name}.attention", block.attention_branch.norm)
        q, k, v = writer.split(writer.project(normed, f"{name}.qkv", block.attention.qkv), 3)
        attended = writer.attend(q, k, v, "", is_token, bias)
        x = writer.add_residual(
            x, writer.project(attended, f"{name}.o", block.attention.o), f"{name}.attention", block.attention_branch
        )
        x = writer.feed_forward(x, name, block.feed_forward, block.feed_forward_branch)
    states = writer.norm(x, "encoder.final", network.encoder.final_norm)
    writer.precision = "float32"  # every step reads the memory, and rounding it would change more lists
    for number, decoder_block in enumerate(network.decoder.layers):
        name = f"decoder.{number}.memory"
        k, v = writer.split(writer.project(states, name, decoder_block.cross.kv), 2)
        writer.output(f"key.{number}", writer.by_head(k))
        writer.output(f"value.{number}", writer.by_head(v))
    return writer


def step_model(network: Vip5Network, precision: Precision) -> ProjectionWriter:
    """The next token of every beam, embedded [B, n, D] → `logits` [B, n, V] and the extended caches.

    With int8, logits are rounded, and `states` [B, n, D], the factor of the head, is an output too.

    Inputs: `x`; `bias` [1, H, 1, t + 1], or [B·n, H, 1, t + 1] for rows at different positions; `origin` [B·n], the
    entry of the caches that each beam continues; `past_key.l`, `past_value.l` [P, H, t, E]; `key.l`, `value.l`
    [B, H, S, E] and `is_token` [B, S] of the encoder; and the weights of the domain. Outputs `new_key.l` and
    `new_value.l` are [B·n, H, t + 1, E].
    """
    writer = _NetworkWriter(network, "float32")
    x, bias, origin = writer.input("x"), writer.input("bias"), writer.input("origin", is_index=True)
    is_token = writer.mask("is_token")
    for number, block in enumerate(network.decoder.layers):
        x = writer.self_attention(x, bias, origin, number, block)
        x = writer.cross_attention(x, is_token, number, block)
        x = writer.feed_forward(x, f"decoder.{number}", block.feed_forward, block.feed_forward_branch)
    states = writer.norm(x, "decoder.final", network.decoder.final_norm)
    config = network.config
    scale = config.d_model**-0.5 if config.tie_word_embeddings else 1.0
    if precision == "int8":
        writer.precision = precision
        states, scale = writer.node("Mul", states, writer.constant(np.array(scale, np.float32))), 1.0
        writer.output("states", states)
    writer.output("logits", writer.project(states, "head", network.head, scale))
    return writer


class ProjectionWriter(ModelWriter):
    """Writes products with frozen weights."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision: Precision = precision
        """Of the products that are written next."""
        self._projections: dict[str, Projection] = {}  # whose weight is this one of the model, transposed

    def share_weights(self) -> None:
        """Let the network's projections use the memory of the model's float32 weights instead of their own."""
        for name, projection in self._projections.items():
            projection.weight.data = torch.from_numpy(self.weights[name]).t()

    def project(
        self, x: str, name: str, projection: Projection, scale: float = 1.0, *, is_positive: bool = False
    ) -> str:
        """x·Wᵀ with a frozen weight; `is_positive` if x has no negative values."""
        weight = _array(projection.weight).T * np.float32(scale)  # [in, out]
        if self.precision == "float32":
            if scale == 1.0:
                self._projections[name] = projection
            return self.node("MatMul", x, self.weight(name, weight))
        rounded, steps = _rounded(weight)
        scale_of_rows, zero_of_rows = _POSITIVE if is_positive else _SIGNED
        size, zero = self.constant(scale_of_rows), self.constant(zero_of_rows)
        axes = self.constant(np.array([-1], np.int64))
        largest = self.node("ReduceMax", x if is_positive else self.node("Abs", x), axes, keepdims=1)
        largest = self.node("Max", largest, self.constant(_SMALLEST_ROW))
        product = self.node(
            "MatMulIntegerToFloat",
            self.node("QuantizeLinear", self.node("Div", x, largest), size, zero),
            self.weight(name, rounded),
            size,
            self.weight(f"{name}.scale", steps),
            zero,
            domain=CONTRIB,
        )
        return self.node("Mul", product, largest)


class _NetworkWriter(ProjectionWriter):
    """Writes the sub-layers of a T5 with adapters."""

    def __init__(self, network: Vip5Network, precision: Precision) -> None:
        super().__init__(precision)
        self._config = network.config

    def norm(self, x: str, name: str, bank: RMSNormBank) -> str:
        """Root-mean-square norm with the domain's weight."""
        ones = self.constant(np.ones(self._config.d_model, np.float32))
        normed = self.node("SimplifiedLayerNormalization", x, ones, axis=-1, epsilon=bank.eps, stash_type=1)
        return self.node("Mul", normed, self.input(f"{name}.norm"))

    def add_residual(self, x: str, output: str, name: str, branch: Branch) -> str:
        """Apply the domain's adapter to a sub-layer's output, and add the residual."""
        if branch.adapter is not None:
            output = self._adapt(output, name)
        return self.node("Add", x, output)

    def feed_forward(self, x: str, name: str, block: FeedForward, branch: Branch) -> str:
        """The feed-forward sub-layer."""
        hidden = self.project(self.norm(x, f"{name}.feed_forward", branch.norm), f"{name}.wi", block.wi)
        if block.is_gated:
            gate, linear = self.split(hidden, 2)
            hidden = self.node("Mul", self.node("FastGelu", gate, domain=CONTRIB), linear)
        else:
            hidden = self.node("Relu", hidden)
        output = self.project(hidden, f"{name}.wo", block.wo, is_positive=not block.is_gated)
        return self.add_residual(x, output, f"{name}.feed_forward", branch)

    def self_attention(self, x: str, bias: str, origin: str, layer: int, block: DecoderBlock) -> str:
        """Self-attention of every beam's new token over its own tokens."""
        name, width = f"decoder.{layer}", self._config.inner_dim
        normed = self.norm(x, f"{name}.attention", block.attention_branch.norm)
        projected = self.project(normed, f"{name}.qkv", block.attention.qkv)  # [B, n, 3·H·E]
        q, k, v = self.split(self.node("Reshape", projected, self._shape(-1, 1, 3 * width)), 3)  # [B·n, 1, H·E]
        past = [self.node("Gather", self.input(f"past_{kind}.{layer}"), origin, axis=0) for kind in ("key", "value")]
        attended, keys, values = self.nodes(
            "MultiHeadAttention",
            *(q, k, v, "", "", bias, *past),
            count=3,
            domain=CONTRIB,
            num_heads=self._config.num_heads,
            scale=1.0,
        )
        self.output(f"new_key.{layer}", keys)
        self.output(f"new_value.{layer}", values)
        rows = self.node("Shape", x, start=0, end=2)
        shape = self.node("Concat", rows, self._shape(width), axis=0)
        output = self.project(self.node("Reshape", attended, shape), f"{name}.o", block.attention.o)
        return self.add_residual(x, output, f"{name}.attention", block.attention_branch)

    def cross_attention(self, x: str, is_token: str, layer: int, block: DecoderBlock) -> str:
        """Cross-attention: all beams of a row are queries over the row's memory, which is not copied per beam."""
        name = f"decoder.{layer}"
        normed = self.norm(x, f"{name}.cross", block.cross_branch.norm)
        q = self.project(normed, f"{name}.cross.q", block.cross.q)
        attended = self.attend(q, self.input(f"key.{layer}"), self.input(f"value.{layer}"), "", is_token)
        return self.add_residual(
            x, self.project(attended, f"{name}.cross.o", block.cross.o), f"{name}.cross", block.cross_branch
        )

    def attend(self, *inputs: str) -> str:
        """softmax(q·kᵀ + bias)·v, with the inputs of MultiHeadAttention."""
        return self.node(
            "MultiHeadAttention",
            *inputs,
            domain=CONTRIB,
            num_heads=self._config.num_heads,
            scale=1.0,
            mask_filter_value=_MASKED_SCORE,
        )

    def split(self, x: str, num_parts: int) -> list[str]:
        """Equal parts of the last axis."""
        return self.nodes("Split", x, count=num_parts, axis=-1, num_outputs=num_parts)

    def by_head(self, x: str) -> str:
        """[B, S, H·E] → [B, H, S, E]."""
        heads = self.node("Reshape", x, self._shape(0, 0, self._config.num_heads, self._config.d_kv))
        return self.node("Transpose", heads, perm=[0, 2, 1, 3])

    def _adapt(self, x: str, name: str) -> str:
        """The adapter x + up(gelu(down(x))), with weights [D, R] and [R, D]."""
        down = self.node("MatMul", x, self.input(f"{name}.down"))
        hidden = self.node("FastGelu", self.node("Add", down, self.input(f"{name}.down_bias")), domain=CONTRIB)
        up = self.node("MatMul", hidden, self.input(f"{name}.up"))
        return self.node("Add", x, self.node("Add", up, self.input(f"{name}.up_bias")))

    def _shape(self, *sizes: int) -> str:
        return self.constant(np.array(sizes, np.int64))


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [in, out] in as small steps [out] as nothing overflows with."""
    num_inputs = weight.shape[0]
    pairs = np.pad(weight, ((0, num_inputs % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    # With one less of each, rounding up both weights of a pair does not exceed the limit.
    of_pairs = np.maximum(pairs.clip(min=0).sum(axis=1), -pairs.clip(max=0).sum(axis=1)).max(axis=0)
    steps = np.maximum(np.abs(weight).max(axis=0) / _LARGEST_WEIGHT, of_pairs / (_LARGEST_PAIR - 1))
    steps = np.maximum(steps, np.float32(1e-12)).astype(np.float32)
    return np.round(weight / steps).astype(np.int8), steps


def _array(weight: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = weight.detach().float().cpu().numpy()
    return array
