"""What both sides agree on: the network, the tasks, the loss, the metrics, the wire. No Flower and no network here."""
