"""Convert a tag of DeepSpeed's into a universal checkpoint: a program of its own.

    python -m converter TAG OUTPUT WORKERS MEMORY

It runs with the Python of the training, 3.8 or newer, which has DeepSpeed and need not have us: this package
imports nothing of ours and is copied to where that Python finds it. TAG is the folder of the tag, OUTPUT the
folder to write, relative to TAG; WORKERS is the most processes at a time and MEMORY the bytes they may take.
The work is that of `deepspeed.checkpoint.ds_to_universal`. Stdout gets a line of JSON each for:

    {"phase": "extract" | "merge", "done": 3, "of": 16}     how far it is
    {"problem": {"what": ..., "fix": ...}}                  why it cannot be converted
    {"deepspeed": "0.19.8", "notes": [...]}                 done; what the ranks that load it will not find

The last line is one of the last two.
"""
