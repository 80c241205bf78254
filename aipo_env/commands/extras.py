"""The extras of the package: what each installs, and what that is for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    """What `pip install "aipo-rl[NAME]"` adds.

    Args:
        packages: Names by which they are imported.
        use: What they are needed for.
    """

    packages: tuple[str, ...]
    use: str


EXTRAS: dict[str, Extra] = {
    "learner": Extra(
        ("safetensors", "tensorboard", "torch", "transformers"),
        "aipo train, eval, report, demo, warmstart",
    ),
    "report": Extra(
        ("jinja2", "markupsafe"), "pages: aipo view, report, demo; no torch"
    ),
    "openai": Extra(("openai", "aiohttp"), "agents behind an API: openai:MODEL@URL"),
    "data": Extra(("huggingface_hub", "pyarrow"), "hf: sources, .parquet files"),
    "tokenizers": Extra(("tiktoken", "tokenizers"), "tokenizer= of environments"),
    "docker": Extra(("docker",), "the Docker sandbox"),
    "mcp": Extra(("mcp",), "tools of MCP servers, aipo serve --mcp"),
    "openenv": Extra(("openenv",), "aipo serve --openenv; not beside mcp"),
    "lora": Extra(("peft",), "adapters: --compute.lora-rank"),
    "vllm": Extra(("vllm",), "--sampler vllm, on a GPU"),
    "ray": Extra(("ray",), "aipo train --ray"),
    "trl": Extra(("trl",), "AipoGRPOTrainer, in Python"),
    "verifiers": Extra(
        ("verifiers",), "vf-eval aipo_verifiers; not beside mcp or openenv"
    ),
    "verl": Extra(("verl",), "the trainer and agent loop aipo of verl"),
}
"""By name, as in pyproject.toml; that of tests and checks, dev, is left out."""
EXTRA_OF = {
    package: name for name, extra in EXTRAS.items() for package in extra.packages
}
"""The extra that installs a package."""


def how_to_install(*packages: str) -> str:
    """Return the command that installs packages by their extras."""
    names = dict.fromkeys(EXTRA_OF[package] for package in packages)
    return f'pip install "aipo-rl[{",".join(names)}]"'
