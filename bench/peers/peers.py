#!/usr/bin/env python3
"""gemmac and its peers side by side in one run: bench/peers/peers.py [MODEL.gguf] [--llama-bench PATH] [--format md]

The same GGUF file, threads, tests and, where the peer takes them, the same token ids. A round runs every engine once, one after the
other, and the rounds follow each other (A, B, C, A, B, C, ...), so that a machine that slows down slows all of them; a figure is the
mean and the standard deviation over the rounds. llama-cpp-python, OpenVINO GenAI and JAX come from PyPI, each into its own
environment under build/peers, at the first run (llama-cpp-python is compiled then: ten minutes and more). A peer that cannot be had
or that fails keeps its row, with the reason. Progress goes to standard error, the table to standard output.
"""

import argparse
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys

import report
from engines import Failure, Gemmac, LlamaBench, Pypi

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("GEMMAC_BUILD", ROOT / "build"))
MODEL = ROOT / "build/deps/models/gemma-3-270m-q4_k_m.gguf"
PROMPT, GREEDY = "The capital of France is", 16  # each engine's greedy continuation is compared with gemmac's
FLAGS = "avx2 fma f16c avx_vnni avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16".split()

# name: (script beside this file, what pip installs). OpenVINO's GGUF frontend is a preview: run_openvino.py fits this version.
PYPI = {
    "llama.cpp": ("run_llama_cpp.py", ["llama-cpp-python"]),
    "openvino": ("run_openvino.py", ["openvino-genai==2026.4.1.0"]),
    "jax": ("run_jax.py", ["jax[cpu]", "gguf"]),
}


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def integers(text):
    return [int(part) for part in text.split(",") if part]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(MODEL), help="a GGUF file (the one that tests/setup.sh fetches)")
    parser.add_argument("-p", type=integers, default=[128, 512, 2048], metavar="LIST", help="prompt lengths (128,512,2048)")
    parser.add_argument("-n", type=integers, default=[64], metavar="LIST", help="numbers of generated tokens (64)")
    parser.add_argument("-d", type=integers, default=[], metavar="LIST", help="also generate at these depths, like 4096,16384")
    parser.add_argument("-t", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="threads (all CPUs)")
    parser.add_argument("-r", type=int, default=1, metavar="N", help="repetitions in a round, after a warm-up run (1)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds over all engines (5)")
    parser.add_argument("--peers", default=",".join(PYPI), metavar="LIST", help=f"of {', '.join(PYPI)} (all); '' for none")
    parser.add_argument("--llama-bench", action="append", default=[], metavar="[NAME=]COMMAND", help="also measure this llama-bench "
                        "binary; more words are options for it: 'fork=/path/llama-bench -rtr 1'. Can be given again")
    parser.add_argument("--gemmac", default=str(BUILD / "gemmac"), metavar="COMMAND", help="the binary (build/gemmac), and options "
                        "for its bench")
    parser.add_argument("--no-install", action="store_true", help="use the peers from PyPI that are installed already")
    parser.add_argument("--timeout", type=int, default=1800, metavar="S", help="seconds that one command may take (1800)")
    parser.add_argument("--format", choices=["text", "md", "json"], default="text", help="form of the table (text)")
    args = parser.parse_args()
    unknown = [name for name in args.peers.split(",") if name and name not in PYPI]
    if unknown:
        parser.error(f"--peers {unknown[0]}: not one of {', '.join(PYPI)}")
    return args


def make_engines(args):
    engines = [Gemmac(shlex.split(args.gemmac), args)]
    for given in args.llama_bench:
        name, is_named, command = given.partition("=")
        if not is_named or "/" in name:
            name, command = "llama-bench", given
        engines.append(LlamaBench(name, shlex.split(command), args))
    for name in filter(None, args.peers.split(",")):
        script, packages = PYPI[name]
        engines.append(Pypi(name, HERE / script, packages, BUILD / "peers" / name, args))
    return engines


def prepare(engine):
    try:
        engine.prepare()
    except Failure as failure:
        engine.fail(0, failure)
        say(f"{engine.name}: {failure}")


def measure(engines, args):
    for number in range(1, args.rounds + 1):
        for engine in engines:
            for depth in [0, *args.d]:
                if depth in engine.failures or 0 in engine.failures:
                    continue
                say(f"round {number} of {args.rounds}, {engine.name}{f' at depth {depth}' if depth else ''}")
                try:
                    engine.measure(depth)
                except Failure as failure:
                    engine.fail(depth, failure)
                    say(f"{engine.name}: {failure}")


def cpu_field(name):
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def machine(gemmac):
    """What was measured on; the bandwidth is gemmac's own probe, in each round."""
    flags = set(cpu_field("flags").split())
    probes = gemmac.bandwidths
    return {
        "cpu": f"{cpu_field('model name')}, family {cpu_field('cpu family')} model {cpu_field('model')}",
        "cpus": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS if flag in flags],
        "read_gb_s": [min(probes), max(probes)] if probes else None,
        "system": f"Linux {os.uname().release}",
    }


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main():
    args = parse()
    if not os.path.isfile(args.model):
        raise SystemExit(f"peers: no model {args.model}: tests/setup.sh fetches one")
    engines = make_engines(args)
    gemmac = engines[0]
    try:
        args.prompt_ids, reference = gemmac.continuation(PROMPT, GREEDY)
    except Failure as failure:
        raise SystemExit(f"peers: {failure}")
    args.greedy = GREEDY
    for engine in engines:
        prepare(engine)
    measure(engines, args)
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(gemmac),
        "model": {"file": os.path.basename(args.model), "mb": os.path.getsize(args.model) / 1e6},
        "threads": args.t, "rounds": args.rounds, "repetitions": args.r,
        "command": shlex.join(["bench/peers/peers.py", *sys.argv[1:]]),
        "engines": [report.summary(engine, gemmac, reference) for engine in engines],
    }
    print({"text": report.text, "md": report.markdown, "json": lambda whole: json.dumps(whole, indent=1)}[args.format](result))


if __name__ == "__main__":
    main()
