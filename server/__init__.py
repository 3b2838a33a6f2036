"""The coordinator and the researcher: rounds, admission, aggregation, reports."""
