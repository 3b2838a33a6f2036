"""docs/datasets.md, made from the descriptions: python -m client.data.datasets.page > docs/datasets.md"""

from importlib.resources import files

from client.data.datasets import Dataset, datasets
from shared_model.tasks import MODALITIES


def page() -> str:
    """The whole page."""
    head = (files("client.data.datasets") / "head.md").read_text(encoding="utf-8")
    return "\n".join([head, *(section(name, one) for name, one in datasets().items())])


def section(name: str, described: Dataset) -> str:
    """One data set."""
    lines = [
        f"## {described.title}",
        "",
        f"`layout: {name}`. {described.size}. <{described.source}>, {described.terms}.",
        "",
    ]
    lines += [f"{described.unpack.rstrip('.')}.", "", "| file | path |", "|---|---|"]
    for modality in MODALITIES:
        lines.append(f"| {modality} | {' or '.join(f'`{path}`' for path in described.images[modality])} |")
    lines.append(
        f"| segmentation, {described.mask_values} | {', else '.join(f'`{path}`' for path in described.mask)} |"
    )
    if described.table is not None:
        lines += [f"| labels | `{described.table.file}` |", "", "| label | column | words |", "|---|---|---|"]
        for label, column in described.table.labels.items():
            words = ", ".join(f"{word} = {value}" for word, value in column.values.items())
            lines.append(f"| {label} | {column.column} | {words} |")
    for label, value in described.fixed.items():
        lines.append(f"| {label} | | always {value} |")
    lines += ["", *(f"* {remark}" for remark in described.remarks)]
    lines += [f"* Left out: names with `{skipped.case}`, {skipped.why}." for skipped in described.skipped]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
