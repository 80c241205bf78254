"""Runs under torchrun: trains each configuration of a JSON file in turn."""

import json
import sys
from pathlib import Path

from rich.console import Console

from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

for fields in json.loads(Path(sys.argv[1]).read_text()):
    train(TrainConfig.from_dict(fields), Console(quiet=True))
