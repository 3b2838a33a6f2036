"""What a synthetic patient has, and what it makes the tumour look like.

Prevalences are pooled counts of public tables: IDH-mutant 131/157, 93/140 and 55/819 at grade 2, 3, 4 (UCSF-PDGM and
UTSW); codeleted among tested 116/277, 87/276 and 1/429 (UTSW and TCGA), here divided by the share of mutants, and none
at grade 4. The T2-FLAIR mismatch sign has the sensitivity and specificity of its meta-analyses.
"""

from dataclasses import dataclass

import numpy as np

IDH_MUTANT = {2: 0.83, 3: 0.66, 4: 0.07}
"""Share of IDH-mutants at each histologic grade."""
CODELETED = {2: 0.50, 3: 0.47, 4: 0.0}
"""Share of 1p/19q-codeleted among the IDH-mutants of that grade; an IDH-wildtype is never codeleted."""


@dataclass(frozen=True)
class Diagnosis:
    """The truth about one patient.

    Attributes:
        mutant: IDH-mutant.
        codeleted: 1p/19q-codeleted, which implies mutant.
        histologic: grade 2, 3 or 4 by histology.
    """

    mutant: bool
    codeleted: bool
    histologic: int

    @property
    def who2021(self) -> int:
        """Grade by WHO 2021: an IDH-wildtype of histologic grade 3 is a glioblastoma."""
        return 4 if not self.mutant and self.histologic == 3 else self.histologic


@dataclass(frozen=True)
class Look:
    """What the tumour looks like; z is against the brain outside it.

    Attributes:
        volume_ml: whole tumour.
        core_share: core's part of the whole tumour.
        enhancing_share: enhancing part of the core; 0 for none.
        ring: the enhancement surrounds a necrosis instead of lying in nodules.
        frontal: grows in a frontal lobe.
        cortical: starts at the cortex instead of in deep white matter.
        core_t2, core_flair, edema_flair: z in those modalities.
        border_mm: width over which the tumour's edge fades.
        spots: strength of dark, calcification-like spots in the core.
        texture: strength of the core's unevenness.
    """

    volume_ml: float
    core_share: float
    enhancing_share: float
    ring: bool
    frontal: bool
    cortical: bool
    core_t2: float
    core_flair: float
    edema_flair: float
    border_mm: float
    spots: float
    texture: float


def draw_diagnosis(grades: tuple[float, float, float], rng: np.random.Generator) -> Diagnosis:
    """One patient of a hospital that sees grades 2, 3 and 4 in these shares."""
    histologic = int(rng.choice((2, 3, 4), p=grades))
    mutant = bool(rng.random() < IDH_MUTANT[histologic])
    codeleted = mutant and bool(rng.random() < CODELETED[histologic])
    return Diagnosis(mutant, codeleted, histologic)


def draw_look(diagnosis: Diagnosis, rng: np.random.Generator) -> Look:
    """A look that fits the diagnosis, with overlap between diagnoses: no single sign settles one."""
    grade, mutant, codeleted = diagnosis.histologic, diagnosis.mutant, diagnosis.codeleted
    chance = {2: 0.12, 3: 0.5, 4: 0.9}[grade] if mutant else {2: 0.2, 3: 0.75, 4: 0.97}[grade]
    high = {2: 0.12, 3: 0.3, 4: 0.5}[grade] if mutant else {2: 0.15, 3: 0.4, 4: 0.6}[grade]
    enhancing = rng.random() < chance
    astrocytoma = mutant and not codeleted
    mismatch = rng.random() < (0.42 if astrocytoma and grade < 4 else 0.02 if codeleted else 0.01)
    core_share = rng.normal(0.6 if mutant else 0.5, 0.12)
    return Look(
        volume_ml=float(np.clip(rng.lognormal(np.log(65), 0.55), 14, 190)),
        core_share=float(np.clip(0.75 if mismatch else core_share, 0.2, 0.88)),
        enhancing_share=float(rng.uniform(high / 4, high)) if enhancing else 0.0,
        ring=bool(rng.random() < (0.85 if grade == 4 else 0.2)),
        frontal=bool(rng.random() < (0.65 if codeleted else 0.55 if mutant else 0.3)),
        cortical=bool(rng.random() < (0.55 if codeleted else 0.3)),
        core_t2=float(rng.normal(3.5 if mutant else 2.8, 0.5) + 0.3 * mismatch),
        core_flair=float(rng.normal(0.3, 0.25) if mismatch else rng.normal(3.4 if mutant else 3.7, 0.5)),
        edema_flair=float(rng.normal(3.8 if mismatch else 3.0, 0.3)),
        border_mm=float(np.clip(rng.normal(3.0 if codeleted else 2.0 if mutant else 2.5, 1.0), 1.0, 6.0)),
        spots=float(np.clip(rng.normal(0.8 if codeleted else 0.25, 0.45), 0, 2)),
        texture=float(np.clip(rng.normal({2: 0.2, 3: 0.45, 4: 0.6}[grade] + 0.1 * codeleted, 0.2), 0.05, 1.2)),
    )
