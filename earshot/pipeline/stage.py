"""The frame of a stage script: its command line, the parameters it may read, its scratch folder and its outputs.

A stage can be killed at any time. It keeps finished work in a scratch folder named by a fingerprint, publishes outputs
atomically, and removes the scratch folder only after the last output and the last metric.
"""

import argparse
import contextlib
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

from earshot.core.csv_files import write_csv
from earshot.core.errors import EarshotError
from earshot.core.files import link_tree, open_lock, real_path, run_again, write_atomically, writing_stage
from earshot.core.hashing import fingerprint, list_hash, loaded_sources
from earshot.core.json_files import parse_json
from earshot.core.messages import console_line, for_output
from earshot.core.params import Part, declared_keys, is_present, load_params
from earshot.core.yaml_files import flatten
from earshot.pipeline import torchrun
from earshot.pipeline.settings import check_settings, settings, settings_of
from earshot.pipeline.shards import Work, end_with, map_shards

P = TypeVar("P", bound=Part)
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)  # of some network file systems
CLIPS_FILE = "clips.json"  # in every output that comes from clips: the hash of their list


@dataclass
class StageContext(Generic[P]):
    """One run of a stage, passed to its `main`."""

    stage: "Stage[P]"
    params: P
    root: Path
    scratch: Path
    choice: str | None
    clips_hash: str | None = None  # of the list of clips that the results come from, if any
    retry: Sequence[str] = ()  # the reasons given with --retry
    _done: set[str] = field(default_factory=set)

    @property
    def scratch_root(self) -> Path:
        """The folder of all scratch folders, and of files that outlast a run."""
        return self.scratch.parents[1]

    def path(self, name: str) -> Path:
        """The path of an input: below the root, unless the parameter is an absolute path."""
        return self.root / name

    def optional_path(self, name: str) -> Path | None:
        """The path of an optional input; None if the parameter is `none`."""
        return self.path(name) if is_present(name) else None

    def out(self, name: str) -> Path:
        """The scratch folder of output `name`, until it is published."""
        if name not in self.stage.outs(self.choice):
            raise LookupError(f"output {name} is not declared by stage {self.stage.name}")
        folder = self.scratch / "out" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def map_shards(self, work: Work, numbers: Sequence[int], *, title: str) -> Counter[str]:
        """Run `work(number)` for every shard that is not finished; return the summed counts of all shards.

        A stage that supports clusters uses the one in EARSHOT_CLUSTER, if set; otherwise this machine does the work. A
        second call in the same stage requires another title, which names the folder of finished shards.
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
        """Set the list of clips, in the stage that decides it; all outputs and metrics then carry its hash."""
        self.clips_hash = list_hash(clip_ids)

    def publish(self, name: str) -> None:
        """Move the finished output `name` under the root, atomically, with the hash of its clips."""
        if self.clips_hash:
            with write_atomically(self.out(name) / CLIPS_FILE) as temporary_path:
                temporary_path.write_text(json.dumps({"clips_hash": self.clips_hash}) + "\n")
        for leftover in self.out(name).rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        link_tree(self.out(name), self.root / name)
        self._done.add(name)

    def reuse(self, name: str) -> None:
        """Keep output `name` of an earlier run, because this run would write the same."""
        self._done.add(name)

    def write_metrics(self, name: str, values: Mapping[str, Any]) -> None:
        """Write metrics/<name>.json: flat, in the given order, floats rounded to six digits, `clips_hash` last."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        rounded |= {"clips_hash": self.clips_hash} if self.clips_hash else {}
        self._write_metric(f"{name}.json", json.dumps(rounded, indent=2, allow_nan=False) + "\n")

    def write_plot(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics/<name>.csv, a table for `dvc plots`: one row for each mapping, all with the same keys."""
        text = io.StringIO()
        columns = list(rows[0]) if rows else []
        rounded = ([round(row[k], 6) if isinstance(row[k], float) else row[k] for k in columns] for row in rows)
        write_csv(text, columns, rounded)
        self._write_metric(f"{name}.csv", text.getvalue())

    def _write_metric(self, file: str, text: str) -> None:
        if file not in self.stage.metric_files(self.choice):
            raise LookupError(f"metric {file} is not declared by stage {self.stage.name}")
        with write_atomically(self.root / "metrics" / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._done.add(file)

    def check_complete(self) -> None:
        """Raise LookupError if a declared output was not written."""
        missing = {*self.stage.outs(self.choice), *self.stage.metric_files(self.choice)} - self._done
        if missing:
            raise LookupError(f"stage {self.stage.name} ended without {', '.join(sorted(missing))}")


@dataclass(frozen=True)
class Stage(Generic[P]):
    """The declaration of a stage; dvc.yaml repeats it, and a test compares both.

    Args:
        name: the stage, and its module in `stages`.
        params: the schema of its parameters, or a function that returns it for a choice.
        unhashed: parameters that do not affect unfinished work: a run with another value resumes it.
        reads: inputs under the root, or a function of parameters and choice; an input `none` is absent.
        clips: the input whose clips the results come from, or a function as for `reads`.
        writes, metrics, plots: the outputs; `{choice}` in a name stands for the choice.
        choices: the option that selects one choice (evaluate: `benchmark`), and its values.
        uses_cluster: whether the workers of a cluster may process its shards.
        format_version: for a stage whose unfinished work does not depend on the code (download): the scratch folder is
            named by inputs, parameters and this number, and survives an edit of the code.
        reads_all: whether all inputs must exist; else the stage works with those that do (report).
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
    reads_all: bool = True

    def metric_files(self, choice: str | None) -> list[str]:
        """The files under metrics/ that this stage writes."""
        return [f"{_fill(m, choice)}.json" for m in self.metrics] + [f"{_fill(p, choice)}.csv" for p in self.plots]

    def outs(self, choice: str | None) -> list[str]:
        """The outputs that this stage writes."""
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
        views: Mapping[str, Callable[[StageContext[P]], Mapping[str, Any]]] | None = None,
        retry: Sequence[str] = (),
    ) -> None:
        """The command line: check everything, run `main`, print its closing line; a user's mistake prints one line.

        Args:
            main: the stage; returns the closing line.
            arguments: of the command line.
            join: what further processes run, for a stage that torchrun or EARSHOT_PROCESSES may start several times.
            views: functions by the option that prints what they return, and does nothing else: `status` is `--status`.
                The first line of a function's docstring is the option's help.
            retry: the reasons that `--retry` accepts, for a stage that can work again on clips that it refused.
        """
        arguments = sys.argv[1:] if arguments is None else arguments
        views = views or {}
        options = self._parser(main, views, retry).parse_args(arguments)
        warnings.formatwarning = lambda warning, *_: f"{self.name}: {console_line(warning)}\n"
        try:
            if options.view:
                _print_view(views[options.view](self._prepare(options)), options.json)
                return
            check_settings(self.name)
            if join and settings().processes > 1 and not torchrun.is_started():
                sys.exit(torchrun.launch(f"stages.{self.name}", arguments, settings().processes))
            with torchrun.report_first_error():
                self._run(main, join, options)
        except EarshotError as error:
            sys.exit(f"{self.name}: {console_line(error)}")
        except KeyboardInterrupt:
            print(f"{self.name}: stopped; run again to continue", file=sys.stderr)
            sys.exit(130)
        except OSError as error:
            of_disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
            if not of_disk and not self._is_in_scratch(error.filename, options):
                raise
            path = error.filename or options.root
            reason = f"{self.name}: {console_line(path)}: {error.strerror}; finished work is kept"
            advice = "free space or correct the permissions" if of_disk else "set EARSHOT_SCRATCH to a usable folder"
            sys.exit(f"{reason}: {advice}, then run again")

    def _is_in_scratch(self, file: Any, options: Any) -> bool:
        """Whether an error concerns the scratch folder or a folder above it."""
        scratch = settings().scratch or real_path(options.root) / ".earshot"
        if not isinstance(file, str | Path):
            return False
        path = Path(os.path.abspath(file))
        return path.is_relative_to(scratch) or (settings().scratch is not None and scratch.is_relative_to(path))

    def _parser(self, main: Callable, views: Mapping[str, Callable], retry: Sequence[str]) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m stages.{self.name}",
            description=sys.modules[main.__module__].__doc__,
            epilog="Settings (environment variables), which never change a result:\n"
            + "\n".join(f"  {name}: {meaning}" for name, meaning in settings_of(self.name).items()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        add = parser.add_argument
        if self.choices:
            # DVC passes the name of its stage, such as evaluate@voc, which it sets as a variable: see dvc.yaml.
            name, choices = self.choices
            meaning = f"One of {', '.join(choices)}."
            add(
                f"--{name}", dest="choice", required=True, choices=choices, type=self._choice_of, metavar="NAME",
                help=meaning,
            )  # fmt: skip
        folder = "The folder with data/, models/ and metrics/ (default: this one)."
        params = "The parameters (default: params.yaml)."
        add("--root", type=Path, default=Path("."), metavar="DIR", help=folder)
        add("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help=params)
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="Change one parameter; repeatable.")
        parser.set_defaults(view=None)
        for name, view in views.items():
            meaning = f"Only print {(view.__doc__ or '').partition(chr(10))[0]}"
            add(f"--{name}", dest="view", action="store_const", const=name, help=meaning)
        if views:
            add("--json", action="store_true", help=f"With --{' or --'.join(views)}: print JSON.")
        if retry:
            meaning = f"Work again on the clips refused for this reason; repeatable. One of {', '.join(retry)}."
            add("--retry", action="append", default=[], choices=retry, metavar="REASON", help=meaning)
        add("-h", "--help", action="help", help="Show this message and exit.")
        return parser

    def _choice_of(self, text: str) -> str:
        """`voc` of `evaluate@voc` or, from another folder, of `../dvc.yaml:evaluate@voc`."""
        return text.rpartition(f"{self.name}@")[2]

    def _run(
        self, main: Callable[[StageContext[P]], str], join: Callable[[StageContext[P]], None] | None, options: Any
    ) -> None:
        run = self._prepare(options)
        run.retry = getattr(options, "retry", ())
        if torchrun.is_started():
            end_with(os.getppid())
        if join and torchrun.rank():
            warnings.simplefilter("ignore")  # the first process warns
            join(run)
            return
        run.scratch.mkdir(0o700, parents=True, exist_ok=True)  # addresses in it may hold passwords
        with _locked(run.scratch):
            closing = main(run)
            run.check_complete()
            shutil.rmtree(run.scratch)
        print(console_line(closing), flush=True)

    def _prepare(self, options: argparse.Namespace) -> StageContext[P]:
        """Check parameters and inputs, and find the scratch folder of this work."""
        choice = getattr(options, "choice", None)
        schema = self.schema(choice)
        params = load_params(schema, options.params, options.set)
        root = real_path(options.root)
        plain, names = params.model_dump(), self.inputs(params, choice)
        inputs = [root / name for name in names]
        if not root.exists():
            raise EarshotError(f"{root}: no such file or folder; give an existing folder with --root")
        for path, name in zip(inputs, names, strict=True):
            if self.reads_all and not path.exists():
                raise EarshotError(f"{path}: no such file or folder; {_remedy(name, plain)}")
        inputs = [path for path in inputs if path.exists()]
        values = {key: _lookup(plain, key) for key in declared_keys(schema) if key not in self.unhashed}
        label = f"{self.name}-{choice}" if choice else self.name
        values["root"] = str(root)  # unfinished work may contain absolute paths
        if self.format_version is None:
            name = fingerprint(inputs, values, loaded_sources())
        else:
            name = fingerprint(inputs, values | {"format_version": self.format_version})
        scratch = (settings().scratch or root / ".earshot") / label / name
        clips = self.clips(params, choice) if callable(self.clips) else self.clips
        return StageContext(self, params, root, scratch, choice, read_clips_hash(root / clips) if clips else None)


def read_clips_hash(folder: Path) -> str | None:
    """The hash of the list of clips that an output comes from; None if it does not come from clips.

    Raises EarshotError if its file is damaged.
    """
    file = folder / CLIPS_FILE
    try:
        clips_hash = parse_json(file.read_text(encoding="utf-8"))["clips_hash"]
        if not re.fullmatch("[0-9a-f]{16}", clips_hash):
            raise ValueError(f"{clips_hash!r:.40} is not a hash")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error!r:.100}); {run_again(folder)}") from None
    return clips_hash


@contextlib.contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    """Raise EarshotError if another run does the same work; the system frees the lock of a killed process."""
    with open_lock(scratch / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EarshotError(f"{scratch}: another run is doing the same work; wait for it or stop it") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(
                f"{scratch}: its file system has no locks ({error.strerror}); start no second run of the same work, or "
                "set EARSHOT_SCRATCH to a local folder",
                stacklevel=4,
            )
        yield


def _print_view(metadata: Mapping[str, Any], as_json: bool) -> None:
    """Print a view of a stage: one line for each entry, or JSON."""
    if as_json:
        print(json.dumps(metadata, indent=2))
        return
    width = max(map(len, metadata), default=0)
    for name, value in metadata.items():
        print(for_output(f"{name:<{width}}  {value if isinstance(value, str) else f'{value:,}'}"))


def _remedy(name: str, values: Mapping[str, Any]) -> str:
    """What to do about the missing input `name`: the stage that writes it, and the parameter that names it."""
    stage, key = writing_stage(Path(name)), next((key for key, value in flatten(values) if value == name), None)
    run = [f"run the stage {stage}, which writes it"] if stage else []
    change = [f"set {key} to an existing path"] if key else []
    return ", or ".join([*run, *change]) or "put it there, because no stage writes it"


def _fill(text: str, choice: str | None) -> str:
    return text.replace("{choice}", choice or "")


def _lookup(values: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values
