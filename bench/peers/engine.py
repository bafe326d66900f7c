"""What the engines from PyPI have in common: the command line, the token ids, the measuring and the printed result.

A run_*.py beside this file gives main() a class with

    version         what is measured, for the table
    note            what a reader must know of it, or ""
    vocab, bos      size of the vocabulary, first id of a sequence
    load_s          seconds to read the weights
    compile_s       seconds to compile, or None if nothing is compiled
    __init__(model, threads, tests)     tests: (prompt tokens, generated tokens) of each test to come
    prefill(ids) -> seconds             an empty context takes ids
    decode(prompt, n) -> seconds, ids   the n greedy tokens after prompt; the prompt's own time is not in it

The tests and their ids are those of `gemmac bench` (frontend/cmd_bench.c): pseudo-random ids after bos, one warm-up run, then the
repetitions. The result is one JSON object on the last line of standard output.
"""

import argparse
import json
import statistics


def integers(text):
    return [int(part) for part in text.split(",") if part]


def bench_ids(count, vocab, bos):
    """The ids that `gemmac bench` feeds: the same generator, the same seed."""
    state, ids = 42, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % vocab)
    return [bos] + ids[1:]


def measure(run, tokens, repetitions):
    """tok/s of each repetition, after a warm-up run."""
    return [tokens / run() for _ in range(repetitions + 1)][1:]


def main(engine_class):
    parser = argparse.ArgumentParser(description=f"Measures one engine: {engine_class.__doc__}")
    parser.add_argument("model", help="a GGUF file of Gemma 3")
    parser.add_argument("-p", type=integers, default=[512], help="prompt lengths to measure (512)")
    parser.add_argument("-n", type=integers, default=[64], help="numbers of generated tokens to measure (64)")
    parser.add_argument("-d", type=int, default=0, help="tokens in the context before generating (0)")
    parser.add_argument("-r", type=int, default=5, help="repetitions (5)")
    parser.add_argument("-t", type=int, default=1, help="threads (1)")
    parser.add_argument("--ids", type=integers, default=[], help="a prompt whose greedy continuation is reported")
    parser.add_argument("--greedy", type=int, default=16, help="tokens of that continuation (16)")
    args = parser.parse_args()
    prompts = [tokens for tokens in args.p if tokens]
    start = max(args.d, 1)
    tests = [(tokens, 0) for tokens in prompts] + [(start, tokens) for tokens in args.n]
    if args.ids:
        tests.append((len(args.ids), args.greedy))
    engine = engine_class(args.model, args.t, tests)
    ids = bench_ids(max(prompts + [start]), engine.vocab, engine.bos)
    at = f" @ d{args.d}" if args.d else ""
    rows = []

    def add(test, samples, unit):
        std = statistics.stdev(samples) if len(samples) > 1 else 0
        rows.append({"test": test, "mean": statistics.fmean(samples), "std": std, "unit": unit})

    for tokens in prompts:
        add(f"pp{tokens}", measure(lambda: engine.prefill(ids[:tokens]), tokens, args.r), "tok/s")
    for tokens in args.n:
        add(f"tg{tokens}{at}", measure(lambda: engine.decode(ids[:start], tokens)[0], tokens, args.r), "tok/s")
    greedy = engine.decode(args.ids, args.greedy)[1] if args.ids else []
    add("load", [engine.load_s], "s")
    if engine.compile_s is not None:
        add("compile", [engine.compile_s], "s")
    print(json.dumps({"version": engine.version, "note": engine.note, "rows": rows, "greedy": greedy}))
