"""The learner's forward pass: log-probabilities of the tokens that a loss reads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from aipo_env import PolicyError
from aipo_learner.policy.head import token_logprobs_from_hidden
from aipo_learner.settings.compute import ComputeConfig

_FEW_LOGITS = 1 << 22
"""Up to so many logits, holding them all is faster than computing them twice."""

_PROBE_LOGIT = 1000.0
"""A logit that no cap, scale or bias leaves as it is."""
_PROBE_ROWS = 2
"""Rows that are packed to see whether they stay apart."""
_PROBE_TOKENS = 16
"""Tokens of each of them."""
_APART_FLOAT32 = 1e-3
"""How far (nats) packing may move a log-probability in float32: rounding, no more."""
_APART_BFLOAT16 = 0.1
"""The same where layers compute in bfloat16, with 8 bits of mantissa."""

HeadForward = Callable[[Tensor], Tensor]
"""What stands for the `forward` of the output embedding: hidden states to logits."""


class LearnerForward:
    """Computes log-probabilities with a causal language model of transformers.

    While it runs, the `forward` methods of the output embedding and of the layers are
    others. The model itself, its layers and its head are called as modules, never their
    weights from outside, so that the hooks of FSDP2 run wherever `fully_shard` puts
    them later; the sampler meets the model unchanged.

    `takes_chunks` says whether the head's log-probabilities are computed in chunks: it
    has no bias, and the model leaves its logits as they are. Else all logits are held.

    Args:
        model: The policy, on its device.
        config: Precision, layout, and what is done to the layers; the defaults if None.
        temperature: What logits are divided by, as they were where tokens were sampled.

    Raises:
        PolicyError: The layout is "packed" and packed rows of this model see each
            other, or the model has no layers that can be compiled or computed again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: ComputeConfig | None = None,
        *,
        temperature: float = 1.0,
    ) -> None:
        config = config or ComputeConfig()
        self.model = model
        self.temperature = temperature
        self.head = model.get_output_embeddings()
        on_gpu = model.device.type == "cuda"
        self.is_bfloat16 = config.precision == "bfloat16"
        if config.precision == "auto":
            self.is_bfloat16 = on_gpu
        if self.is_bfloat16 and on_gpu:
            # The head's float32 products in TF32: in full they would take most of the
            # step.
            torch.set_float32_matmul_precision("high")
        layers = dict(_layer_forwards(model, config))
        self._layers: dict[nn.Module, Callable[..., Any]] = {}
        # Other attention would take a mask of all pairs of tokens to keep packed rows
        # apart.
        self._attention = ""
        if on_gpu and model._supports_flex_attn:
            self._attention = "flex_attention"
        self.is_packed = config.layout == "packed"
        if config.layout == "auto":
            self.is_packed = bool(self._attention)
        # From here on the model is run to see what it does; what stands above must.
        self.takes_chunks = _is_plain(self.head) and self._leaves_logits_alone()
        if self.is_packed and not self._keeps_rows_apart():
            if config.layout == "packed":
                raise PolicyError(
                    "compute.layout='packed': packed rows of a"
                    f" {model.config.model_type} see each other. Use padded."
                )
            self.is_packed = False
        # After the probes, for which no layer need be compiled.
        self._layers = layers

    def __call__(
        self, token_ids: Tensor, attention_mask: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return each wanted token's log-probability, and the entropy (nats) there.

        Both are float32 `[batch, tokens]`, 0 at all other tokens and at the first,
        which nothing predicts; entropy is detached.

        Args:
            token_ids: int64[batch, tokens], padded on the right.
            attention_mask: int64[batch, tokens], 0 at padding.
            wanted: bool[batch, tokens].
        """
        wanted = wanted.clone()
        wanted[:, 0] = False
        inputs = {"input_ids": token_ids}
        wanted_in_inputs = wanted
        if self.is_packed:
            # All rows as one, without padding. Positions start anew with every row:
            # transformers takes that for a boundary.
            real = attention_mask.bool()
            positions = real.cumsum(-1)[real][None] - 1
            inputs = {"input_ids": token_ids[real][None], "position_ids": positions}
            wanted_in_inputs = wanted[real][None]
        logprobs, entropy = self._logprobs_at(wanted_in_inputs, inputs)
        # Packed or not, wanted tokens come in the order in which `wanted` has them.
        nothing = torch.zeros(wanted.shape, device=logprobs.device)
        return (
            nothing.masked_scatter(wanted, logprobs),
            nothing.masked_scatter(wanted, entropy),
        )

    def _logprobs_at(
        self, wanted: Tensor, inputs: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of the N wanted tokens: float32[N].

        Args:
            wanted: bool[rows, width], False in the first column.
            inputs: What the model is called with; "input_ids" are int64[rows, width].
        """
        targets = inputs["input_ids"][wanted]
        # The state before a token predicts it; the first of a row is never wanted.
        before = wanted.roll(-1, dims=1)
        num_logits = len(targets) * len(self.head.weight)
        if self.takes_chunks and num_logits > _FEW_LOGITS:
            return self._in_chunks(before, targets, inputs)
        return self._from_logits(before, targets, inputs)

    def _in_chunks(
        self, before: Tensor, targets: Tensor, inputs: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Have the head give log-probabilities and entropies in the place of logits.

        The model passes on what its head gives, and that is how they come back: what
        the model itself returns bears the hooks by which FSDP2 sees a backward pass
        begin.
        """

        def head_forward(hidden: Tensor) -> Tensor:
            weight = self.head.weight
            states = hidden[before].to(weight.dtype) / self.temperature
            pair = token_logprobs_from_hidden(states, weight, targets)
            # [1, N, 2], which has the form of logits of N tokens of one row.
            return torch.stack(pair, dim=-1)[None]

        returned = self._run(head_forward, inputs)
        logprobs, entropy = returned[0].unbind(-1)
        return logprobs, entropy.detach()

    def _from_logits(
        self, before: Tensor, targets: Tensor, inputs: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Hold the logits before wanted tokens, as the model makes them of its head's.

        The model may cap or scale what its head gives.
        """
        own_forward = self.head.forward

        def head_forward(hidden: Tensor) -> Tensor:
            states = hidden[before].to(self.head.weight.dtype)
            return own_forward(states[None])

        logits = self._run(head_forward, inputs)[0].float()
        scores = torch.log_softmax(logits / self.temperature, dim=-1)
        with torch.no_grad():
            entropy = -(scores.exp() * scores).sum(-1)
        logprobs = scores.gather(-1, targets[:, None])
        return logprobs[:, 0], entropy

    def _run(self, head_forward: HeadForward, inputs: dict[str, Tensor]) -> Tensor:
        """Return what the model makes of what `head_forward` gives."""

        def in_full_precision(hidden: Tensor) -> Tensor:
            # Autocast would compute the head in bfloat16, which rounds a logit of 20
            # to a multiple of 1/8: as much as what a ratio is clipped at.
            with torch.autocast(hidden.device.type, enabled=False):
                return head_forward(hidden)

        device = self.model.device.type
        with (
            self._replaced(in_full_precision),
            torch.autocast(device, torch.bfloat16, self.is_bfloat16),
        ):
            # Rows end in padding, which no token before it sees under causal attention:
            # no mask is needed.
            out: Tensor = self.model(**inputs, use_cache=False).logits
        return out

    @torch.no_grad()
    def _leaves_logits_alone(self) -> bool:
        """Return whether the model returns what its head gives, unchanged.

        It may cap logits, scale them, or add to them.
        """
        logits: list[Tensor] = []

        def head_forward(hidden: Tensor) -> Tensor:
            # As many as there are tokens, or a model that cuts some off would pass.
            num_tokens = len(self.head.weight)
            each = torch.linspace(-_PROBE_LOGIT, _PROBE_LOGIT, num_tokens)
            made = each.to(hidden.device).expand(*hidden.shape[:-1], num_tokens)
            # A copy, or a model that changes them in place would pass.
            logits.append(made.clone())
            return made.clone()

        token_ids = torch.zeros((1, 2), dtype=torch.long, device=self.model.device)
        returned = self._run(head_forward, {"input_ids": token_ids})
        # A model that does not call its head as a module gave nothing.
        return bool(logits) and torch.equal(returned, logits[0])

    @contextmanager
    def _replaced(self, head_forward: HeadForward) -> Iterator[None]:
        """Put other `forward` methods, and on a GPU another attention, in place."""
        forwards = {**self._layers, self.head: head_forward}
        own_attention = self.model.config._attn_implementation
        is_attention_replaced = self.is_packed and self._attention
        for module, forward in forwards.items():
            # What the module itself has goes before the method of its class, and when
            # it is deleted the method is back.
            vars(module)["forward"] = forward
        if is_attention_replaced:
            self.model.set_attn_implementation(self._attention)
        try:
            yield
        finally:
            for module in forwards:
                del vars(module)["forward"]
            if is_attention_replaced:
                self.model.set_attn_implementation(own_attention)

    @torch.no_grad()
    def _keeps_rows_apart(self) -> bool:
        """Return whether two packed rows get what each gets alone.

        A recurrent layer, for one, would carry its state from a row to the next.
        """
        device = self.model.device
        shape = (_PROBE_ROWS, _PROBE_TOKENS)
        num_tokens = _PROBE_ROWS * _PROBE_TOKENS
        rows = torch.arange(num_tokens, device=device).view(shape)
        wanted = torch.ones_like(rows, dtype=torch.bool)
        wanted[:, 0] = False
        positions = torch.arange(_PROBE_TOKENS, device=device).repeat(_PROBE_ROWS)
        joined = {"input_ids": rows.view(1, -1), "position_ids": positions[None]}
        packed, _ = self._logprobs_at(wanted.view(1, -1), joined)
        alone, _ = self._logprobs_at(wanted, {"input_ids": rows})
        tolerance = _APART_BFLOAT16 if self.is_bfloat16 else _APART_FLOAT32
        return torch.allclose(packed, alone, atol=tolerance)


def _is_plain(head: nn.Module) -> bool:
    """Return whether a head is a product with a weight and nothing else."""
    return isinstance(head, nn.Linear) and head.bias is None


def _layer_forwards(
    model: PreTrainedModel, config: ComputeConfig
) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    """Yield each decoder layer with the `forward` method that the learner gives it."""
    if not config.gradient_checkpointing and not config.compile_layers:
        return
    layers = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    if not layers:
        raise PolicyError(
            "compute.gradient_checkpointing and compute.compile_layers: no layers of a"
            f" {model.config.model_type} are known to transformers as such. Leave both"
            " off."
        )
    for layer in layers:
        forward: Callable[..., Any] = layer.forward
        if config.compile_layers:
            # One graph for all lengths: rows differ in them from step to step.
            forward = torch.compile(forward, dynamic=True)
        if config.gradient_checkpointing:
            # The reentrant kind gives no gradient where no input of a layer needs one,
            # as behind the frozen embeddings of a model with adapters.
            forward = partial(checkpoint, forward, use_reentrant=False)
        yield layer, forward
