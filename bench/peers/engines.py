"""How peers.py runs an engine: one process for each engine, round and depth, whose output becomes {test: figure}.

Tests are named as by llama-bench: pp512 is a prompt of 512 tokens, tg64 are 64 generated tokens, tg64 @ d4096 those after 4096.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile


class Failure(Exception):
    """Why an engine has no figure."""


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def on_alarm(_signal, _frame):
    raise TimeoutError


def run(command, timeout):
    """Standard output and peak resident memory in MB of a command."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            process = subprocess.Popen(command, stdout=out, stderr=err)
        except OSError as error:
            raise Failure(f"{command[0]}: {error.strerror}") from error
        signal.signal(signal.SIGALRM, on_alarm)
        signal.alarm(timeout)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException as error:
            process.kill()
            process.wait()
            if isinstance(error, TimeoutError):
                raise Failure(f"not finished after {timeout} s") from error
            raise
        finally:
            signal.alarm(0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        printed, message = out.read(), err.read()
    if process.returncode < 0:
        raise Failure(f"ended by {signal.Signals(-process.returncode).name}")
    if process.returncode:
        raise Failure(last_line(message or printed))
    return printed, usage.ru_maxrss * 1024 / 1e6


def join(numbers):
    return ",".join(map(str, numbers))


def at(depth):
    return f" @ d{depth}" if depth else ""


class Engine:
    """One row. Subclasses say command(depth) and read(printed, depth) -> {test: figure}."""

    ids = "the same ids"

    def __init__(self, name, args):
        self.name, self.args = name, args
        self.version, self.note = "", ""
        self.samples = {}  # test: one figure of each round
        self.commands = {}  # depth: the command
        self.failures = {}  # depth: reason; one at 0 is the engine's
        self.continued = None  # greedy ids after the prompt that is compared

    def prepare(self):
        """Whatever must be there before measuring."""

    def fail(self, depth, failure):
        self.failures[depth] = str(failure)

    def measure(self, depth):
        command = self.commands[depth] = self.command(depth)
        printed, peak = run(command, self.args.timeout)
        try:
            figures = self.read(printed, depth)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Failure(f"output not understood ({error!r})") from error
        if not depth:
            figures["peak memory"] = peak
        for test, figure in figures.items():
            self.samples.setdefault(test, []).append(figure)

    def bench_options(self, depth):
        """Options that gemmac bench and the scripts of this folder share."""
        tests = ["-p", "0", "-n", join(self.args.n), "-d", str(depth)] if depth else ["-p", join(self.args.p), "-n", join(self.args.n)]
        return [*tests, "-r", str(self.args.r), "-t", str(self.args.t)]

    def rows(self, rows, depth):
        return {row["test"]: row["mean"] for row in rows if not depth or row["test"].startswith("tg")}


class Gemmac(Engine):
    ids = ""

    def __init__(self, command, args):
        super().__init__("gemmac", args)
        self.binary, *self.options = command
        self.bandwidths = []

    def prepare(self):
        self.version = run([self.binary, "--version"], self.args.timeout)[0].strip()

    def command(self, depth):
        return [self.binary, "bench", self.args.model, *self.bench_options(depth), *self.options, "--format", "json"]

    def read(self, printed, depth):
        return {test: figure for test, figure in self.rows(json.loads(printed), depth).items() if test != "peak memory"}

    def measure(self, depth):
        super().measure(depth)
        if not depth:
            printed, _ = run([self.binary, "plan", self.args.model, "-t", str(self.args.t), "--format", "json"], self.args.timeout)
            self.bandwidths.append(json.loads(printed)["probe_gb_s"])

    def continuation(self, prompt, tokens):
        """The ids of a prompt and those that greedily follow."""
        command = [self.binary, "generate", self.args.model, "-p", prompt, "-n", str(tokens), "--temp", "0", "--ignore-eos"]
        printed, _ = run([*command, "-t", str(self.args.t), *self.options, "--format", "json"], self.args.timeout)
        result = json.loads(printed)
        return result["prompt_ids"], result["ids"]


class LlamaBench(Engine):
    ids = "random ids of its own, as many"

    def __init__(self, name, command, args):
        super().__init__(name, args)
        self.binary, *self.options = command

    def prepare(self):
        usage, _ = run([self.binary, "--help"], self.args.timeout)
        self.has_depth, self.has_gp = "--n-depth" in usage, "-gp" in usage

    def command(self, depth):
        common = [self.binary, "-m", self.args.model, "-r", str(self.args.r), "-t", str(self.args.t), "-ngl", "0", *self.options]
        if not depth:
            tests = ["-p", join(self.args.p), "-n", join(self.args.n)]
        elif self.has_depth:
            tests = ["-p", "0", "-n", join(self.args.n), "-d", str(depth)]
        elif self.has_gp:
            tests = ["-p", "0", "-n", "0", *[word for tokens in self.args.n for word in ("-gp", f"{depth},{tokens}")]]
        else:
            raise Failure("this llama-bench cannot generate at a depth")
        return [*common, *tests, "-o", "json"]

    def read(self, printed, depth):
        found = json.loads(printed)
        first = found[0]
        self.version = f"build {first['build_commit']}, {first['cpu_info']}"
        return {f"tg{row['n_gen']}{at(depth)}" if row["n_gen"] else f"pp{row['n_prompt']}": row["avg_ts"] for row in found}


class Pypi(Engine):
    def __init__(self, name, script, packages, folder, args):
        super().__init__(name, args)
        self.script, self.packages, self.folder = script, packages, folder
        self.python = folder / "bin/python"

    def prepare(self):
        mark, wanted = self.folder / "installed", " ".join(self.packages)
        if mark.is_file() and mark.read_text() == wanted:
            return
        if self.args.no_install:
            raise Failure(f"{wanted} is not installed in build/peers")
        print(f"peers: installing {wanted}", file=sys.stderr, flush=True)
        run([sys.executable, "-m", "venv", str(self.folder)], self.args.timeout)
        try:
            run([str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.packages], 2 * 3600)
        except Failure as failure:
            raise Failure(f"pip install {wanted}: {failure}") from failure
        mark.write_text(wanted)

    def command(self, depth):
        compared = [] if depth else ["--ids", join(self.args.prompt_ids), "--greedy", str(self.args.greedy)]
        return [str(self.python), str(self.script), self.args.model, *self.bench_options(depth), *compared]

    def read(self, printed, depth):
        result = json.loads(last_line(printed))
        self.version, self.note = result["version"], result["note"]
        if not depth:
            self.continued = result["greedy"]
        return self.rows(result["rows"], depth)
