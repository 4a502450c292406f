"""Short texts that describe a picture, with nothing left in them but words that are known to name nobody.

A list of what may stay, not of what must go: whatever is not on it is dropped, numbers without a unit too, which may be
a date. So `T2 AX FLAIR 5mm JOHN SMITH 1948` becomes `T2 AX FLAIR 5mm`. What the list does not know is lost.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z0-9]+")
_LENGTH = re.compile(r"\d{1,2}(mm|cm|min|sec|ms)")
_KNOWN = frozenset(
    """
    2d 3d 4d ax axial cor coronal sag sagittal oblique obl tra transverse ap pa lat lateral anterior posterior superior
    inferior proximal distal left right bilateral supine prone upright
    abdomen ankle aorta arm bladder bone brain breast cardiac carotid cervical chest clavicle colon elbow esophagus
    extremity eye face femur finger foot forearm hand head heart hip humerus kidney knee larynx leg liver lower lumbar
    lung mandible mediastinum neck nose orbit ovary pancreas pelvis prostate rib ribs sacrum scapula shoulder sinus
    skull soft spine spleen sternum stomach thigh thoracic thorax thyroid tibia tissue toe tooth trunk upper uterus
    vertebra wrist
    adc angio angiography arterial b0 bold bravo cine contrast cta ctpa dce delayed diffusion dual dwi ecg echo ecg
    enhanced epi fast fat fatsat fiesta fl2d fl3d flair flash fmri fs fse gated gradient gre haste hr inversion ir iso
    isotropic ivim localizer localiser mag map mip mpr mprage mra mrv myelo native nonenhanced pass pd perfusion phase
    phased portal post pre proton qsm recovery relaxation resolution rest sat scout se sequence spair spectroscopy spgr
    spin spir ssfse stir stress supp suppressed susceptibility swi t1 t1w t2 t2star t2w te thick thin ti time tof tr
    trace tracking trufi trufisp tse turbo venous vibe weighted with without wo w
    algorithm average axials bone corr corrected cta ct mr mri nm pet pt rf us dx cr mg xa dose fbp filter helical hires
    image images iterative kernel kv lowdose ma mas recon reconstruction reformat sharp smooth spiral standard
    subtraction volume window
    """.split()  # noqa: SIM905 - a list of words is read as words
)


def cleaned(text: str) -> str:
    """The known words of a text, one blank between them; empty where there are none."""
    words = _WORD.findall(text)
    return " ".join(word for word in words if word.lower() in _KNOWN or _LENGTH.fullmatch(word.lower()))
