"""Write a hash list of the test tasks of a source: hashes alone, no text.

python -m envs_data.prepare.contamination hf:math_500 math_500.json
"""

import sys
from pathlib import Path

from aipo_env import build_source
from aipo_env.tasks.contamination import ContaminationIndex, all_tasks


def main(spec: str, out: str) -> None:
    """Write the hash list of what `spec` names to the file `out`."""
    index = ContaminationIndex.from_tasks(all_tasks(build_source(spec, seed=0), "test"))
    index.save(Path(out))
    print(f"{out}: {index.num_tasks} tasks, {len(index.hashes)} hashes")


if __name__ == "__main__":
    main(*sys.argv[1:])
