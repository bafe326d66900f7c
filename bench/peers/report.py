"""The table of peers.py: a summary of each engine, and the whole as text or markdown."""

import shlex
import statistics


def summary(engine, gemmac, reference):
    """What is known of an engine, as plain data."""
    tests = {}
    for test, samples in engine.samples.items():
        std = statistics.stdev(samples) if len(samples) > 1 else None
        tests[test] = {"mean": statistics.fmean(samples), "std": std, "samples": samples}
        if engine is not gemmac and test[:2] in ("pp", "tg") and test in gemmac.samples:
            # Pairs of one round, since the machine's speed drifts from round to round.
            tests[test]["gemmac_is"] = statistics.median(a / b for a, b in zip(gemmac.samples[test], samples))
    agreed = None
    if engine.continued is not None:
        agreed = next((i for i, (a, b) in enumerate(zip(engine.continued, reference)) if a != b), len(reference))
    return {"name": engine.name, "version": engine.version, "ids": engine.ids, "greedy_as_gemmac": agreed, "greedy": len(reference),
            "note": engine.note, "tests": tests, "commands": [shlex.join(command) for command in engine.commands.values()],
            "failures": [{"depth": depth, "reason": reason} for depth, reason in engine.failures.items()]}


def has_figures(engine):
    return bool(engine["tests"])


def columns(result):
    """Names of the tests in the order of the table: speeds, then the rest."""
    names = list(dict.fromkeys(test for engine in result["engines"] for test in engine["tests"]))
    return [n for n in names if n[:2] in ("pp", "tg")] + [n for n in ("load", "compile", "peak memory") if n in names]


def unit(test):
    return {"load": "s", "compile": "s", "peak memory": "MB"}.get(test, "tok/s")


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cell(engine, test):
    if test not in engine["tests"]:
        return "failed" if engine["failures"] and unit(test) == "tok/s" else "-"
    figure = engine["tests"][test]
    shown = number(figure["mean"])
    if figure["std"] is not None and test != "peak memory":
        shown += f" ± {number(figure['std'])}"
    if "gemmac_is" in figure:
        shown += f" ({figure['gemmac_is']:.2f}x)"
    return shown


def table(result):
    """Lines of cells, the heading first. An engine without any figure has one cell, the reason."""
    tests = columns(result)
    lines = [["engine"] + [f"{test}, {unit(test)}" for test in tests]]
    for engine in result["engines"]:
        figures = [cell(engine, test) for test in tests] if engine["tests"] else [failed(engine["failures"][0])]
        lines.append([engine["name"], *figures])
    return lines


def failed(failure):
    where = f"at depth {failure['depth']}: " if failure["depth"] else ""
    return f"failed: {where}{failure['reason']}"


def facts(result):
    """(what, value) of the run."""
    machine, model = result["machine"], result["model"]
    flags = " ".join(machine["flags"])
    bandwidth = machine["read_gb_s"]
    speed = "" if not bandwidth else f"; {number(bandwidth[0])} to {number(bandwidth[1])} GB/s read, probed in each round"
    return [("machine", f"{machine['cpu']}, {machine['cpus']} CPUs: {flags}{speed}; {machine['system']}"),
            ("model", f"{model['file']}, {model['mb']:.0f} MB"),
            ("run", f"{result['date']}, gemmac {result['commit']}, {result['threads']} threads, {result['rounds']} rounds of "
                    f"{result['repetitions']} after a warm-up run, engines in turn"),
            ("command", result["command"]),
            ("figures", "mean ± standard deviation over the rounds (the x in brackets: gemmac's speed over this engine's, median of the "
                        "rounds); pp: prompt tokens, tg: generated tokens, d: tokens before them; peak memory of the first command")]


def notes(engine):
    """Lines on an engine that has figures: version, ids, what else to know, what failed."""
    lines = [", ".join(filter(None, [engine["version"], engine["ids"], engine["note"]]))]
    if engine["greedy_as_gemmac"] is not None:
        lines.append(f"greedy: the first {engine['greedy_as_gemmac']} of {engine['greedy']} tokens are gemmac's")
    return lines + [failed(failure) for failure in engine["failures"]]


def text(result):
    lines = [f"{what:<8} {value}" for what, value in facts(result)] + [""]
    cells = table(result)
    full = [row for row in cells if len(row) == len(cells[0])]
    widths = [max(len(row[0]) for row in cells)] + [max(len(row[i]) for row in full) for i in range(1, len(cells[0]))]
    lines += ["  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]) for row in cells]
    for engine in filter(has_figures, result["engines"]):
        lines += ["", engine["name"]] + [f"    {line}" for line in notes(engine)] + [f"    $ {c}" for c in engine["commands"]]
    return "\n".join(lines)


def markdown(result):
    def row(cells):
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    head, *body = table(result)
    lines = [row(["", ""]), "|---|---|"] + [row([what, value]) for what, value in facts(result)] + [""]
    lines += [row(head), "|---" + "|---:" * (len(head) - 1) + "|"] + [row(cells) for cells in body] + [""]
    for engine in filter(has_figures, result["engines"]):
        lines.append(f"- **{engine['name']}**: " + "; ".join(notes(engine)))
        lines += [f"  - `{command}`" for command in engine["commands"]]
    return "\n".join(lines)
