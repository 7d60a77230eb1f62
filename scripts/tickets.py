#!/usr/bin/env python3
"""Looks for lottery tickets on MNIST and writes the section "Lottery tickets" of docs/results/pruning.md with its charts.

    tickets.py DATA [--bin PATH] [--only NAME...] [--threads N] [--work DIR] [--out FILE]

DATA is where `scripts/fetch.sh DATA mnist` has put it. A search that was interrupted goes on where it was: what it has found lies in DIR.
A search that is not run keeps what the file has of it.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import page

ROOT = Path(__file__).parent.parent

# name: the architecture and its flags
SEARCHES = {
    "lenet-300-100": "lenet-300-100 --data {data}/mnist --validation 5000 --batch 60 --lr 1.2e-3 --steps 4000 --every 100 "
    "--rounds 15 --rate 20% --seeds 5",
    "conv4": "conv4 --data {data}/mnist --validation 3000 --batch 60 --lr 1e-3 --steps 2500 --every 100 "
    "--rounds 5 --rate 37% --scope global --arms ticket,reinit --seeds 3",
}

HEAD = "## Lottery tickets\n"
ARMS = ["ticket", "reinit", "random-mask"]


def search(args, name, flags):
    """What the verb says; its chart lies beside the results."""
    chart = args.out.parent / f"tickets-{name}.svg"
    flags = flags.format(data=args.data).split()
    command = [args.bin, "ticket", *flags, "--out", str(args.work / name), "--resume", "--svg", str(chart), "--json"]
    if args.threads:
        command += ["-t", str(args.threads)]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        sys.exit(made.stdout)
    return json.loads(made.stdout)


def share(x, digits=2):
    """Percent, with how far the mean may be off."""
    half = "" if x["half"] is None else f" ± {100 * x['half']:.{digits}f}"
    return f"{100 * x['mean']:.{digits}f}{half}"


def steps(group):
    """Steps to the dense network's accuracy, and how many seeds got there."""
    if group["steps_to_target"] is None:
        return "never"
    some = f" ({group['reached']} of {group['seeds']})" if group["reached"] < group["seeds"] else ""
    return f"{group['steps_to_target']['mean']:.0f}{some}"


def section(name, said, flags):
    """Tables of one search."""
    groups = {(g["round"], g["arm"]): g for g in said["summary"]}
    leads = {(l["round"], l["over"]): l for l in said["leads"]}
    dense = groups[0, "dense"]
    arms = [a for a in ARMS if (1, a) in groups]
    controls = arms[1:]
    head = ["left %"] + [f"{a}: test %" for a in arms] + [f"ticket − {c}" for c in ["dense", *controls]] + [f"{a}: steps" for a in arms]
    rows = [head, ["---"] * len(head)]
    for r in sorted({r for r, _ in groups if r}):
        rows.append(
            [f"{100 * groups[r, 'ticket']['remaining']:.2f}"]
            + [share(groups[r, a]["accuracy"]) for a in arms]
            + [share(leads[r, c]["accuracy"]) for c in ["dense", *controls]]
            + [steps(groups[r, a]) for a in arms]
        )
    table = "\n".join("| " + " | ".join(r) + " |" for r in rows)
    last = max(r for r, _ in groups)

    def ahead(over):
        x = leads[last, over]["accuracy"]
        half = float("inf") if x["half"] is None else x["half"]
        side = "which includes 0" if abs(x["mean"]) <= half else "all of it above 0" if x["mean"] > 0 else "all of it below 0"
        return f"{share(x)} points ({side})"

    winner = said["winner"]
    if winner:
        found = (
            f"The smallest ticket that is at least as right as the dense network in the mean, and with every seed reached its accuracy, in "
            f"no more steps in the mean, has **{100 * winner['remaining']:.2f} %** of the weights ({winner['weights']:,}; round {winner['round']})."
        )
    else:
        found = "No ticket is, in the mean, as right as the dense network within as many steps."
    command = "secateur ticket " + flags.format(data="DATA")
    seeds = dense["seeds"]
    return f"""### {name}

`{command}` (seeds {said['seed']} to {said['seed'] + seeds - 1})

Dense: {share(dense['accuracy'])} % of the test examples ({share(dense['final_accuracy'])} % with the last weights), whose validation
accuracy it reaches after {steps(dense)} steps. {found}

With {100 * groups[last, 'ticket']['remaining']:.2f} % of the weights the ticket's test accuracy less the dense network's is {ahead('dense')}; less that of
other first weights under the same mask it is {ahead('reinit')}.

{table}

![Accuracy and steps over the weights left](tickets-{name}.svg)
"""


INTRO = """
`scripts/tickets.py DATA`; what the columns are says [tickets.md](../tickets.md). Means over seeds; `±` is the half of the interval in which the mean lies with
95 % confidence (Student's t; differences are of pairs with the same seed, in percentage points). Accuracy is that of the test examples with
the weights of the step whose validation loss was least; steps are those until the validation accuracy of the dense network with the
same seed, "3 of 5" that so many seeds got there.
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--bin", default=str(ROOT / "target/release/secateur"))
    parser.add_argument("--only", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, default=ROOT / "target/tickets")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/pruning.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    mine = page.section(args.out, HEAD.strip())
    known = {p.split("\n")[0][4:]: p.rstrip() + "\n" for p in re.split(r"^(?=### )", mine, flags=re.M)[1:]}
    for name in args.only:
        known[name] = section(name, search(args, name, SEARCHES[name]), SEARCHES[name])
    body = HEAD + INTRO + "\n" + "\n".join(known[n] for n in SEARCHES if n in known)
    page.replace(args.out, HEAD.strip(), body, "# Pruned networks")


if __name__ == "__main__":
    main()
