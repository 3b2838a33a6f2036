"""Stock Flower's FedAvg as its documents have it, with the stub of training."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.rounds.step import step

ARRAYS = 60
client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """The stub's step."""
    arrays, config = message.content["arrays"], message.content["config"]
    after = step({name: value.numpy() for name, value in arrays.items()}, context.node_id + int(config["server-round"]))
    changed = ArrayRecord({name: Array(value) for name, value in after.items()})
    return Message(RecordDict({"arrays": changed, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


class Timed(FedAvg):
    """Notes when a round begins and ends."""

    times: Path

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        self._began = time.time()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        result = super().aggregate_train(server_round, replies)
        with self.times.open("a") as file:
            file.write(f"{self._began} {time.time()}\n")
        return result


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy.times = Path(str(context.run_config["times"]))
    draw = np.random.default_rng(0)  # equal arrays would be one object to Flower, and travel once
    size = int(context.run_config["weights"]) // ARRAYS
    initial = {f"a{index}": Array(draw.standard_normal(size, np.float32)) for index in range(ARRAYS)}
    strategy.start(grid, ArrayRecord(initial), num_rounds=int(context.run_config["rounds"]))
