"""The commands about answers: what to label next, and what came from what."""

from __future__ import annotations

import argparse
import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from speciate.cli.confirmation import account_name, require_terminal, shown_to_the_person
from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import ask, check_image_path, say, write_image

if TYPE_CHECKING:
    from speciate.server.control.messages import LabelItemDocument, LabelsDocument, QualityDocument

_LONGEST = 600
_IMAGES = (".svg", ".png")


def labels(arguments: argparse.Namespace) -> int:
    """The queue with how far labellers agree; `--ask` asks for each label on the terminal."""
    if not arguments.ask:
        return _labels(arguments)
    require_terminal()
    with shown_to_the_person():
        return _labels(arguments)


def _labels(arguments: argparse.Namespace) -> int:
    request = {"use_case": arguments.use_case, "strategy": arguments.strategy, "count": arguments.count}
    shown = cast("LabelsDocument", ask_daemon(arguments, "labels", start=True, **request))
    for line in _summary(shown):
        say(line)
    for item in shown["items"]:
        say(_item(item, shown["root"]))
        if arguments.ask:
            if classes := shown.get("classes", {}).get(item["model"]):
                say(f"  labels    {_clip(in_a_line(list(classes)))}")
            _ask_until_stored(arguments, item)
    return 0


def _ask_until_stored(arguments: argparse.Namespace, item: LabelItemDocument) -> None:
    """Asks until a label is stored, or the person skips the answer. A class that the model does not know is asked
    about."""
    about = {
        "prediction": item["prediction"],
        "drawn": item["drawn"],
        "by": account_name(),
        "use_case": arguments.use_case,
    }
    while (label := _ask_for_label(item["output"])) is not None:
        answer = ask_daemon(arguments, "labels", start=True, label=label, **about)
        if "unknown" not in answer:
            say(f"  stored: {in_a_line(label)}")
            return
        say(f"  {answer['unknown']}")
        if ask("  Is it a new class? (y/N) ").lower() in ("y", "yes"):
            ask_daemon(arguments, "labels", start=True, label=label, new_class=True, **about)
            say(f"  stored, as a new class: {in_a_line(label)}")
            return


def _ask_for_label(output: Any) -> Any:
    """What the answer should have been, in the form of the answer; None where the person has nothing to say."""
    while label := ask("  label (empty: skip): "):
        try:
            return parse_label(label, output)
        except ValueError:
            form = "a number" if isinstance(output, float | int) else "JSON"
            say(f"  It must be {form}, as the answer is.")
    return None


def parse_label(label: str, output: Any) -> Any:
    """What was typed, in the form of the answer beside which it is held: a label that is a text is never near a number.
    Raises ValueError where it has not that form."""
    if isinstance(output, bool) or not isinstance(output, int | float | dict | list):
        return label
    found = json.loads(label, parse_constant=_no_number)
    if isinstance(found, bool) or isinstance(found, int | float) != isinstance(output, int | float):
        raise ValueError(label)
    return found


def _no_number(name: str) -> None:
    raise ValueError(name)


def trace(arguments: argparse.Namespace) -> int:
    image = check_image_path(arguments.image, _IMAGES) if arguments.image else None
    request = {"ref": arguments.ref, "example": arguments.example, "group": arguments.group}
    kind = image.suffix[1:] if image else None
    shown = ask_daemon(arguments, "trace", start=True, picture=kind, **request)
    say(shown["text"])
    if "models" in shown:
        say(f"models: {', '.join(shown['models']) or 'none'}")
        for name, count in shown["answers"].items():
            say(f"answers of {name}: {count:,}")
        for each in shown["predictions"][:20]:
            say(f"  {each}")
        if len(shown["predictions"]) > 20:
            say("  ...")
    if image:
        data = shown["picture"].encode() if kind == "svg" else base64.b64decode(shown["picture"])
        say(write_image(image, data))
    return 0


def _summary(shown: LabelsDocument) -> list[str]:
    lines = [f"{shown['waiting']:,} answers have no label of a person"]
    found = shown["agreement"]
    if found["alpha"] is not None:
        interval = "" if found["low"] is None else f" (95 %: {found['low']:.2f} to {found['high']:.2f})"
        lines.append(
            f"labellers agree: alpha {found['alpha']:.2f}{interval}, {found['answers']} answers of "
            f"{found['labellers']} labellers"
        )
    lines += map(_quality, shown["quality"])
    if shown["missed"]:
        lines.append(f"{shown['missed']:,} answers were not logged: the disk, or the log, was full")
    return lines


def _quality(each: QualityDocument) -> str:
    """How good a version's answers are, in a sentence."""
    form = ".0%" if each["measure"] == "right" else ".3g"
    value, answers = format(each["mean"], form), f"{each['n']} answer{'' if each['n'] == 1 else 's'}"
    told = {
        "right": f"of {answers} that have a label {value} were right",
        "score": f"the score of {answers} is {value} on average, of 1",
        "absolute_error": f"the error of {answers} is {value} on average",
    }.get(each["measure"], f"{each['measure']} {value}, of {answers}")
    if each["low"] is not None and each["high"] is not None:
        told += f" (95 % interval: {format(each['low'], form)} to {format(each['high'], form)})"
    drawn = "drawn at random" if each["drawn"] == "random" else "however they were drawn: other answers may differ"
    return f"{each['model']}: {told}, {drawn}"


def _item(item: LabelItemDocument, root: str) -> str:
    confidence = "" if item["confidence"] is None else f", confidence {item['confidence']:.2f}"
    drawn = f"{item['drawn']}, its watch asks" if item["by_watch"] else item["drawn"]
    lines = [
        f"{item['prediction']} ({drawn}, {time.ctime(item['at'])}, {item['model']}{confidence})",
        f"  asked     {_clip(in_a_line(item['input']))}",
        f"  answered  {_clip(in_a_line(item['output']))}",
    ]
    lines += [f"  file      {Path(root) / file}" for file in item["files"]]
    lines += [f"  said      {source}: {_clip(in_a_line(label))}" for source, label in item["said"].items()]
    return "\n".join(lines)


def in_a_line(value: Any) -> str:
    """A value as JSON for people: letters of all languages as they are, and what would move a terminal escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
