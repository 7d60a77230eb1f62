"""Runs of secateur whose answers are kept, so that what was done is not done again."""

import json
import subprocess


def said(command, out, ends=(0,)):
    """The JSON that a command prints, which is kept in `out`, with the command beside it; `ends` are the exit statuses with which there is some."""
    beside, asked = out.with_suffix(out.suffix + ".command"), " ".join(map(str, command[1:]))
    if not out.exists() or not beside.exists() or beside.read_text() != asked:
        made = subprocess.run([*map(str, command), "--force", "--json", "--quiet"], capture_output=True, text=True)
        if made.returncode not in ends:
            raise RuntimeError(f"{' '.join(map(str, command))}: {made.stderr or made.stdout}")
        out.write_text(made.stdout)
        beside.write_text(asked)
    return json.loads(out.read_text())


def trained(binary, base, recipe, flags):
    """What training said of the network `base`: `recipe` is an architecture and its flags in one string, `flags` are further ones."""
    arch, *how = recipe.split()
    return said([binary, "train", arch, base, *how, *flags], base.with_suffix(".json"))
