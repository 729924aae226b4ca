"""Settings of a run that never change its result: environment variables EARSHOT_*, read only here."""

import difflib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from earshot.core.errors import EarshotError
from earshot.core.files import real_path
from earshot.core.processors import processors

PREFIX = "EARSHOT_"


@dataclass(frozen=True)
class Expected:
    """What a setting expects, for the error about a wrong value."""

    text: str


def _decimal(text: Any) -> Any:
    """Refuse what Python reads as a number and a user may mean otherwise, such as 8_0."""
    if isinstance(text, str) and "_" in text:
        raise ValueError("not a decimal number")
    return text


Decimal = BeforeValidator(_decimal)
Number = Annotated[int, Decimal, Field(ge=1), Expected("a whole number of at least 1")]
Count = Annotated[int, Decimal, Field(ge=0), Expected("a whole number of at least 0")]
Amount = Annotated[float, Decimal, Field(ge=0, allow_inf_nan=False), Expected("a number of at least 0")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Expected("auto, cpu or cuda")]
Scheduler = Annotated[
    str | None,
    Field(pattern=r"^(tcp|tls)://\S+:\d+$"),
    Expected("the address of a Dask scheduler such as tcp://host:8786"),
]
Runtime = Annotated[
    str | None,
    Field(pattern=r"^(deno|node|bun|quickjs)(:|$)"),
    Expected("deno, node, bun or quickjs, or one with its path"),
]
FolderOrFile = Annotated[Path, AfterValidator(real_path)]


class Settings(BaseSettings):
    """The settings of this machine: each field is the environment variable EARSHOT_<NAME>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    workers: Number = Field(
        default_factory=processors,
        description="worker processes for shards (default: the processors this process may use)",
    )
    cluster: Scheduler = Field(
        default=None,
        description="a Dask scheduler, tcp://host:8786, whose workers process the shards instead (default: none)",
    )
    threads: Number = Field(
        default_factory=processors,
        description="threads of each training or evaluating process (default: the processors this process may use)",
    )
    loaders: Count = Field(
        default=0, description="processes that prepare the batches of a training (default: 0, its threads do)"
    )
    processes: Number = Field(
        default=1, description="processes that train one network, each on its own GPU or on the CPU (default: 1)"
    )
    device: Device = Field(default="auto", description="auto, cpu or cuda (default: auto)")
    scratch: FolderOrFile | None = Field(
        default=None, description="folder for unfinished work (default: .earshot under the root)"
    )
    # YouTube accepts a thousand player requests an hour from a guest, three for each video; here every request counts.
    requests_per_hour: Amount = Field(
        default=1000.0, description="requests an hour to each site, 0: no limit (default: 1000)"
    )
    backoff: Amount = Field(
        default=60.0, description="seconds without requests after a site limits us; doubles each time (default: 60)"
    )
    patience: Amount = Field(
        default=900.0,
        description="seconds that download waits for such a site before it leaves its clips pending (default: 900)",
    )
    js_runtime: Runtime = Field(
        default=None,
        description="JavaScript for YouTube: deno, node, bun or quickjs; or node:/usr/bin/node (default: deno)",
    )
    cookies: FolderOrFile | None = Field(default=None, description="a Netscape cookies file for yt-dlp (default: none)")
    proxy: str | None = Field(default=None, description="a proxy address for yt-dlp (default: none)")
    real_data: FolderOrFile | None = Field(
        default=None,
        description="folder of real clips, recordings and photographs for tests (default: those tests are skipped)",
    )


NAMES = {PREFIX + name.upper(): field.description for name, field in Settings.model_fields.items()}

TRAININGS = {"pretrain", "correspond"}
NETWORKS = TRAININGS | {"evaluate", "explain"}
# The stages that read a setting; `workers` and `scratch` are for every stage, `real_data` is for tests.
READ_BY = {
    "cluster": {"extract", "describe", "label"},
    "threads": NETWORKS | {"label"},
    "loaders": TRAININGS,
    "processes": TRAININGS,
    "device": NETWORKS | {"describe"},  # whose descriptor may be a network
    "real_data": set[str](),
} | dict.fromkeys(("requests_per_hour", "backoff", "patience", "js_runtime", "cookies", "proxy"), {"download"})


def settings_of(stage: str) -> dict[str, str]:
    """The environment variables that a stage reads, and what they mean."""
    fields = {name: field.description or "" for name, field in Settings.model_fields.items()}
    return {PREFIX + name.upper(): text for name, text in fields.items() if stage in READ_BY.get(name, {stage})}


def check_settings(stage: str) -> None:
    """Raise EarshotError for a setting that is set and that this stage does not read.

    Under DVC the settings are for all stages of the pipeline, so each stage takes what it reads.
    """
    if "DVC_STAGE" in os.environ:
        return
    for name, readers in READ_BY.items():
        variable = PREFIX + name.upper()
        if os.environ.get(variable) and readers and stage not in readers:
            which = ", ".join(sorted(readers))
            raise EarshotError(f"{variable} is set, but only {which} can use it; unset it, or run them with dvc repro")


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises EarshotError for an unknown variable and for an invalid value.
    """
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in NAMES:
            nearest = difflib.get_close_matches(name, NAMES, 1)
            hint = f"the nearest is {nearest[0]}" if nearest else f"the settings are {', '.join(NAMES)}"
            raise EarshotError(f"environment variable {name} is not a setting; {hint}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        (expected,) = (word for word in Settings.model_fields[field].metadata if isinstance(word, Expected))
        raise EarshotError(f"{PREFIX}{field.upper()} is {first['input']!r}, expected {expected.text}") from None
