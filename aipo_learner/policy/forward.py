"""The learner's forward pass: log-probabilities of the tokens that the loss reads, and of no others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from aipo_env import PolicyError
from aipo_learner.learn.rows import Batch
from aipo_learner.policy.head import token_logprobs_from_hidden
from aipo_learner.settings.checks import Natural, OneOf, check_settings

_FEW_LOGITS = 1 << 22
"""Up to so many logits, holding them all is faster than computing them twice."""


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the update is computed; all but `lora_rank` change only memory, speed and rounding."""

    layout: Annotated[str, OneOf(("auto", "padded", "packed"))] = "auto"
    """padded; or packed: the rows of a pass joined to one sequence without padding, its attention block-diagonal
    (flex_attention on a GPU). auto packs on a GPU, where the model can."""
    precision: Annotated[str, OneOf(("auto", "float32", "bfloat16"))] = "auto"
    """float32; or bfloat16: layers computed by autocast, weights, gradients and head in float32. auto is bfloat16
    on a GPU."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of each layer for the backward pass and compute the rest again."""
    compile_layers: bool = False
    """Compile each layer with torch.compile."""
    lora_rank: Natural = 0
    """Train adapters of this rank instead of the weights; exports are merged. They bear ten times the rate. 0 is
    off."""

    def __post_init__(self) -> None:
        check_settings(self, "config: compute.")


class LearnerForward:
    """Computes log-probabilities with a causal language model of transformers: `forward(batch)`.

    While it runs, the `forward` methods of the output embedding and of the layers are others. The model itself,
    its layers and its head are called as modules, never their weights from outside, so that the hooks of FSDP2
    run wherever `fully_shard` put them; the sampler meets the model unchanged.

    Raises:
        PolicyError: The layout is "packed" and packed rows of this model see each other, or the model has no
            layers that can be compiled or computed again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: ComputeConfig | None = None,
        *,
        temperature: float = 1.0,
    ) -> None:
        config = config or ComputeConfig()
        self.model, self.temperature = model, temperature
        self.head = model.get_output_embeddings()
        on_gpu = model.device.type == "cuda"
        self.is_bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and on_gpu
        )
        if self.is_bfloat16 and on_gpu:
            # The head's float32 products in TF32: in full they would take most of the step.
            torch.set_float32_matmul_precision("high")
        # A head of another kind, or with a bias, keeps its own forward method.
        self._is_plain_head = (
            isinstance(self.head, nn.Linear) and self.head.bias is None
        )
        self._layers = dict(_layer_forwards(model, config))
        self._attention = (
            "flex_attention" if on_gpu and model._supports_flex_attn else ""
        )
        self.is_packed = config.layout == "packed" or (
            config.layout == "auto" and bool(self._attention)
        )
        if self.is_packed and not self._keeps_rows_apart():
            if config.layout == "packed":
                raise PolicyError(
                    f"compute.layout='packed': packed rows of a {model.config.model_type} see each other. Use padded."
                )
            self.is_packed = False

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the log-probability of every token of the policy or an agent, and the entropy (nats) there.

        Both are float32 `[batch, tokens]`, 0 at all other tokens and at the first; entropy is detached.
        """
        wanted = batch.policy_mask | batch.agent_mask
        wanted[:, 0] = False
        inputs = {"input_ids": batch.token_ids}
        here = wanted
        if self.is_packed:
            # Positions start anew with every row: transformers takes that for a boundary.
            real = batch.attention_mask.bool()
            positions = real.cumsum(-1)[real][None] - 1
            inputs = {
                "input_ids": batch.token_ids[real][None],
                "position_ids": positions,
            }
            here = wanted[real][None]
        logprobs, entropy = self._at(here, inputs)
        nothing = torch.zeros(wanted.shape, device=logprobs.device)
        return nothing.masked_scatter(wanted, logprobs), nothing.masked_scatter(
            wanted, entropy
        )

    @torch.no_grad()
    def probe_head(self) -> None:
        """Find out whether the model leaves its logits as they are, which else only the first large batch shows.

        Then a batch is one pass through the model; ranks that share weights must make as many.
        """
        wanted = torch.tensor([[False, True]], device=self.model.device)
        self._at(wanted, {"input_ids": wanted.long()}, is_probe=True)

    def _at(
        self, wanted: Tensor, inputs: dict[str, Tensor], is_probe: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return float32[N] log-probabilities and entropies of the N wanted tokens: bool[rows, width]."""
        targets = inputs["input_ids"][wanted]
        # The state before a token predicts it; the first of a row is never wanted.
        before = wanted.roll(-1, dims=1)
        is_large = is_probe or len(targets) * len(self.head.weight) > _FEW_LOGITS
        is_chunked = self._is_plain_head and is_large
        own_forward = self.head.forward
        made: list[Tensor] = []

        def head_forward(hidden: Tensor) -> Tensor:
            with torch.autocast(hidden.device.type, enabled=False):
                states = hidden[before].to(self.head.weight.dtype)
                if not is_chunked:
                    return own_forward(states[None])
                pair = token_logprobs_from_hidden(
                    states / self.temperature, self.head.weight, targets
                )
                made.append(torch.stack([part[None] for part in pair], dim=-1))
                return made[0]

        with (
            self._replaced(head_forward),
            torch.autocast(before.device.type, torch.bfloat16, self.is_bfloat16),
        ):
            # Rows end in padding, which no token before it sees under causal attention: no mask is needed.
            out: Tensor = self.model(**inputs, use_cache=False).logits
        if is_chunked and out.data_ptr() != made[0].data_ptr():
            # The model does something to its logits (a cap, a scale): it must be given all of them.
            self._is_plain_head = False
            return self._at(wanted, inputs)
        if is_chunked:
            logprobs, entropy = out[0].unbind(-1)
            return logprobs, entropy.detach()
        scores = torch.log_softmax(out[0].float() / self.temperature, dim=-1)
        with torch.no_grad():
            entropy = -(scores.exp() * scores).sum(-1)
        return scores.gather(-1, targets[:, None])[:, 0], entropy

    @contextmanager
    def _replaced(self, head_forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Put other `forward` methods, and on a GPU another attention, in place."""
        forwards = {**self._layers, self.head: head_forward}
        attention = self.model.config._attn_implementation
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        if self.is_packed and self._attention:
            self.model.set_attn_implementation(self._attention)
        try:
            yield
        finally:
            for module in forwards:
                del vars(module)["forward"]
            if self.is_packed and self._attention:
                self.model.set_attn_implementation(attention)

    @torch.no_grad()
    def _keeps_rows_apart(self) -> bool:
        """Return whether two packed rows get what they get alone: a recurrent layer would carry its state on."""
        rows = torch.arange(32, device=self.model.device).view(2, 16)
        wanted = torch.ones_like(rows, dtype=torch.bool)
        wanted[:, 0] = False
        positions = torch.arange(16, device=rows.device).repeat(2)[None]
        packed, _ = self._at(
            wanted.view(1, 32),
            {"input_ids": rows.view(1, 32), "position_ids": positions},
        )
        alone, _ = self._at(wanted, {"input_ids": rows})
        return torch.allclose(packed, alone, atol=0.1 if self.is_bfloat16 else 1e-3)


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
            "compute.gradient_checkpointing and compute.compile_layers: no layers of a "
            f"{model.config.model_type} are known to transformers as such. Leave both off."
        )
    for layer in layers:
        forward: Callable[..., Any] = layer.forward
        if config.compile_layers:
            forward = torch.compile(forward, dynamic=True)
        if config.gradient_checkpointing:
            forward = partial(checkpoint, forward, use_reentrant=False)
        yield layer, forward
