"""Log a run and its resumption to a real logger, offline, and write what it holds
then.
"""

import json
import os
import struct
import sys
from pathlib import Path

name, folder = sys.argv[1], Path(sys.argv[2])
os.environ |= {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "TRACKIO_DIR": str(folder / "trackio"),
    "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
}

from aipo_learner.run.loggers import log_to, open_loggers  # noqa: E402

run = folder / "mine"
run.mkdir()
for num_made, values in ((0, [1.0, 2.0, 3.0]), (2, [3.0, 4.0])):
    loggers = open_loggers(
        name,
        run,
        {"lr": 0.5, "out": str(run), "agents": {"type": "scripted"}},
        num_made,
    )
    for step, value in enumerate(values, num_made + 1):
        log_to(loggers, {"success/unaided": value}, step)
    assert list(loggers) == [name], "a logger failed and was left out"
    loggers[name].close()


def held() -> dict[int, float]:
    """Read back what was logged: step → value."""
    if name == "wandb":
        import wandb
        from wandb.proto import wandb_internal_pb2

        wandb.teardown()  # the process that writes has ended when this returns
        points = {}
        for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
            data, place = (
                path.read_bytes(),
                7,
            )  # a file header, then records: checksum, length, type, message
            while place + 7 <= len(data):
                _, length, _ = struct.unpack_from("<IHB", data, place)
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data[place + 7 : place + 7 + length])
                row = {
                    item.key or item.nested_key[0]: item.value_json
                    for item in record.history.item
                }
                if "success/unaided" in row:
                    points[int(row["_step"])] = float(row["success/unaided"])
                place += 7 + length
        return points
    if name == "trackio":
        import sqlite3

        (path,) = (folder / "trackio").glob("*.db")
        rows = (
            sqlite3.connect(path)
            .execute("SELECT step, metrics FROM metrics")
            .fetchall()
        )
        return {step: json.loads(metrics)["success/unaided"] for step, metrics in rows}
    import mlflow

    client = mlflow.MlflowClient()
    (only,) = client.search_runs([client.get_experiment_by_name("aipo").experiment_id])
    assert only.info.status == "FINISHED"
    history = client.get_metric_history(only.info.run_id, "success/unaided")
    return {point.step: point.value for point in history}


(folder / "held.json").write_text(json.dumps(held()))
