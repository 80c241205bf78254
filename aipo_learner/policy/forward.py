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
from aipo_learner.policy.probes import (
    NUM_PROBE_TOKENS,
    LogitChange,
    is_product,
    logit_change,
    needs_padding_mask,
    packing_fault,
    probe_logits,
)
from aipo_learner.settings.compute import ComputeConfig

_FEW_LOGITS = 1 << 22
"""Up to so many logits, holding them all is faster than computing them twice."""

HeadForward = Callable[[Tensor], Tensor]
"""What stands for the `forward` of the output embedding: hidden states to logits."""


class LearnerForward:
    """Computes log-probabilities with a causal language model of transformers.

    While it runs, the `forward` methods of the output embedding and of the layers are
    others. The model itself, its layers and its head are called as modules, never their
    weights from outside, so that the hooks of FSDP2 run wherever `fully_shard` puts
    them later; the sampler meets the model unchanged.

    What the model does is seen by running it on a few tokens. `takes_chunks` says
    whether log-probabilities are computed in chunks: the head is a product, with a bias
    or without, and all that the model does to its logits is to scale and to cap them.
    Else all logits are held.

    Args:
        model: The policy, on its device.
        config: Precision, layout, and what is done to the layers; the defaults if None.
        temperature: What logits are divided by, as they were where tokens were sampled.
        entropy_gradient: Whether the entropy has a gradient. All logits are held then.

    Raises:
        PolicyError: The layout is "packed" and rows of this model cannot be packed; or
            they cannot be padded either; or the model does not call its output
            embedding, or has no layers that can be compiled or computed again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: ComputeConfig | None = None,
        *,
        temperature: float = 1.0,
        entropy_gradient: bool = False,
    ) -> None:
        self.entropy_gradient = entropy_gradient
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
        with _in_eval_mode(model):
            self._logit_change = self._probed_change()
            self.takes_chunks = self._logit_change is not None
            fault = packing_fault(self._probe, model) if self.is_packed else ""
            if fault and config.layout == "packed":
                raise PolicyError(
                    "compute.layout='packed': packed rows of a"
                    f" {model.config.model_type} {fault}. Use padded."
                )
            self.is_packed = self.is_packed and not fault
            self._passes_mask = False
            if not self.is_packed:
                self._passes_mask = needs_padding_mask(self._probe, model)
        # After the probes, for which no layer need be compiled.
        self._layers = layers

    def __call__(
        self, token_ids: Tensor, attention_mask: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return each wanted token's log-probability, and the entropy (nats) there.

        Both are float32 `[batch, tokens]`, 0 at all other tokens and at the first,
        which nothing predicts; entropy is detached, unless `entropy_gradient`.

        Args:
            token_ids: int64[batch, tokens], padded on the right.
            attention_mask: int64[batch, tokens], 0 at padding.
            wanted: bool[batch, tokens].
        """
        wanted = wanted.clone()
        wanted[:, 0] = False
        # Rows end in padding, which no token before it sees under causal attention:
        # most models need no mask.
        inputs = {"input_ids": token_ids}
        if self._passes_mask:
            inputs["attention_mask"] = attention_mask
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
        # Chunks have no gradient of the entropy.
        change = None if self.entropy_gradient else self._logit_change
        if change is not None and num_logits > _FEW_LOGITS:
            return self._in_chunks(before, targets, inputs, change)
        return self._from_logits(before, targets, inputs)

    def _in_chunks(
        self,
        before: Tensor,
        targets: Tensor,
        inputs: dict[str, Tensor],
        change: LogitChange,
    ) -> tuple[Tensor, Tensor]:
        """Have the head give log-probabilities and entropies in the place of logits.

        What the model would do to its logits has then been done.
        """
        pairs: list[Tensor] = []

        def head_forward(hidden: Tensor) -> Tensor:
            pair = token_logprobs_from_hidden(
                hidden[before].to(self.head.weight.dtype),
                self.head.weight,
                targets,
                bias=getattr(self.head, "bias", None),
                # Both, and so the logits, are divided by the temperature.
                scale=change.scale / self.temperature,
                cap=None if change.cap is None else change.cap / self.temperature,
            )
            # [1, N, 2], which has the form of logits of N tokens of one row.
            pairs.append(torch.stack(pair, dim=-1)[None])
            # A copy: the model does to it what it does to logits.
            return pairs[0].clone()

        returned = self._run(head_forward, inputs)
        # What the model returns bears the hooks by which FSDP2 sees a backward pass
        # begin. None of it is taken, but the way back leads through it as well: the
        # head's gradient waits for all that came of the head.
        joined = torch.cat([pairs[0], returned[..., :0]], dim=-1)
        logprobs, entropy = joined[0].unbind(-1)
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
        has_gradient = self.entropy_gradient and torch.is_grad_enabled()
        with torch.set_grad_enabled(has_gradient):
            finite = scores
            if scores.isneginf().any():
                # What the model rules out adds 0; 0 times infinity would be no number.
                finite = scores.masked_fill(scores.isneginf(), 0.0)
            entropy = -(scores.exp() * finite).sum(-1)
        logprobs = scores.gather(-1, targets[:, None])
        return logprobs[:, 0], entropy

    def _run(
        self,
        head_forward: HeadForward,
        inputs: dict[str, Tensor],
        *,
        is_exact: bool = False,
    ) -> Tensor:
        """Return what the model makes of what `head_forward` gives.

        Args:
            head_forward: In the place of the head's own.
            inputs: What the model is called with; packed rows have "position_ids".
            is_exact: In full float32 with the model's own attention, rather than as the
                settings have it.
        """

        def in_full_precision(hidden: Tensor) -> Tensor:
            # Autocast would compute the head in bfloat16, which rounds a logit of 20
            # to a multiple of 1/8: as much as what a ratio is clipped at.
            with torch.autocast(hidden.device.type, enabled=False):
                return head_forward(hidden)

        device = self.model.device.type
        is_bfloat16 = self.is_bfloat16 and not is_exact
        is_packed = "position_ids" in inputs
        attention = self._attention if is_packed and not is_exact else ""
        with (
            self._replaced(in_full_precision, attention),
            torch.autocast(device, torch.bfloat16, is_bfloat16),
        ):
            out: Tensor = self.model(**inputs, use_cache=False).logits
        return out

    def _probe(
        self, inputs: dict[str, Tensor], tokens: slice, *, is_exact: bool
    ) -> tuple[Tensor, Tensor]:
        """Return what the model gives its head, and its logits of the last token."""
        states: list[Tensor] = []
        own_forward = self.head.forward

        def head_forward(hidden: Tensor) -> Tensor:
            some = hidden[:, tokens]
            states.append(some.float())
            return own_forward(some[:, -1:].to(self.head.weight.dtype))

        own_precision = torch.get_float32_matmul_precision()
        if is_exact:
            torch.set_float32_matmul_precision("highest")
        try:
            logits = self._run(head_forward, inputs, is_exact=is_exact)
        finally:
            torch.set_float32_matmul_precision(own_precision)
        return states[0], logits.float()

    def _probed_change(self) -> LogitChange | None:
        """Return what becomes of the head's product, if it can be told.

        Raises:
            PolicyError: The model does not call its output embedding.
        """
        logits: list[Tensor] = []
        is_all_known: list[bool] = []
        own_forward = self.head.forward

        def head_forward(hidden: Tensor) -> Tensor:
            is_known = is_product(self.head, own_forward, hidden.shape[-1])
            is_all_known.append(is_known)
            made = probe_logits(len(self.head.weight), hidden.device)
            logits.append(made)
            # From here on, what the model does to them leaves a trace if it learns it.
            torch.set_grad_enabled(True)
            # A copy: a model may change them in place.
            return made.clone()

        token_ids = torch.zeros(
            (1, NUM_PROBE_TOKENS), dtype=torch.long, device=self.model.device
        )
        with torch.no_grad():
            returned = self._run(head_forward, {"input_ids": token_ids})
        if not logits:
            raise PolicyError(
                f"a {self.model.config.model_type} does not call the module of its"
                " get_output_embeddings(): the learner, which takes what that module is"
                " given, cannot train it. Choose another model."
            )
        # What the model does with numbers that it learns does not stay as it is.
        if returned.requires_grad or not all(is_all_known):
            return None
        return logit_change(logits[0], returned.detach())

    @contextmanager
    def _replaced(self, head_forward: HeadForward, attention: str) -> Iterator[None]:
        """Put other `forward` methods, and another attention if named, in place."""
        forwards = {**self._layers, self.head: head_forward}
        own_attention = self.model.config._attn_implementation
        for module, forward in forwards.items():
            # What the module itself has goes before the method of its class, and when
            # it is deleted the method is back.
            vars(module)["forward"] = forward
        if attention:
            self.model.set_attn_implementation(attention)
        try:
            yield
        finally:
            for module in forwards:
                del vars(module)["forward"]
            if attention:
                self.model.set_attn_implementation(own_attention)


@contextmanager
def _in_eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Switch off what draws, such as dropout: probes compare one run with another."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True


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
