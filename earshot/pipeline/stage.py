"""The frame of a stage script: its command line, the parameters it may read, its scratch folder and its outputs.

A stage can be killed at any instant. What it has finished waits in a scratch folder named by a fingerprint, outputs are
placed whole, and the scratch folder goes only after the last output and the last metric are in place.
"""

import argparse
import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from earshot.core.errors import EarshotError
from earshot.core.files import link_tree, write_atomically
from earshot.core.hashing import fingerprint, list_hash, loaded_sources
from earshot.core.params import Part, declared_keys, is_present, load_params
from earshot.pipeline import torchrun
from earshot.pipeline.settings import NAMES, settings
from earshot.pipeline.shards import Work, end_with, map_shards

P = TypeVar("P", bound=Part)
CLIPS_FILE = "clips.json"  # in every output, and in what it was made from: the hash of the list of clips


@dataclass
class StageContext(Generic[P]):
    """One run of a stage: what `main` works with."""

    stage: "Stage[P]"
    params: P
    root: Path
    scratch: Path
    choice: str | None
    clips_hash: str | None = None  # of the list of clips that the numbers of this run come from, where they do
    _done: set[str] = field(default_factory=set)

    @property
    def scratch_root(self) -> Path:
        """The folder with the scratch folders of all work, and what lasts longer than one run."""
        return self.scratch.parents[1]

    def path(self, name: str) -> Path:
        """Where an input is: relative to the root, or as the parameter has it when absolute."""
        return self.root / name

    def optional_path(self, name: str) -> Path | None:
        """Where an input is that may be absent: None where the parameter is `none`."""
        return self.path(name) if is_present(name) else None

    def out(self, name: str) -> Path:
        """The folder in the scratch where output `name` grows until it is placed."""
        if name not in self.stage.outs(self.choice):
            raise LookupError(f"output {name} is not declared by stage {self.stage.name}")
        folder = self.scratch / "out" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def map_shards(self, work: Work, numbers: Sequence[int], *, title: str) -> Counter[str]:
        """Do `work(number)` for every shard that is not finished yet; return the summed counts of all.

        They are done on the cluster that EARSHOT_CLUSTER names where the stage uses one, else on this machine. A second
        call in the same stage needs another title: finished shards are kept under it.
        """
        return map_shards(
            work,
            numbers,
            self.scratch / "finished" / title.replace(" ", "-"),
            title=title,
            cluster=settings().cluster if self.stage.uses_cluster else None,
            reads=[self.path(name) for name in self.stage.inputs(self.params, self.choice)],
        )

    def set_clips_hash(self, clip_ids: Iterable[str]) -> None:
        """Say which clips there are, for the stage that decides it: all that is placed or measured then carries it."""
        self.clips_hash = list_hash(clip_ids)

    def publish(self, name: str) -> None:
        """Put the finished output `name` under the root, whole, with the hash of the clips that it comes from."""
        if self.clips_hash:
            with write_atomically(self.out(name) / CLIPS_FILE) as temporary_path:
                temporary_path.write_text(json.dumps({"clips_hash": self.clips_hash}) + "\n")
        for leftover in self.out(name).rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        link_tree(self.out(name), self.root / name)
        self._done.add(name)

    def keep(self, name: str) -> None:
        """Leave output `name` as an earlier run has placed it: this run would make the same."""
        self._done.add(name)

    def write_metrics(self, name: str, values: Mapping[str, Any]) -> None:
        """Write metrics/<name>.json: flat, in the order given, floats rounded to six digits, and last `clips_hash`."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        rounded |= {"clips_hash": self.clips_hash} if self.clips_hash else {}
        self._write_metric(f"{name}.json", json.dumps(rounded, indent=2, allow_nan=False) + "\n")

    def write_plot(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics/<name>.csv, a table that `dvc plots` draws: a row a mapping, all with the same keys."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
        self._write_metric(f"{name}.csv", text.getvalue())

    def _write_metric(self, file: str, text: str) -> None:
        if file not in self.stage.metric_files(self.choice):
            raise LookupError(f"metric {file} is not declared by stage {self.stage.name}")
        with write_atomically(self.root / "metrics" / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._done.add(file)

    def check_complete(self) -> None:
        """Raise LookupError where a declared output was not written."""
        missing = {*self.stage.outs(self.choice), *self.stage.metric_files(self.choice)} - self._done
        if missing:
            raise LookupError(f"stage {self.stage.name} ended without {', '.join(sorted(missing))}")


@dataclass(frozen=True)
class Stage(Generic[P]):
    """What a stage declares; dvc.yaml says the same, and a test asks DVC whether it does.

    Args:
        name: of the stage and of its module in `stages`.
        params: the schema of its parameters, or what gives it for a choice.
        unhashed: parameters that only decide what becomes of finished work: with another value of theirs a run goes
            on where the last one stopped.
        reads: inputs under the root, or a function of the parameters and the choice; those that are `none` are absent.
        clips: the one input that tells which clips the stage's numbers come from, as `reads` may tell it.
        writes, metrics, plots: what it places; `{choice}` in them stands for the choice.
        choices: the name of the option that chooses (evaluate: `benchmark`), and its values.
        uses_cluster: whether its shards may be done by the workers of a cluster.
        format_version: for a stage whose unfinished work no code has made (a download): its scratch folder then goes
            by inputs and parameters, and by this number, and outlives an edit of the code.
    """

    name: str
    params: type[P] | Callable[[str], type[P]]
    unhashed: Sequence[str] = ()
    reads: Sequence[str] | Callable[[P, str | None], Sequence[str]] = ()
    clips: str | Callable[[P, str | None], str] = ""
    writes: Sequence[str] = ()
    metrics: Sequence[str] = ()
    plots: Sequence[str] = ()
    choices: tuple[str, Sequence[str]] | None = None
    uses_cluster: bool = False
    format_version: int | None = None

    def metric_files(self, choice: str | None) -> list[str]:
        """The files under metrics/ that this stage writes."""
        return [f"{_fill(m, choice)}.json" for m in self.metrics] + [f"{_fill(p, choice)}.csv" for p in self.plots]

    def outs(self, choice: str | None) -> list[str]:
        """The outputs that this stage places."""
        return [_fill(name, choice) for name in self.writes]

    def schema(self, choice: str | None = None) -> type[P]:
        """The schema of the stage's parameters."""
        return self.params if isinstance(self.params, type) else self.params(choice or "")

    def inputs(self, params: P, choice: str | None) -> list[str]:
        """The files and folders that the stage reads under these parameters, without those that are absent."""
        names = self.reads(params, choice) if callable(self.reads) else self.reads
        return [name for name in dict.fromkeys(names) if is_present(name)]

    def run(
        self,
        main: Callable[[StageContext[P]], str],
        arguments: Sequence[str] | None = None,
        *,
        join: Callable[[StageContext[P]], None] | None = None,
        status: Callable[[StageContext[P]], Mapping[str, Any]] | None = None,
    ) -> None:
        """The command line: check everything, do `main`, print its closing line; a user's mistake is one line.

        Args:
            main: the stage; returns the closing line.
            arguments: of the command line.
            join: what further processes do, where torchrun or EARSHOT_PROCESSES starts several for a stage that has it.
            status: for a stage that can tell how far it is: what `--status` prints, also while a run goes on.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        options = self._parser(main, status).parse_args(arguments)
        warnings.formatwarning = lambda message, *_: f"{self.name}: {message}\n"
        try:
            if status and options.status:
                _tell(status(self._prepare(options)), options.json)
                return
            if join and settings().processes > 1 and not torchrun.is_started():
                sys.exit(torchrun.launch(f"stages.{self.name}", arguments, settings().processes))
            with torchrun.report_first_error():
                self._run(main, join, options)
        except EarshotError as error:
            sys.exit(f"{self.name}: {error}")
        except KeyboardInterrupt:
            print(f"{self.name}: stopped; run it again and it goes on", file=sys.stderr)
            sys.exit(130)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            place = error.filename or options.root
            sys.exit(f"{self.name}: {place}: {error.strerror}; finished work is kept: mend it and run again")

    def _parser(self, main: Callable, status: Callable | None) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m stages.{self.name}",
            description=sys.modules[main.__module__].__doc__,
            epilog="settings, which never change a result:\n" + "\n".join(f"  {k}: {v}" for k, v in NAMES.items()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if self.choices:
            parser.add_argument(f"--{self.choices[0]}", dest="choice", required=True, choices=self.choices[1])
        add = parser.add_argument
        add("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: params.yaml")
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a parameter; repeatable")
        add("--root", type=Path, default=Path("."), metavar="DIR", help="where data/, models/ and metrics/ are")
        if status:
            add("--status", action="store_true", help="only tell how far the work is; a run may go on meanwhile")
            add("--json", action="store_true", help="with --status: as JSON")
        return parser

    def _run(
        self, main: Callable[[StageContext[P]], str], join: Callable[[StageContext[P]], None] | None, options: Any
    ) -> None:
        run = self._prepare(options)
        if torchrun.is_started():
            end_with(os.getppid())
        if join and torchrun.rank():
            warnings.simplefilter("ignore")  # the first process warns
            join(run)
            return
        run.scratch.mkdir(parents=True, exist_ok=True)
        with _locked(run.scratch):
            closing = main(run)
            run.check_complete()
            shutil.rmtree(run.scratch)
        print(closing, flush=True)

    def _prepare(self, options: argparse.Namespace) -> StageContext[P]:
        """Check parameters and inputs, and find the scratch folder of this very work."""
        choice = getattr(options, "choice", None)
        schema = self.schema(choice)
        params = load_params(schema, options.params, options.set)
        root = options.root.resolve()
        inputs = [root / name for name in self.inputs(params, choice)]
        for path in [root, *inputs]:
            if not path.exists():
                raise EarshotError(f"{path}: no such file or folder; run the stage that writes it or mend the value")
        plain = params.model_dump()
        values = {key: _lookup(plain, key) for key in declared_keys(schema) if key not in self.unhashed}
        label = f"{self.name}-{choice}" if choice else self.name
        values["root"] = str(root)  # what is unfinished may name files by their paths
        if self.format_version is None:
            name = fingerprint(inputs, values, loaded_sources())
        else:
            name = fingerprint(inputs, values | {"format_version": self.format_version})
        scratch = (settings().scratch or root / ".earshot") / label / name
        clips = self.clips(params, choice) if callable(self.clips) else self.clips
        return StageContext(self, params, root, scratch, choice, read_clips_hash(root / clips) if clips else None)


def read_clips_hash(folder: Path) -> str | None:
    """The hash of the list of clips that an output comes from; None for what does not come from clips.

    Raises EarshotError where its file is damaged.
    """
    file = folder / CLIPS_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["clips_hash"]
        if not re.fullmatch("[0-9a-f]{16}", found):
            raise ValueError(f"{found!r:.40} is no hash")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error!r:.100}); run the stage that writes {folder}") from None
    return found


@contextlib.contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    """Refuse a second run of the same work; the system frees the lock of a process that was killed."""
    with open(scratch / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EarshotError(f"{scratch}: another run is doing this very work; wait for it or end it") from None
        yield


def _tell(metadata: Mapping[str, Any], as_json: bool) -> None:
    """Print what a stage tells of its state: a line a fact, or JSON."""
    if as_json:
        print(json.dumps(metadata, indent=2))
        return
    width = max(map(len, metadata))
    for name, value in metadata.items():
        print(f"{name.replace('_', ' '):<{width}}  {value if isinstance(value, str) else f'{value:,}'}")


def _fill(text: str, choice: str | None) -> str:
    return text.replace("{choice}", choice or "")


def _lookup(values: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values
