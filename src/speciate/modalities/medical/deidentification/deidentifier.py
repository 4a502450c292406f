"""De-identifies one DICOM file: bytes in, bytes and a report out. Meets foreign bytes, so it runs in sandboxed
processes.

Every element is visited in place, those of sequences at any depth included, and most are never decoded: kept elements
are copied byte by byte, pixels above all. The result is read again and compared before it is returned. Beyond Table
E.1-1 (profile.py) these are removed, too: elements that the dictionary lacks or has with another type, values that do
not fit their type, free text and names that the table does not list, and free text with a person's name or number that
was removed elsewhere in the file.

Descriptions keep known words alone: a list of allowed words, not of forbidden ones. All else is dropped, also numbers
without a unit, which may be dates. So `T2 AX FLAIR 5mm JOHN SMITH 1948` becomes `T2 AX FLAIR 5mm`.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.deidentification.profile import (
    BASIC,
    DATES,
    METHODS,
    Action,
    Profile,
    action,
    is_safe_private,
    listed,
)
from speciate.modalities.medical.deidentification.proof import TEXTS, search, values_of
from speciate.modalities.medical.deidentification.pseudonyms import Pseudonyms, is_registered_uid, shift_date
from speciate.modalities.medical.dicom import patient_of
from speciate.modalities.medical.dicom_elements import walk_elements

_DEEPEST = 64
"""Sequences within sequences; no object of the standard comes near."""
_CHARSET = 0x00080005
_PATIENT_ID, _PATIENT_NAME, _AGE = 0x00100020, 0x00100010, 0x00101010
_PEOPLE = (_PATIENT_ID, 0x00101000, 0x00101040, 0x00102154, 0x00080050, 0x00120040)
"""Numbers and addresses of people beside their names, which are searched for in the kept texts."""
_OWN_UIDS = (0x00080018, 0x0020000D, 0x0020000E, 0x00200052)
_UID = re.compile(r"\d+(\.\d+){6,}")
_FREE_TEXTS = ("LO", "SH", "ST", "LT", "UT", "UC")
_SHORTEST, _SHORTEST_OF_THE_EAST = 4, 2
"""Characters of a name that is searched for: shorter ones occur in every text."""
_EAST = "\u2e80"
"""From here on signs are Chinese, Japanese or Korean, of which two make a name."""
_FORMS = {
    "DS": rb"[0-9+\-.eE \\]*",
    "IS": rb"[0-9+\- \\]*",
    "AS": rb"(\d{3}[DWMY] ?\\?)*",
    "UI": rb"[0-9.\\ ]*",
    "DA": rb"[0-9.\- \\]*",
    "TM": rb"[0-9.:\- \\]*",
    "DT": rb"[0-9.+\- \\]*",
}
"""Characters that a value of a text type may have."""
_DUMMIES: Mapping[str, str | int | float | bytes] = {
    "AE": "REMOVED", "AS": "000D", "AT": 0, "CS": "REMOVED", "DA": "19000101", "DS": "0", "DT": "19000101000000",
    "FD": 0.0, "FL": 0.0, "IS": "0", "LO": "REMOVED", "LT": "REMOVED", "OB": b"\0\0", "OD": b"\0" * 8,
    "OF": b"\0" * 4, "OL": b"\0" * 4, "OV": b"\0" * 8, "OW": b"\0\0", "PN": "REMOVED", "SH": "REMOVED", "SL": 0,
    "SS": 0, "ST": "REMOVED", "SV": 0, "TM": "000000", "UC": "REMOVED", "UL": 0, "UN": b"\0\0", "UR": "REMOVED",
    "US": 0, "UT": "REMOVED", "UV": 0,
}  # fmt: skip
_WORDS: dict[Action, str] = {
    "X": "removed", "Z": "emptied", "D": "replaced", "U": "remapped", "K": "kept", "C": "cleaned",
}  # fmt: skip
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_DIRECTORY = "1.2.840.10008.1.3.10"
_OLDEST = 89
"""Years: a higher age becomes 90, as few people are that old."""

Changes = dict[str, dict[str, int]]
"""Tag and name (`00100020 Patient ID`) -> action -> how often."""


class Deidentified(NamedTuple):
    data: bytes
    changes: Changes
    people: tuple[str, ...]
    """Names and numbers of people and the file's own UIDs, as far as they were taken out: for whoever must find them
    elsewhere, too. They stand in no report."""
    warnings: tuple[str, ...]
    """Warnings for a person: sentences that quote nothing of the file."""
    originals: tuple[str, ...] = ()
    """Identifying values of the original that were searched for in `data`. They stand in no report."""
    still_there: tuple[str, ...] = ()
    """Elements whose original value was found there all the same: tag and name."""


def is_looked_for(person: str) -> bool:
    """Whether a name or number is long enough to identify somebody in a text."""
    return len(person) >= (_SHORTEST_OF_THE_EAST if person and min(person) >= _EAST else _SHORTEST)


def deidentify(data: bytes, profile: Profile, pseudonyms: Pseudonyms) -> Deidentified:
    """Raises DecodeError if the bytes are no DICOM file (`error`), or one that is cut short (`partial`)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that stand in the file, and quoting them
            return _deidentify(data, profile, pseudonyms)
    except DecodeError:
        raise
    except (
        Exception
    ) as error:  # for damaged files the library raises errors of many classes, which quote their contents
        raise DecodeError("error", f"Not readable as DICOM ({type(error).__name__}).") from error


def _deidentify(data: bytes, profile: Profile, pseudonyms: Pseudonyms) -> Deidentified:
    dataset = _read(data)
    before = values_of(dataset)
    scrubber = _Scrubber(dataset, profile, pseudonyms)
    scrubber.scrub(dataset)
    if scrubber.patient and not _text_of(dataset, _PATIENT_ID):
        dataset.add_new(_PATIENT_ID, "LO", pseudonyms.name(scrubber.patient))
    _declare(dataset, profile)
    dataset.file_meta = _file_meta(dataset, scrubber)
    dataset.preamble = b"\0" * 128
    untyped = any(_is_untyped(dataset, tag) for tag in list(dataset.keys()))
    if untyped and not dataset.file_meta.TransferSyntaxUID.is_implicit_VR:
        for _ in dataset.iterall():  # written otherwise than its header says: once each has a type it can be mended
            pass
    written = _written(dataset)
    _check(dataset, written)
    changes: Changes = {}
    for (tag, done), count in sorted(scrubber.changes.items()):
        changes.setdefault(tag, {})[done] = count
    people = tuple(sorted(scrubber.people | scrubber.uids))
    after = values_of(_read(written), TEXTS)
    proof = search(before, after, people, _without_pixels(written, dataset), _identifies_nobody)
    still_there = tuple(f"{tag:08X} {_name(tag)}" for tag in proof.found)
    warnings_ = tuple(_to_look_at(dataset, scrubber))
    return Deidentified(written, changes, people, warnings_, tuple(sorted(proof.originals)), still_there)


def _without_pixels(written: bytes, dataset: Any) -> bytes:
    for tag in _PIXELS:
        if tag in dataset and (pixels := _bytes(dataset.get_item(tag))):
            written = written.replace(pixels, b"", 1)
    return written


def _identifies_nobody(value: str) -> bool:
    """A UID of the standard, words that every description of an image holds, or a short number."""
    return is_registered_uid(value) or keep_known_words(value) == " ".join(value.split()) or len(value) < _SHORTEST


def _read(data: bytes) -> Any:
    """A pydicom Dataset of a file that is whole, which the library does not check."""
    import pydicom

    walk_elements(data)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if not len(dataset):
        raise DecodeError("error", "A DICOM file without any element.")
    return dataset


def _is_untyped(dataset: Any, tag: Any) -> bool:
    return dataset.get_item(tag).VR is None


class _Scrubber:
    """Applies a profile to the datasets of one file and counts what it did."""

    def __init__(self, dataset: Any, profile: Profile, pseudonyms: Pseudonyms) -> None:
        self._profile, self.pseudonyms = profile, pseudonyms
        self.patient = patient_of(dataset)
        self._days = pseudonyms.days(self.patient)
        self._letters = _letters(dataset)
        self.people = set(_people(dataset))
        self._needles = tuple(sorted({_folded(person) for person in self.people if is_looked_for(person)}))
        self.uids: set[str] = set()
        self.changes: Counter[tuple[str, str]] = Counter()

    def scrub(self, dataset: Any, depth: int = 0) -> None:
        """De-identifies a dataset in place."""
        if depth > _DEEPEST:
            raise DecodeError("refused", f"Sequences are nested more than {_DEEPEST} deep.")
        kept_private = self._kept_private(dataset)
        for tag in sorted(dataset.keys()):
            number = int(tag)
            if tag.group % 2:
                if number not in kept_private:
                    self._remove(dataset, number, "removed")
                continue
            if tag.element == 0 or tag.group < 8:  # lengths of groups, commands, headers of files
                self._remove(dataset, number, "removed")
                continue
            self._apply(dataset, number, depth)

    def _apply(self, dataset: Any, tag: int, depth: int) -> None:
        raw = dataset.get_item(tag)
        vr, keyword, fits = _type_of(tag, raw)
        do = action(tag, vr, keyword, self._profile)
        if listed(tag) is None and not fits:
            do = "X"
        if do == "X":
            self._remove(dataset, tag, "removed")
        elif vr == "SQ":
            self._sequence(dataset, tag, do, depth)
        elif tag in (_PATIENT_ID, _PATIENT_NAME) and do in ("Z", "D"):
            self._put(dataset, tag, vr, self.pseudonyms.name(self.patient), "replaced")
        elif do == "Z":
            self._put(dataset, tag, vr, None, "emptied")
        elif do == "U" or (do == "D" and vr == "UI"):
            uids = [self.pseudonyms.uid(uid) for uid in _text(raw).split("\\")]
            if tag in _OWN_UIDS and not depth:
                self.uids.add(_text(raw).strip())
            self._put(dataset, tag, vr, uids, "remapped")
        elif do == "C":
            self._clean(dataset, tag, vr, raw)
        elif do == "D":
            self._put(dataset, tag, vr, _DUMMIES.get(vr, b"\0\0"), "replaced")
        else:
            self._keep(dataset, tag, vr, raw)

    def _sequence(self, dataset: Any, tag: int, do: Action, depth: int) -> None:
        """Kept and cleaned ones and those with UIDs are walked; in one that is replaced every value becomes a dummy."""
        items = dataset[tag].value
        if do == "Z":
            self._put(dataset, tag, "SQ", [], "emptied")
            return
        if do == "D":
            for item in items:
                self._blank(item, depth + 1)
            self._note(tag, "replaced")
            return
        for item in items:
            self.scrub(item, depth + 1)
        if listed(tag) is not None:
            self._note(tag, _WORDS[do])

    def _blank(self, dataset: Any, depth: int) -> None:
        """Every value becomes a dummy, so that required elements exist; elements that the table removes are removed."""
        if depth > _DEEPEST:
            raise DecodeError("refused", f"Sequences are nested more than {_DEEPEST} deep.")
        for tag in sorted(dataset.keys()):
            number = int(tag)
            raw = dataset.get_item(tag)
            vr, keyword, fits = _type_of(number, raw)
            if tag.group % 2 or not tag.element or not fits or action(number, vr, keyword, self._profile) == "X":
                del dataset[tag]
            elif vr == "SQ":
                for item in dataset[tag].value:
                    self._blank(item, depth + 1)
            elif vr == "UI":
                dataset.add_new(number, vr, [self.pseudonyms.uid(uid) for uid in _text(raw).split("\\")])
            else:
                dataset.add_new(number, vr, _DUMMIES.get(vr, b"\0\0"))

    def _clean(self, dataset: Any, tag: int, vr: str, raw: Any) -> None:
        """Dates are shifted, descriptions keep their known words; all others get the Basic action."""
        if vr == "TM" and self._profile.dates == "MODIFIED":
            self._keep(dataset, tag, vr, raw)
            return
        if vr in DATES and self._profile.dates == "MODIFIED":
            moved = [shift_date(value, self._days) if value.strip(" \0") else "" for value in _text(raw).split("\\")]
            if None not in moved:
                self._put(dataset, tag, vr, moved, "shifted")
                return
        if vr in (*_FREE_TEXTS, "CS") and (rest := keep_known_words(_text(raw))):
            limit = 16 if vr in ("SH", "CS") else 64
            self._put(dataset, tag, vr, rest[:limit].strip(), "cleaned")
            return
        row = listed(tag)
        basic = action(tag, vr, "", Profile()) if row is not None else "X"
        if basic == "X":
            self._remove(dataset, tag, "removed (could not be cleaned)")
        elif basic == "Z":
            self._put(dataset, tag, vr, None, "emptied (could not be cleaned)")
        else:
            self._put(dataset, tag, vr, _DUMMIES.get(vr, b"\0\0"), "replaced (could not be cleaned)")

    def _keep(self, dataset: Any, tag: int, vr: str, raw: Any) -> None:
        value = _bytes(raw).rstrip(b"\0 ")
        if vr in _FORMS and not re.fullmatch(_FORMS[vr], value):
            self._remove(dataset, tag, "removed (not of its type)")
        elif vr in _FREE_TEXTS and self._names_somebody(value):
            self._remove(dataset, tag, "removed (names somebody)")
        elif tag == _AGE and value[-1:] == b"Y" and value[:3].isdigit() and int(value[:3]) > _OLDEST:
            self._put(dataset, tag, vr, f"{_OLDEST + 1:03}Y", "replaced")
        elif listed(tag) is not None:
            self._note(tag, "kept")

    def _names_somebody(self, value: bytes) -> bool:
        """Or something: a UID that is not the standard's."""
        text = _folded(value.decode("latin-1"))
        spelled = _folded(_decoded(value, self._letters) or "")  # "MÜLLER" in UTF-8 folds to "müller" only when read
        if (
            any(not is_registered_uid(uid[0]) for uid in _UID.finditer(text))
            and "retain_uids" not in self._profile.options
        ):
            return True
        found = (re.compile(rf"(?<![^\W_]){re.escape(needle)}(?![^\W_])") for needle in self._needles)
        return any(each.search(text) or each.search(spelled) for each in found)

    def _kept_private(self, dataset: Any) -> set[int]:
        """Private elements of the safe list, and the elements that reserve their blocks."""
        if "retain_safe_private" not in self._profile.options:
            return set()
        kept = set[int]()
        for tag in list(dataset.keys()):  # a dataset itself would decode every element
            if not tag.group % 2 or tag.element < 0x1000:
                continue
            block = tag.group << 16 | tag.element >> 8
            if block not in dataset or not is_safe_private(_text(dataset.get_item(block)), int(tag)):
                continue
            raw = dataset.get_item(tag)
            value, vr = _bytes(raw).rstrip(b"\0 "), str(raw.VR)
            if vr in ("SQ", "UN", "OB", "None") or (vr in _FORMS and not re.fullmatch(_FORMS[vr], value)):
                continue
            if vr not in _FREE_TEXTS or not self._names_somebody(value):
                kept |= {int(tag), block}
                self.changes["private attributes", "kept"] += 1
        return kept

    def _remove(self, dataset: Any, tag: int, done: str) -> None:
        del dataset[tag]
        self._note(tag, done)

    def _put(self, dataset: Any, tag: int, vr: str, value: Any, done: str) -> None:
        if value is not None and vr != "SQ" and isinstance(value, list) and len(value) == 1:
            value = value[0]
        dataset.add_new(tag, vr, value)
        self._note(tag, done)

    def _note(self, tag: int, done: str) -> None:
        if tag >> 16 & 1:
            name = "private attributes"
        else:
            row = listed(tag)
            name = f"{tag:08X} {row.name if row else _name(tag)}"
        self.changes[name, done] += 1


def _type_of(tag: int, raw: Any) -> tuple[str, str, bool]:
    """The written type, or the dictionary's if none is written; the keyword; and whether the dictionary agrees."""
    from pydicom.datadict import dictionary_keyword, dictionary_VR

    try:
        known, keyword = dictionary_VR(tag), dictionary_keyword(tag)
    except KeyError:
        return str(raw.VR or "UN"), "", False
    declared = str(raw.VR or "UN")
    written = known.split(" or ")[0] if declared == "UN" or " or " in declared else declared
    if written == "OB" and "OW" in known:
        return written, keyword, True
    return written, keyword, written in known.split(" or ")


def _name(tag: int) -> str:
    from pydicom.datadict import dictionary_description

    try:
        return dictionary_description(tag)
    except KeyError:
        return "unknown"


def _bytes(raw: Any) -> bytes:
    """The bytes of an element that may have been decoded already."""
    if isinstance(raw.value, bytes):
        return raw.value
    if raw.value is None:
        return b""
    return _text(raw).encode("utf-8", "surrogatepass")


def _text(raw: Any) -> str:
    """The element's text as written, in whatever letters: to be compared, split and hashed."""
    value = raw.value
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip("\0 ")
    if isinstance(value, str) or value is None:
        return value or ""
    try:
        return "\\".join(str(part) for part in value)
    except TypeError:
        return str(value)


def _people(dataset: Any, depth: int = 0, letters: tuple[str, ...] = ()) -> Iterator[str]:
    """Parts of names, numbers and addresses of people, wherever they have an element of their own: as the bytes read,
    and as written in the file's own letters, as tables have them. `letters`: encodings of the surrounding text."""
    if depth > _DEEPEST:
        return
    letters = _letters(dataset) or letters
    for tag in list(dataset.keys()):
        if tag.group % 2 or tag.group < 8:
            continue
        raw = dataset.get_item(tag)
        vr = _type_of(int(tag), raw)[0]
        if vr == "SQ":
            for item in dataset[tag].value:
                yield from _people(item, depth + 1, letters)
        elif vr == "PN":
            for spelled in _spelled(raw, letters):
                yield from _parts_of_name(spelled)
        elif int(tag) in _PEOPLE:
            for spelled in _spelled(raw, letters):
                yield from (part.strip() for part in spelled.split("\\") if part.strip())


def _parts_of_name(spelled: str) -> Iterator[str]:
    """Each part; and the whole, by which short names are found, too: `Kim Lee` and `Lee Kim` of `Lee^Kim`."""
    yield from (part for part in re.split(r"[\^=\\ ,]+", spelled) if part)
    for whole in re.split(r"[=\\]", spelled):
        if (joined := re.sub(r"[\^ ,]+", "", whole)) and min(joined) >= _EAST:
            yield joined
        family, given = ([part.strip() for part in whole.split("^")] + ["", ""])[:2]
        if family and given:
            yield from (f"{given} {family}", f"{family} {given}")


def _letters(dataset: Any) -> tuple[str, ...]:
    """The known encodings that a dataset names."""
    from pydicom.charset import convert_encodings

    try:
        return tuple(convert_encodings(_text_of(dataset, _CHARSET).split("\\"))) if _CHARSET in dataset else ()
    except LookupError:
        return ()


def _spelled(raw: Any, letters: tuple[str, ...]) -> set[str]:
    decoded = _decoded(raw.value, letters) if isinstance(raw.value, bytes) else None
    return {_text(raw), decoded if decoded is not None else _text(raw)}


def _decoded(value: bytes, letters: tuple[str, ...]) -> str | None:
    """None if no encodings are known, or these are no such letters."""
    from pydicom.valuerep import PersonName

    try:
        return str(PersonName(value.rstrip(b"\0 "), list(letters))) if letters else None
    except (UnicodeError, ValueError, LookupError):
        return None


def _folded(text: str) -> str:
    return text.casefold()


def _declare(dataset: Any, profile: Profile) -> None:
    """The elements that document the de-identification, as the standard requires."""
    from pydicom.dataset import Dataset

    codes = []
    for name in (BASIC, *(name for name in METHODS if name in profile.options)):
        item = Dataset()
        item.add_new(0x00080100, "SH", METHODS[name].code)
        item.add_new(0x00080102, "SH", "DCM")
        item.add_new(0x00080104, "LO", METHODS[name].meaning)
        codes.append(item)
    dataset.add_new(0x00120062, "CS", "YES")
    dataset.add_new(0x00120063, "LO", f"speciate {profile}"[:64])
    dataset.add_new(0x00120064, "SQ", codes)
    dataset.add_new(0x00280303, "CS", profile.dates)


def _file_meta(dataset: Any, scrubber: _Scrubber) -> Any:
    """Written anew: only what a reader needs, nothing of the old header."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    before, meta = getattr(dataset, "file_meta", None), FileMetaDataset()
    plain = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    syntax = _text_of(before, 0x00020010) or str(plain)
    if not re.fullmatch(r"[0-9.]+", syntax):
        raise DecodeError("error", "Its transfer syntax is no UID.")
    meta.TransferSyntaxUID = UID(syntax)
    kind, named = _text_of(dataset, 0x00080016) or _text_of(before, 0x00020002), _text_of(dataset, 0x00080018)
    if kind == _DIRECTORY:
        raise DecodeError("refused", "A DICOMDIR is an index of other files; de-identify those, and make it anew.")
    if kind:
        meta.MediaStorageSOPClassUID = UID(kind)
    if named := named or scrubber.pseudonyms.uid(_text_of(before, 0x00020003)):
        meta.MediaStorageSOPInstanceUID = UID(named)
    meta.FileMetaInformationVersion = b"\0\1"
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return meta


def _text_of(dataset: Any, tag: int) -> str:
    if dataset is None or tag not in dataset:
        return ""
    return _text(dataset.get_item(tag)).strip(" \0")


def _written(dataset: Any) -> bytes:
    from pydicom import dcmwrite

    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=False)  # objects without a class are still rewritten
    return buffer.getvalue()


def _check(dataset: Any, written: bytes) -> None:
    """Raises DecodeError if the result does not read back, or if its pixels differ."""
    again = _read(written)
    if sorted(map(int, again.keys())) != sorted(map(int, dataset.keys())):
        raise DecodeError("error", "Written again, it does not read back whole.")
    for tag in _PIXELS:
        if tag in dataset and _bytes(again.get_item(tag)) != _bytes(dataset.get_item(tag)):
            raise DecodeError("error", "Written again, its pixels are not the same.")


def _to_look_at(dataset: Any, scrubber: _Scrubber) -> Iterator[str]:
    if _text_of(dataset, 0x00280301).upper() == "YES":
        yield "Burned In Annotation is YES: its pixels show text, which nothing here removes."
    if any(name.startswith("00420011") for name, _ in scrubber.changes):
        yield "Its document (a PDF or the like) was replaced by a dummy: there is nothing to read in it any more."
    if any("could not be cleaned" in done for _, done in scrubber.changes):
        yield "Some values that an option would have cleaned could not be: they went as in the Basic Profile."


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


def keep_known_words(text: str) -> str:
    """The known words of a text, one blank between them; empty if there are none."""
    words = _WORD.findall(text)
    return " ".join(word for word in words if word.lower() in _KNOWN or _LENGTH.fullmatch(word.lower()))
