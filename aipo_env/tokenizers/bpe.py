"""Tokenizers of language models: encodings of tiktoken, and Hugging Face's.

Messages are encoded without the model's chat template, each closed by the end of turn.
"""

import base64
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aipo_env.errors import ConfigError, check_choice
from aipo_env.hub_access import hub_fault, is_hub_reachable
from aipo_env.shipped import data_folder
from aipo_env.text import encodable
from aipo_env.tokenizers.base import Tokenizer, added_macros
from aipo_env.tokenizers.bytes import ByteTokenizer

# A word, a single digit, signs, white space. No re.VERBOSE: tiktoken takes the text of
# a pattern.
AIPO_PATTERN = r" ?[A-Za-z]+|\d| ?[^\sA-Za-z\d]+|\s+"
"""How "tiktoken:aipo" cuts text before it merges bytes."""


def build_tokenizer(spec: str, macros: Mapping[str, tuple[str, str]]) -> Tokenizer:
    """Build a tokenizer from "byte", "tiktoken:ENCODING" or "hf:FOLDER_OR_ID".

    Args:
        macros: What opens and closes a call, by kind and tool, as `Codec.macros` gives
            it.

    Raises:
        ConfigError: The spec is unknown, or the tokenizer cannot be loaded or used; the
            message says why.
    """
    if spec == "byte":
        return ByteTokenizer(macros)
    # From a configuration file it may be anything.
    text = spec if isinstance(spec, str) else ""
    kind, _, name = text.partition(":")
    if kind == "tiktoken" and name:
        return TiktokenTokenizer(name, macros)
    if kind == "hf" and name:
        return HFTokenizer(name, macros)
    raise ConfigError(
        f"tokenizer: {spec!r} is unknown. Use 'byte', 'tiktoken:aipo' (which ships) or"
        " another encoding of tiktoken, or 'hf:' and a folder or id of a Hugging Face"
        " tokenizer."
    )


class TiktokenTokenizer(Tokenizer):
    """An encoding of tiktoken; macro tokens are added behind its vocabulary."""

    def __init__(self, name: str, macros: Mapping[str, tuple[str, str]]) -> None:
        tiktoken = _library("tiktoken")
        check_choice(
            "tokenizer: encoding", name, ["aipo", *tiktoken.list_encoding_names()]
        )
        # Its downloads raise OSError.
        try:
            encoding = (
                _aipo_encoding(tiktoken)
                if name == "aipo"
                else tiktoken.get_encoding(name)
            )
        except OSError as error:
            fault = f"encoding {name!r} has to be downloaded, and that failed: {error}"
            raise ConfigError(
                f"tokenizer: {fault}. Use 'tiktoken:aipo', which ships."
            ) from error
        self._encoding = encoding
        size = encoding.n_vocab
        num_tokens = size + len(macros)
        super().__init__(num_tokens, encoding.eot_token, added_macros(macros, size))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; half a surrogate pair becomes U+FFFD."""
        return list(self._encoding.encode_ordinary(text))

    def _bytes(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(map(self._piece, token_ids))

    def _piece(self, token_id: int) -> bytes:
        # Vocabularies have gaps, and an environment's actions are all ids up to the
        # end.
        try:
            return bytes(self._encoding.decode_single_token_bytes(token_id))
        except KeyError:
            return b""


class HFTokenizer(Tokenizer):
    """A Hugging Face tokenizer.

    Its end of text ends a turn, and the codec's marks that are tokens of it are macros.

    Raises:
        ConfigError: A file is missing or unreadable, or there is no end of text that
            text cannot spell.
    """

    def __init__(self, name: str, macros: Mapping[str, tuple[str, str]]) -> None:
        folder = _hf_folder(name)
        settings = _json(folder / "tokenizer.json")
        config = _json(folder / "tokenizer_config.json")
        # A token may be written as its text, or as an object that holds it.
        end = config.get("eos_token")
        if isinstance(end, dict):
            end = end.get("content")
        added = {token["content"]: token for token in settings.get("added_tokens", [])}
        if end not in added:
            raise ConfigError(
                f"tokenizer: {folder / 'tokenizer_config.json'}: 'eos_token' is"
                f" {end!r}, which is none of the added tokens of tokenizer.json. Name"
                " the token that ends a text."
            )
        # A codec's macro is one of ours if what opens its call is a token.
        macros_in_it = {
            kind: (opening, closing)
            for kind, (opening, closing) in macros.items()
            if opening in added
        }
        # Only what is special is spelled out where it stands in text.
        added[end]["special"] = True
        for opening, _ in macros_in_it.values():
            added[opening]["special"] = True
        self._hf = _library("tokenizers").Tokenizer.from_str(json.dumps(settings))
        self._hf.encode_special_tokens = True  # in text they are spelled out
        self._hf.no_truncation()
        self._hf.no_padding()
        numbered = {
            kind: (added[opening]["id"], (opening, closing))
            for kind, (opening, closing) in macros_in_it.items()
        }
        # By the highest id, not by their number: vocabularies have gaps.
        num_tokens = 1 + max(self._hf.get_vocab().values())
        super().__init__(num_tokens, added[end]["id"], numbered)
        self._check_spelling(name, list(added))

    def _check_spelling(self, name: str, added: Sequence[str]) -> None:
        """Raise ConfigError if text can become a control token.

        A tokenizer's own rules may bring one about: one that normalises what it reads,
        or merges what stands beside it.
        """
        spelled = {
            token_id
            for text in (*added, " ".join(added))
            for token_id in self.encode(text)
        }
        if spelled & {self.end_id, *self._marks}:
            raise ConfigError(
                f"tokenizer: in {name!r} plain text can become a control token. Use"
                " another."
            )

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; half a surrogate pair becomes `?`."""
        plain = encodable(text)
        return list(self._hf.encode(plain, add_special_tokens=False).ids)

    def _bytes(self, token_ids: Sequence[int]) -> bytes:
        return str(self._hf.decode(list(token_ids), skip_special_tokens=False)).encode()


def _library(name: str) -> Any:
    """Import an optional dependency, or say how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f'tokenizer: {name} is not installed. pip install "aipo-rl[tokenizers]"'
        ) from error


def _aipo_encoding(tiktoken: Any) -> Any:
    """Return our own encoding; `envs_data.prepare.tokenizer` trained its ranks."""
    path = data_folder("tokenizer") / "aipo.tiktoken"
    lines = path.read_text(encoding="ascii").splitlines()
    pairs = (line.split() for line in lines)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    special = {"<|endoftext|>": len(ranks)}
    return tiktoken.Encoding(
        "aipo", pat_str=AIPO_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )


def _hf_folder(name: str) -> Path:
    """Return the folder of a tokenizer, downloaded if `name` is an id."""
    if Path(name).is_dir():
        return Path(name)
    files = ["tokenizer.json", "tokenizer_config.json"]
    # The hub's errors derive from these two, and so does that it is not installed.
    try:
        hub = _library("huggingface_hub")
        return Path(
            hub.snapshot_download(
                name, allow_patterns=files, local_files_only=not is_hub_reachable()
            )
        )
    except (OSError, ValueError) as error:
        reason = hub_fault(error, name) or f"{error}."
        raise ConfigError(
            f"tokenizer: {name!r} is no folder here, and as an id it cannot be"
            f" downloaded: {reason}"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    """Read a file of a tokenizer."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"tokenizer: {path} cannot be read: {error}.") from error
