"""include/topics.yml: the topics people choose from on the preferences page, in the words of their language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel, field_validator

from postlude import yamlfile
from postlude.settings import settings
from postlude.yamlfile import Strict


class Words(Strict):
    """How one topic is called in one language."""

    name: str = Field(min_length=1, max_length=60)
    about: str = Field("", max_length=200)


TopicId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Topics(RootModel[dict[TopicId, dict[Annotated[str, Field(pattern="^[a-z]{2,3}$")], Words]]]):
    """Topic → language → words."""

    @field_validator("root")
    @classmethod
    def _english_is_there(cls, root: dict[str, dict[str, Words]]) -> dict[str, dict[str, Words]]:
        if missing := [topic for topic, words in root.items() if "en" not in words]:
            raise ValueError(f'{", ".join(missing)}: has no words in English; add "en: {{name: ...}}"')
        return root

    def ids(self) -> list[str]:
        return list(self.root)

    def words(self, language: str) -> list[tuple[str, Words]]:
        """Every topic with its words in `language`, else in English."""
        return [(topic, words.get(language, words["en"])) for topic, words in self.root.items()]


def load_topics(path: Path | None = None) -> Topics:
    """The topics in include/topics.yml. Raises InputError with every fault. Read again only when the file changed."""
    return yamlfile.load_unchanged(path or settings().include / "topics.yml", Topics)
