"""What changes how a run is done but never its result: environment variables EARSHOT_*, read here and nowhere else."""

import difflib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from earshot.core.errors import EarshotError
from earshot.core.processors import processors

PREFIX = "EARSHOT_"


@dataclass(frozen=True)
class Expected:
    """What a setting expects, for the message that refuses a value."""

    text: str


Number = Annotated[int, Field(ge=1), Expected("a whole number of at least 1")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False), Expected("a number of at least 0")]
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
Place = Annotated[Path, AfterValidator(Path.resolve)]


class Settings(BaseSettings):
    """How this run is done on this machine: each field is the environment variable of its name, after EARSHOT_."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    workers: Number = Field(
        default_factory=processors,
        description="processes that map over shards (default: the processors this process may use)",
    )
    cluster: Scheduler = Field(
        default=None,
        description="a Dask scheduler, tcp://host:8786, whose workers map over shards instead (default: none)",
    )
    threads: Number = Field(
        default_factory=processors, description="threads of one training or evaluating process (default: the same)"
    )
    processes: Number = Field(
        default=1, description="processes that train one network, on a GPU each or on the CPU (default: 1)"
    )
    device: Device = Field(default="auto", description="auto, cpu or cuda (default: auto)")
    scratch: Place | None = Field(
        default=None, description="folder where unfinished work waits (default: .earshot under the root)"
    )
    # YouTube bears a thousand player requests an hour from a guest, three a video; here every request counts.
    requests_per_hour: Amount = Field(
        default=1000.0, description="requests that each site gets in an hour, 0: no limit (default: 1000)"
    )
    backoff: Amount = Field(
        default=60.0, description="seconds that a site which limits us is left alone at first, doubling (default: 60)"
    )
    patience: Amount = Field(
        default=900.0,
        description="seconds that downloading waits for such a site before it leaves the rest (default: 900)",
    )
    js_runtime: Runtime = Field(
        default=None,
        description="JavaScript for YouTube: deno, node, bun or quickjs; or node:/usr/bin/node (default: deno)",
    )
    cookies: Place | None = Field(default=None, description="a Netscape cookies file for yt-dlp (default: none)")
    proxy: str | None = Field(default=None, description="a proxy address for yt-dlp (default: none)")
    real_data: Place | None = Field(
        default=None,
        description="folder of real clips, recordings and photographs for the tests (default: those tests skip)",
    )


NAMES = {PREFIX + name.upper(): field.description for name, field in Settings.model_fields.items()}


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises EarshotError for a variable that does not exist and for a value that cannot be.
    """
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f"the nearest is {near[0]}" if near else f"the settings are {', '.join(NAMES)}"
            raise EarshotError(f"environment variable {name} is not a setting; {hint}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        (expected,) = (word for word in Settings.model_fields[field].metadata if isinstance(word, Expected))
        raise EarshotError(f"{PREFIX}{field.upper()} is {first['input']!r}, expected {expected.text}") from None
