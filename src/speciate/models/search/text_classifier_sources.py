"""Classifiers of texts that installed Python packages name, read as source without running it.

LLM Guard names checks of prompts and answers, TextAttack models of the GLUE tasks and of reviews, pysentimiento
classifiers of posts in four languages, and transformers the model that each of its pipelines takes by itself. None of
them states a licence or a size of its models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from speciate.models.search.package_code import literal_calls, literal_tables, source_files
from speciate.models.search.sources import Entry, PackageSource
from speciate.vocabulary import TASKS

_REPOSITORY = re.compile(r"[\w.\-]+/[\w.\-]+")
_CLASSES, _TAGS = "text-classification", "token-classification"


class _Named(NamedTuple):
    """A repository, and what a package uses it for."""

    repository: str
    what: str
    task: str | None
    revision: str | None = None
    languages: tuple[str, ...] = ()
    modality: str = "text"

    def entry(self) -> Entry:
        return Entry(
            ref=f"hf:{self.repository}",
            what=f"{self.repository} {self.what}",
            access="weights",
            tasks=(self.task,) if self.task else (),
            modalities=(self.modality,),
            hub=self.repository,
            revision=self.revision,
            languages=self.languages,
        )


def _once(found: Iterator[_Named]) -> Iterator[Entry]:
    """The entries by repository, each once: the first use counts."""
    named: dict[str, _Named] = {}
    for each in found:
        named.setdefault(each.repository, each)
    for _, each in sorted(named.items()):
        yield each.entry()


class LlmGuard(PackageSource):
    """Classifiers and taggers by which LLM Guard checks prompts and answers: toxicity, injections, personal data."""

    name, what, package = "llm_guard", "checks of prompts and answers by small classifiers", "llm-guard"

    def entries(self) -> Iterator[Entry]:
        yield from _once(self._named())

    def _named(self) -> Iterator[_Named]:
        for path in source_files(self.package, "llm_guard/"):
            if path.stem == "relevance":
                continue  # encoders, which other sources know better
            task = _TAGS if path.stem in ("ner_mapping", "ban_competitors", "transformers_recognizer") else _CLASSES
            zero_shot = "zero-shot topics" if path.stem == "ban_topics" else ""
            use = "named entities, personal data" if task == _TAGS else f"{path.stem.replace('_', ' ')} {zero_shot}"
            for said in literal_calls(path, "Model"):
                repository, revision = said.get("path"), said.get("revision")
                if isinstance(repository, str) and _REPOSITORY.fullmatch(repository):
                    yield _Named(repository, f"{use.strip()} {task}", task, revision)


LLM_GUARD = LlmGuard()


_GLUE = {
    "cola": "grammatical or not", "mnli": "natural language inference", "mrpc": "paraphrases, pairs of sentences",
    "qnli": "whether a sentence answers a question", "qqp": "questions that mean the same", "rte": "entailment",
    "sst2": "sentiment of sentences on movies", "stsb": "likeness of two sentences, a number",
    "wnli": "entailment of pronouns", "snli": "natural language inference", "imdb": "sentiment of movie reviews",
    "mr": "sentiment of movie reviews, rotten tomatoes", "yelp": "sentiment of reviews", "ag-news": "topics of news",
}  # fmt: skip
"""The last words of a name -> what the model was trained for."""


class TextAttack(PackageSource):
    """BERT and its like, fine-tuned by the authors of TextAttack for GLUE, reviews and news."""

    name, what, package = "textattack", "small language models fine-tuned for GLUE, reviews and news", "textattack"

    def entries(self) -> Iterator[Entry]:
        yield from _once(self._named())

    def _named(self) -> Iterator[_Named]:
        table = "HUGGINGFACE_MODELS"
        for path in source_files(self.package, "textattack/model_args.py"):
            for name, repository in literal_tables(path, (table,)).get(table, {}).items():
                data = next((each for each in sorted(_GLUE, key=len, reverse=True) if name.endswith(f"-{each}")), None)
                if data is None or not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
                    continue
                task = "text-regression" if data == "stsb" else _CLASSES
                yield _Named(repository, f"{_GLUE[data]} {data} {task}", task, languages=("eng-Latn",))


TEXT_ATTACK = TextAttack()


_LANGUAGES = {"es": "spa-Latn", "en": "eng-Latn", "it": "ita-Latn", "pt": "por-Latn"}


class Pysentimiento(PackageSource):
    """Sentiment, emotion, irony and hate speech in posts: Spanish, English, Italian, Portuguese."""

    name, what, package = "pysentimiento", "sentiment, emotion and hate speech in four languages", "pysentimiento"

    def entries(self) -> Iterator[Entry]:
        yield from _once(self._named())

    def _named(self) -> Iterator[_Named]:
        for path in source_files(self.package, "pysentimiento/analyzer.py"):
            for language, uses in literal_tables(path, ("models",)).get("models", {}).items():
                for use, said in uses.items():
                    repository = said.get("model_name")
                    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
                        continue
                    task = _TAGS if use in ("ner", "pos") else _CLASSES
                    spoken = (_LANGUAGES[language],) if language in _LANGUAGES else ()
                    yield _Named(repository, f"{use.replace('_', ' ')} {language} {task}", task, languages=spoken)


PYSENTIMIENTO = Pysentimiento()


_ZERO_SHOT = {
    "zero-shot-classification": (_CLASSES, "text"),
    "zero-shot-image-classification": ("image-classification", "image"),
    "zero-shot-audio-classification": ("audio-classification", "audio"),
}
"""A pipeline that is asked about the caller's labels -> the task, and the modality."""


class Pipelines(PackageSource):
    """The checkpoint that each pipeline of transformers takes where none is named, at the revision that it pins."""

    name, what, package = "pipelines", "the model that each pipeline of transformers takes by itself", "transformers"

    def entries(self) -> Iterator[Entry]:
        yield from _once(self._named())

    def _named(self) -> Iterator[_Named]:
        table = "SUPPORTED_TASKS"
        for path in source_files(self.package, "transformers/pipelines/__init__.py"):
            for pipeline, said in literal_tables(path, (table,)).get(table, {}).items():
                model = (said.get("default") or {}).get("model")
                if isinstance(model, dict):
                    model = next(iter(model.values()), None)
                if not isinstance(model, tuple) or not _REPOSITORY.fullmatch(str(model[0])):
                    continue
                task, modality = _ZERO_SHOT.get(pipeline, (pipeline, None))
                known = TASKS.get(task)
                if known is None:
                    continue
                use = f"{pipeline.replace('-', ' ')} {task}"
                yield _Named(str(model[0]), use, task, modality=modality or known.modalities[0])


PIPELINES = Pipelines()
