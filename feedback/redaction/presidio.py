"""What Presidio finds (https://microsoft.github.io/presidio/): names by a spaCy pipeline, and numbers by its patterns.

Nothing is fetched. Presidio would download a pipeline that is not there, and, to check addresses of e-mail, a list of
domains from a public host: the one is looked for before, the others are left to the rule `email`.
"""

import functools
import importlib
import importlib.util
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feedback.redaction.rules import Find, Span

_PIECE, _OVERLAP = 20_000, 200  # characters analysed at once: a pipeline's memory grows with them
_REMEMBERED = 512  # pieces: instructions, schemas and earlier turns come again and again
_Entity = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")]


class PresidioRules(BaseModel):
    """What is looked for with Presidio, in the texts of one tenant. What is a PERSON becomes `[PERSON]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        min_length=1,
        description="A spaCy pipeline that you have installed: its package's name, or its folder. One that recognises "
        "names is needed for PERSON, LOCATION and their like; a blank one is enough for what has a pattern.",
    )
    entities: tuple[_Entity, ...] = Field(
        min_length=1, description="By Presidio's names: PERSON, LOCATION, US_PASSPORT, …"
    )
    language: str = Field("en", min_length=2, max_length=8, description="Of the pipeline, by ISO 639-1.")
    least_score: float = Field(0.4, ge=0, le=1, description="How sure Presidio has to be.")

    @model_validator(mode="after")
    def _is_there(self) -> "PresidioRules":
        if "EMAIL_ADDRESS" in self.entities:
            raise ValueError("EMAIL_ADDRESS: the rule `email` finds them without asking a public host")
        if importlib.util.find_spec("presidio_analyzer") is None:
            raise ValueError("Presidio is not installed: pip install 'flywheel[presidio]'")
        if not (Path(self.model) / "config.cfg").is_file() and not _is_package(self.model):
            raise ValueError(
                f"there is no spaCy pipeline {self.model!r}: install its package, or name the folder that holds its "
                "config.cfg (https://spacy.io/models); it is never downloaded"
            )
        return self


def finders(rules: PresidioRules) -> Sequence[tuple[str, Find]]:
    """One for each entity, by its name in lower case. Loads the pipeline, which takes seconds. Raises `ValueError`."""
    found = functools.lru_cache(_REMEMBERED)(_Analysis(rules).of)
    return [(entity.lower(), functools.partial(_spans, found, entity)) for entity in rules.entities]


class _Analysis:
    """All entities of a piece of text at once. One at a time: spaCy does not say that its pipelines admit several."""

    def __init__(self, rules: PresidioRules) -> None:
        analyzer = importlib.import_module("presidio_analyzer")
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # what its defaults leave out
        nlp_engine = importlib.import_module("presidio_analyzer.nlp_engine")
        model = {"lang_code": rules.language, "model_name": rules.model}
        engine = nlp_engine.SpacyNlpEngine(models=[model])
        try:
            engine.load()
        except (ValueError, OSError, ImportError) as error:
            raise ValueError(f"the spaCy pipeline {rules.model!r} cannot be loaded: {error}") from error
        registry = analyzer.RecognizerRegistry(supported_languages=[rules.language])
        registry.load_predefined_recognizers(languages=[rules.language], nlp_engine=engine)
        self._analyzer = analyzer.AnalyzerEngine(
            registry=registry, nlp_engine=engine, supported_languages=[rules.language]
        )
        known = set(self._analyzer.get_supported_entities(rules.language))
        if unknown := set(rules.entities) - known:
            raise ValueError(
                f"Presidio knows no {', '.join(sorted(unknown))}, only {', '.join(sorted(known))}"
            )
        self._pipeline = engine.nlp[rules.language]
        self._rules = rules
        self._lock = threading.Lock()

    def of(self, text: str) -> Mapping[str, Sequence[Span]]:
        """Where each entity is."""
        rules = self._rules
        # Without the zone, spaCy keeps each word that it has ever seen for as long as the process lives.
        with self._lock, self._pipeline.memory_zone():
            results: list[Any] = self._analyzer.analyze(
                text, rules.language, entities=list(rules.entities), score_threshold=rules.least_score
            )
            found: dict[str, list[Span]] = {}
            for result in results:
                found.setdefault(result.entity_type, []).append((result.start, result.end))
        return found


def _spans(found: Any, entity: str, text: str) -> Iterator[Span]:
    for start in range(0, max(1, len(text) - _OVERLAP), _PIECE - _OVERLAP):
        piece = text[start : start + _PIECE]
        if piece.strip():
            yield from ((start + first, start + end) for first, end in found(piece).get(entity, ()))


def _is_package(name: str) -> bool:
    try:
        metadata.distribution(name)  # as Presidio decides whether to download it
    except metadata.PackageNotFoundError:
        return False
    return True
