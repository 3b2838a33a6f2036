"""The only place that touches Flower's SuperLink: listeners, their guards, the executor, the control client."""
