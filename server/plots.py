"""The figures of a report, each as PNG bytes. Colours are Okabe & Ito's, which the colour-blind tell apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from server.summary import AVERAGED_LOCAL, CENTRALISED, FEDERATED, Round, Summary
from shared_model.scores import METRICS, Row
from shared_model.tasks import MODALITIES, REGIONS, TASKS

REGION_COLOURS = {"wt": "#56B4E9", "tc": "#F0E442", "et": "#D55E00"}
WAY_COLOURS = {FEDERATED: "#0072B2", CENTRALISED: "#333333", AVERAGED_LOCAL: "#009E73"}
LOCAL_COLOUR = "#E69F00"
INK, FAINT = "#222222", "#b8bec6"
MAIN_METRIC = {"wt": "dice", "tc": "dice", "et": "dice", "idh": "auc", "codeletion": "auc", "grade": "auc_grade_4"}
"""The one metric that figures show for each task."""
DPI = 110


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI, pil_kwargs={"optimize": True})
    return file.getvalue()


def _plain(name: str) -> str:
    """A name as it is, with no mathematics in it, cut to what fits."""
    short = name if len(name) < 25 else f"{name[:23]}…"
    return short.replace("$", r"\$")


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=FAINT)
    axes.set_axisbelow(True)


def _say_synthetic(figure: Figure, summary: Summary) -> None:
    """A figure may be cut out of its report, so it says by itself what it is drawn from."""
    if summary.synthetic:
        figure.suptitle("synthetic data", fontsize=8, color=INK, x=0.99, ha="right")


def _value(rows: tuple[Row, ...], task: str) -> Row | None:
    """The task's main row, if it has a value."""
    for row in rows:
        if row.task == task and row.metric == MAIN_METRIC[task] and row.value is not None:
            return row
    return None


def _line(rounds: tuple[Round, ...], task: str, site: str | None) -> tuple[list[int], list[float]]:
    """Rounds and values of one site, or of all together."""
    points = [(one.index, _value(one.pooled if site is None else one.sites.get(site, ()), task)) for one in rounds]
    known = [(index, row.value) for index, row in points if row is not None and row.value is not None]
    return [index for index, _ in known], [value for _, value in known]


def learning_curves(summary: Summary) -> bytes:
    """Each task's main metric on the sites' held-out cases over rounds: thin, a site; thick, all together."""
    tasks = [task for task in TASKS if _line(summary.rounds, task, None)[0]] or ["wt"]
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * lines + 0.3), layout="constrained")
    for axes, task in zip(figure.subplots(lines, columns, squeeze=False).flat, tasks, strict=False):
        for site in summary.sites:
            axes.plot(*_line(summary.rounds, task, site.name), color=FAINT, linewidth=1, marker=".", markersize=3)
        axes.plot(*_line(summary.rounds, task, None), color=WAY_COLOURS[FEDERATED], linewidth=2.5, marker=".")
        if not TASKS[task].is_region:
            axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_title(f"{TASKS[task].title}: {METRICS[MAIN_METRIC[task]]}", fontsize=9, color=INK, loc="left")
        axes.set_xlabel("round", fontsize=8, color=INK)
        _clean(axes)
    for axes in figure.axes[len(tasks) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=WAY_COLOURS[FEDERATED], linewidth=2.5, label="all sites"),
        Line2D([], [], color=FAINT, linewidth=1, label="one site"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    _say_synthetic(figure, summary)
    return _png(figure)


def way_bars(summary: Summary) -> bytes:
    """Each task's main metric on the common test set by way of training, with 95 % intervals."""
    tasks = [task for task in TASKS if any(_value(way.rows, task) for way in summary.ways)] or ["wt"]
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    names = [way.name for way in summary.ways]
    figure = Figure(figsize=(3.1 * columns, (0.24 * len(names) + 0.75) * lines + 0.1), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, task in zip(grid.flat, tasks, strict=False):
        for place, way in enumerate(summary.ways):
            row = _value(way.rows, task)
            if row is None or row.value is None:
                axes.text(0.02, place, "not told", fontsize=7, color="#777777", va="center")
                continue
            axes.barh(place, row.value, height=0.62, color=WAY_COLOURS.get(way.name, LOCAL_COLOUR), alpha=0.85)
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.2)
        if not TASKS[task].is_region:
            axes.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.set_xlim(0, 1.02)
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.set_title(f"{TASKS[task].title}: {METRICS[MAIN_METRIC[task]]}", fontsize=9, color=INK, loc="left")
        _clean(axes)
        axes.tick_params(axis="y", length=0)
    grid[0, 0].invert_yaxis()
    for axes in figure.axes[len(tasks) :]:
        axes.set_axis_off()
    _say_synthetic(figure, summary)
    return _png(figure)


@dataclass(frozen=True)
class Plane:
    """One slice: `flair` and `t1ce` (H, W) floats, `truth` and `prediction` (3, H, W) bool in the order of REGIONS.

    `aspect` is the height of a pixel over its width.
    """

    name: str
    flair: np.ndarray
    t1ce: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    aspect: float


@dataclass(frozen=True)
class SliceImages:
    """Three orthogonal slices of one test case."""

    case: str
    planes: tuple[Plane, ...]
    synthetic: bool


def slice_images(
    case: str,
    image: np.ndarray,
    truth: np.ndarray,
    probabilities: np.ndarray,
    spacing: tuple[float, float, float],
    synthetic: bool,
) -> SliceImages:
    """Cut a case where its tumour is widest; seen as radiologists do, with the patient's right on the left.

    Args:
        image: (4, D, H, W) in the order of MODALITIES, axes to the patient's right, front and top (RAS).
        truth: (3, D, H, W) masks in the order of REGIONS.
        probabilities: (3, D, H, W); a region is where it is > 0.5.
        spacing: edges of a voxel in mm.
    """
    predicted = probabilities > 0.5
    tumour = truth[0] if truth[0].any() else predicted[0]
    planes = []
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        others = tuple(other for other in range(3) if other != axis)
        area = tumour.sum(axis=others)  # (size of axis,)
        place = int(area.argmax()) if area.any() else len(area) // 2

        def cut(volumes: np.ndarray, axis: int = axis, place: int = place) -> np.ndarray:
            cuts = np.asarray(volumes).take(place, axis=axis + 1).swapaxes(1, 2)  # (C, D, H, W) -> (C, height, width)
            return cuts if axis == 0 else cuts[:, :, ::-1]

        images = cut(image)
        planes.append(
            Plane(
                name=name,
                flair=images[MODALITIES.index("flair")],
                t1ce=images[MODALITIES.index("t1ce")],
                truth=cut(truth).astype(bool),
                prediction=cut(predicted),
                aspect=spacing[others[1]] / spacing[others[0]],
            )
        )
    return SliceImages(case, tuple(planes), synthetic)


def _panels(plane: Plane) -> Iterator[tuple[str, np.ndarray, tuple[str, ...]]]:
    """Backgrounds, and the regions that are read on each."""
    yield "FLAIR", plane.flair, ("wt",)
    yield "T1ce", plane.t1ce, ("tc", "et")


def slices(images: SliceImages) -> bytes:
    """Truth as a solid outline, prediction as a dashed one: the whole tumour on FLAIR, core and enhancement on T1ce."""
    figure = Figure(figsize=(6.6, 5.2), layout="constrained", facecolor="white")
    grid = figure.subplots(2, len(images.planes), squeeze=False)
    for column, plane in enumerate(images.planes):
        for line, (background, pixels, regions) in enumerate(_panels(plane)):
            axes = grid[line, column]
            low, high = np.percentile(pixels, [1, 99.5])
            axes.imshow(pixels, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect=plane.aspect)
            for channel, region in enumerate(region.name for region in REGIONS):
                if region not in regions:
                    continue
                for mask, style, width in ((plane.truth, "solid", 1.6), (plane.prediction, "dashed", 1.2)):
                    if 0 < mask[channel].sum() < mask[channel].size:
                        colour = REGION_COLOURS[region]
                        axes.contour(mask[channel], [0.5], colors=colour, linestyles=style, linewidths=width)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if line == 0:
                axes.set_title(plane.name, fontsize=8, color=INK)
            if column == 0:
                axes.set_ylabel(background, fontsize=8, color=INK)
    handles: list[Patch | Line2D] = [
        Patch(facecolor=REGION_COLOURS[region.name], edgecolor=INK, linewidth=0.5, label=region.title)
        for region in REGIONS
    ]
    handles += [
        Line2D([], [], color=INK, linewidth=1.6, label="truth"),
        Line2D([], [], color=INK, linewidth=1.2, linestyle="dashed", label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    origin = " (synthetic)" if images.synthetic else ""
    figure.suptitle(f"{_plain(images.case)}{origin}", fontsize=10, color=INK)
    return _png(figure)
